"""Pods of deploy/kubernetes in podman.

The manifests are those that a cluster gets; what the kubelet does with them is done here by hand: the init container first, then
the relay and the job beside each other, an emptyDir or a secret as a directory with the kubelet's mode, the file of the termination
message, and SIGTERM to the relay once the job has ended."""

import json
import pathlib
import shutil
import subprocess
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import LedgerService, wait_until

BINARIES = pathlib.Path(sys.argv[1]).resolve()
DEPLOY = HERE.parent.parent / "deploy"
JOBMETER = str(BINARIES / "jobmeter")

# Children that leave their session and whose parents do not wait for them, each of which burns a little.
CHILDREN = """\
import os, time
for _ in range({count}):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            until = time.process_time() + {each}
            while time.process_time() < until: pass
        os._exit(0)
    os.wait()
time.sleep({rest})
"""


def call(*line, check=True, **options):
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, **options)
    if check and done.returncode:
        raise AssertionError(f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def podman(*line, **options):
    return call("podman", "--log-level", "error", *line, **options)


class Ledger(LedgerService):
    """A service on this machine, and a key for relays."""

    def __init__(self, directory):
        super().__init__(JOBMETER, directory)
        self.directory = directory
        self.relay_key = self.key("relay", "key", "create", "relay")
        self.ask("--user", "ann", "account", "limit", "none")

    def ask(self, *line):
        return self.call(*line).stdout


class Pod:
    """One run of the example job with another command."""

    count = 0

    def __init__(self, ledger, command, user="ann", env=None, image="localhost/base", relay_options=(), before=(), flags=(), gpu_exclusive=""):
        Pod.count += 1
        self.ledger, self.name = ledger, f"pod-{Pod.count}"
        self.directory = ledger.directory / self.name
        self.directory.mkdir(mode=0o755)
        job = yaml.safe_load(call("kubectl", "kustomize", DEPLOY / "kubernetes/job-before-1.35").stdout)
        spec = job["spec"]["template"]["spec"]
        install, relay = sorted(spec["initContainers"], key=lambda container: container["name"])
        (main,) = spec["containers"]
        assert relay["name"] == "jobmeter-relay" and relay.pop("restartPolicy") == "Always"
        fields = {"JOBMETER_ACCOUNT": user, "JOBMETER_JOB_UID": self.name, "JOBMETER_JOB_NAME": "example", "JOBMETER_TASK": "", "JOBMETER_GPU_EXCLUSIVE": gpu_exclusive}
        relay["env"] = [{"name": one["name"], "value": fields[one["name"]]} for one in relay["env"] if one["name"] in fields]
        relay["args"] = [fields_in(word, fields).replace("https://jobmeter.jobmeter.svc:7770", ledger.url) for word in relay["args"]]
        relay["args"] += relay_options
        install["image"] = relay["image"] = "localhost/jobmeter"
        main["image"] = image
        main["command"] = [*before, *main["command"][: main["command"].index("--") + 1], *command]
        main["env"] = [{"name": name, "value": value} for name, value in (env or {}).items()]
        self.message = self.directory / "termination-log"
        self.message.touch()
        self.message.chmod(0o666)
        self.volumes = {volume["name"]: self.on_host(volume) for volume in spec["volumes"]}
        self.main, self.relay = f"{self.name}-main", f"{self.name}-jobmeter-relay"
        self.run(spec, install, "--rm")
        self.run(spec, relay, "--detach")
        self.run(spec, main, "--detach", f"--volume={self.message}:/dev/termination-log", *flags)

    @classmethod
    def attached(cls, ledger, command, user="ann"):
        """The variant in which the sidecar meters from outside: deploy/kubernetes/job-attach."""
        pod = cls.__new__(cls)
        Pod.count += 1
        pod.ledger, pod.name = ledger, f"pod-{Pod.count}"
        pod.directory = ledger.directory / pod.name
        pod.directory.mkdir(mode=0o755)
        spec = yaml.safe_load(call("kubectl", "kustomize", DEPLOY / "kubernetes/job-attach").stdout)["spec"]["template"]["spec"]
        (meter,), (main,) = spec["initContainers"], spec["containers"]
        assert meter.pop("restartPolicy") == "Always" and spec["shareProcessNamespace"]
        fields = {"JOBMETER_ACCOUNT": user, "JOBMETER_JOB_UID": pod.name, "JOBMETER_JOB_NAME": "example", "JOBMETER_TASK": ""}
        meter["env"] = [{"name": one["name"], "value": fields[one["name"]]} for one in meter["env"] if one["name"] in fields]
        meter["args"] = [fields_in(word, fields).replace("https://jobmeter.jobmeter.svc:7770", ledger.url) for word in meter["args"]]
        meter["image"], main["image"], main["command"] = "localhost/jobmeter", "localhost/base", command
        pod.volumes = {volume["name"]: pod.on_host(volume) for volume in spec["volumes"]}
        pod.main, pod.relay = f"{pod.name}-main", f"{pod.name}-jobmeter-attach"
        # Under the pod's own first process, as the kubelet has it.
        podman("run", "--detach", f"--name={pod.name}-pause", "--network=none", "localhost/base", "/bin/sleep", "600")
        pod.run(spec, main, "--detach", f"--pid=container:{pod.name}-pause")
        pod.run(spec, meter, "--detach", f"--pid=container:{pod.name}-pause")
        return pod

    def run(self, spec, container, *flags):
        """As the kubelet has it run: `podman kube play` makes a group for the pod from which no device can be opened here."""
        own, of_pod = container["securityContext"], spec["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]} and own["readOnlyRootFilesystem"]
        user, group = (own.get(field, of_pod[field]) for field in ("runAsUser", "runAsGroup"))
        flags = [*flags, f"--name={self.name}-{container['name']}", "--network=host", f"--user={user}:{group}", "--cap-drop=ALL",
                 "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges"]
        for mount in container.get("volumeMounts", []):
            mode = "ro" if mount.get("readOnly") else "rw"
            flags.append(f"--volume={self.volumes[mount['name']]}:{mount['mountPath']}:{mode}")
        flags += [f"--env={one['name']}={one['value']}" for one in container.get("env", [])]
        command = container.get("command", [])
        if command:
            flags.append(f"--entrypoint={json.dumps(command)}")
        return podman("run", *flags, container["image"], *container.get("args", []))

    def on_host(self, volume):
        """An emptyDir, or a secret, with the mode that the kubelet gives it."""
        path = self.directory / volume["name"]
        path.mkdir()
        if "secret" in volume:
            shutil.copy(self.ledger.relay_key, path / "key")
            (path / "key").chmod(0o444)
        else:
            assert "emptyDir" in volume, volume
            path.chmod(0o777)
        return path

    def ended(self):
        """The exit status of the main container; its relay then gets SIGTERM, as from the kubelet."""
        status = int(podman("wait", self.main).stdout)
        podman("stop", "--time", "25", self.relay)
        relays = int(podman("inspect", "--format", "{{.State.ExitCode}}", self.relay).stdout)
        assert relays == 0, f"the relay ended with {relays}:\n{self.logs(self.relay)}"
        return status

    def logs(self, container=None):
        done = podman("logs", container or self.main)
        return done.stdout + done.stderr

    def told(self):
        return json.loads(self.message.read_text())

    def pid(self):
        return int(podman("inspect", "--format", "{{.State.Pid}}", self.main).stdout)

    def group(self):
        """The cgroup of the main container."""
        line = pathlib.Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines()
        return pathlib.Path("/sys/fs/cgroup" + next(one[3:] for one in line if one.startswith("0::")))

    def burned(self):
        """CPU seconds by the main container's own counter, the meter's included."""
        return int((self.group() / "cpu.stat").read_text().split()[1]) / 1e6

    def await_burned(self, seconds):
        return wait_until(60, f"{self.name} has burned {seconds} s", lambda: (burned := self.burned()) >= seconds and burned)

    def remove(self):
        podman("rm", "--force", "--time", "0", self.main, self.relay)
        # Where there is one, the others had stood on it.
        podman("rm", "--force", "--ignore", "--time", "0", f"{self.name}-pause")


def fields_in(word, fields):
    for name, value in fields.items():
        word = word.replace(f"$({name})", value)
    return word
