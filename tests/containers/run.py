#!/usr/bin/env python3
"""The pods of deploy/kubernetes in podman: podman.sh DIRECTORY run.py BINARIES BASE.tar [SCENE...]. BINARIES is the directory
with jobmeter, jobmeter-wrapper (static) and jobmeter-nvml; BASE.tar a Debian root file system with python3."""

import json
import os
import pathlib
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from pods import BINARIES, CHILDREN, DEPLOY, Ledger, Pod, podman

from harness import run_scenes

HERE = pathlib.Path(__file__).resolve().parent
SPIN = "import time\nuntil = time.process_time() + {}\nwhile time.process_time() < until: pass"

# Whatever it is loaded into by the dynamic loader: the helper for GPUs is not to be.
HOSTILE = """\
#include <stdio.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void begin(void) {
  char line[4096] = {0};
  FILE *file = fopen("/proc/self/cmdline", "r");
  size_t length = file ? fread(line, 1, sizeof line - 1, file) : 0;
  for (size_t at = 0; at < length; at++)
    if (!strncmp(line + at, "jobmeter-nvml", 13)) _exit(1);
}
"""

# Traces the helper, ends it, and waits for another one.
TAKEOVER = """\
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
def helpers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
        except OSError:
            continue
        found += [int(pid)] if "/jobmeter/jobmeter-nvml" in words else []
    return found
(helper,) = helpers()
PTRACE_SEIZE = 0x4206
said = ["refused" if libc.ptrace(PTRACE_SEIZE, helper, 0, 0) == -1 else "traced"]
os.kill(helper, signal.SIGKILL)
while helper in helpers():
    os.sched_yield()
said.append("killed")
until = time.monotonic() + 6
others = []
while time.monotonic() < until and not others:
    others = [pid for pid in helpers() if pid != helper]
    os.sched_yield()
said.append("another" if others else "none")
print(", ".join(said))
"""


def python(text):
    return ["python3", "-c", text]


def a_job_is_metered_to_its_last_child(ledger):
    """By the container's own counter, which is gone with the container: it is read from outside until then."""
    pod = Pod(ledger, python(CHILDREN.format(count=150, each=0.005, rest=1.5)))
    stat = open(pod.group() / "cpu.stat")
    truth = 0
    while podman("inspect", "--format", "{{.State.Running}}", pod.main).stdout.strip() == "true":
        stat.seek(0)
        try:
            truth = int(stat.readline().split()[1])
        except OSError:
            break
        time.sleep(0.05)
    assert pod.ended() == 0, pod.logs()
    job = ledger.job(pod.name)
    receipt = job["attempts"][0]["receipt"]
    metered = float(receipt["cpu"]["total_seconds"])
    own = float(receipt["meter"]["cpu_seconds"])
    share = metered / (truth / 1e6 - own)
    assert receipt["cpu"]["source"] == "enclosing" and receipt["outcome"]["tamper"] == "none", receipt
    assert 0.98 < share < 1.02, (metered, own, truth)
    assert pod.told()["reason"] == "completed" and pod.told()["cpu_seconds"] == metered, pod.told()
    assert (job["user"], job["name"]) == ("ann", "example"), job
    pod.remove()
    return f"{metered:.3f} s of {truth / 1e6 - own:.3f} s, {share:.2%}; the meter burned {own:.3f} s"


def it_ends_as_its_command_does(ledger):
    for command, status in ((["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -9 $$"], 137), (["/nowhere"], 127)):
        pod = Pod(ledger, command)
        assert pod.ended() == status, (command, pod.logs())
        pod.remove()


def credits_run_out(ledger):
    """Also for what has left its session, ignores SIGTERM and forks without end."""
    ledger.ask("--user", "poor", "account", "limit", "0.002")
    bomb = "trap '' TERM; setsid sh -c 'while :; do :; done' & while :; do (true) & done"
    pod = Pod(ledger, ["sh", "-c", bomb], user="poor")
    assert pod.ended() == 75, pod.logs()
    told = pod.told()
    assert told["reason"] == "credits_exhausted", told
    left = float(ledger.job(pod.name)["charged"]["total"])
    assert left <= 0.002
    again = Pod(ledger, ["true"], user="poor")
    assert (again.ended(), again.told()["reason"]) == (75, "refused"), again.logs()
    pod.remove(), again.remove()
    return f"charged {left:.9f} of 0.002"


def the_relay_is_killed_and_goes_on(ledger):
    pod = Pod(ledger, python(SPIN.format(4)))
    pod.await_burned(1)
    podman("kill", "--signal", "KILL", pod.relay)
    podman("start", pod.relay)
    assert pod.ended() == 0, pod.logs() + pod.logs(pod.relay)
    job = ledger.job(pod.name)
    assert len(job["attempts"]) == 1 and 4 <= float(job["attempts"][0]["usage"]["cpu_used_seconds"]) < 4.5, job
    pod.remove()


def the_ledger_is_away_for_a_while(ledger):
    pod = Pod(ledger, python(SPIN.format(6)))
    # The first slice lasts some seconds; the second for half a minute at the job's rate.
    pod.await_burned(3)
    ledger.kill()
    # The outage itself.
    time.sleep(2)
    ledger.start()
    assert pod.ended() == 0, pod.logs() + pod.logs(pod.relay)
    assert 6 <= float(ledger.job(pod.name)["attempts"][0]["usage"]["cpu_used_seconds"]) < 6.5
    pod.remove()


def the_container_is_killed_from_outside(ledger):
    """As by the kernel for want of memory: what it had burned by the last second is charged all the same."""
    pod = Pod(ledger, python(SPIN.format(60)))
    before = pod.await_burned(3.3)
    podman("kill", "--signal", "KILL", pod.main)
    assert pod.ended() == 137
    (attempt,) = ledger.job(pod.name)["attempts"]
    assert attempt["reason"] == "meter_lost", attempt
    # One thread burns at most a second in an --interval, and podman takes a while to kill.
    assert before - 1.5 <= float(attempt["usage"]["cpu_used_seconds"]) <= before + 1, (before, attempt)
    pod.remove()


def a_broken_loader_and_a_preload_do_not_reach_the_wrapper(ledger):
    pod = Pod(ledger, ["true"], env={"LD_PRELOAD": "/nowhere.so", "LD_LIBRARY_PATH": "/nowhere", "GCONV_PATH": "/nowhere"})
    assert pod.ended() == 0, pod.logs()
    pod.remove()


def it_starts_in_an_image_without_a_libc(ledger):
    """A statically linked shell and nothing else, as images of musl look to a program of glibc."""
    context = ledger.directory / "bare"
    context.mkdir()
    shutil.copy("/bin/busybox", context / "busybox")
    (context / "Containerfile").write_text("FROM scratch\nCOPY busybox /bin/sh\n")
    podman("build", "--quiet", "--tag", "localhost/bare", context)
    pod = Pod(ledger, ["/bin/sh", "-c", "echo it runs"], image="localhost/bare")
    assert pod.ended() == 0 and "it runs" in pod.logs(), pod.logs()
    pod.remove()


def hostile_image(ledger):
    """What it loads into each program ends the helper, and its driver's library tells of no device."""
    context = ledger.directory / "hostile"
    context.mkdir()
    (context / "hostile.c").write_text(HOSTILE)
    (context / "empty.c").write_text("int nvmlInit_v2(void) { return 0; }\n")
    for name in ("hostile", "empty"):
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", context / f"{name}.so", context / f"{name}.c"], check=True)
    (context / "preload").write_text("/usr/lib/hostile.so\n")
    folder = f"/usr/lib/{platform.machine()}-linux-gnu"
    (context / "Containerfile").write_text(
        f"FROM localhost/base\nCOPY hostile.so /usr/lib/hostile.so\nCOPY preload /etc/ld.so.preload\nCOPY empty.so {folder}/libnvidia-ml.so.1\n")
    podman("build", "--quiet", "--tag", "localhost/hostile", context)
    (context / "Volumefile").write_text(
        "FROM localhost/base\nCOPY --chown=0:0 --chmod=0755 empty.so /usr/local/nvidia/lib64/libnvidia-ml.so.1\nVOLUME /usr/local/nvidia/lib64\n")
    podman("build", "--quiet", "--tag", "localhost/hostile-volume", "--file", context / "Volumefile", context)
    return "localhost/hostile"


def an_image_does_not_decide_what_its_gpu_did(ledger):
    image = hostile_image(ledger)
    devices = ledger.directory / "devices"
    devices.mkdir()
    for name in ("nvidia0", "nvidiactl"):
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.chmod(devices / name, 0o666)
    flags = [f"--volume={devices / name}:/dev/{name}" for name in ("nvidia0", "nvidiactl")]
    command = ["sleep", "5"]

    # The host's library, as NVIDIA's runtime mounts it.
    script = devices / "script.json"
    script.write_text(json.dumps({"start_us": time.time_ns() // 1000, "devices": [{"uuid": "GPU-a", "busy": [{"percent": 50}]}]}))
    library = f"{os.environ['JOBMETER_FAKE_NVML']}:/usr/lib/libnvidia-ml.so.550.54:ro"
    pod = Pod(ledger, command, image=image, flags=[*flags, f"--volume={library}", f"--volume={script}:/run/fake-nvml.json:ro"], gpu_exclusive="true")
    assert pod.ended() == 0, pod.logs()
    gpu = ledger.job(pod.name)["attempts"][0]["receipt"]["gpu"]
    assert (gpu["source"], gpu["declared_by"]) == ("nvml", "the container"), gpu
    (device,) = gpu["devices"]
    assert (device["uuid"], device["mode"]) == ("GPU-a", "exclusive"), gpu
    share = float(device["busy_seconds"]) / float(device["allocated_seconds"])
    assert 0.4 < share < 0.6, gpu
    pod.remove()

    # Nobody takes the place of who reads the device.
    pod = Pod(ledger, python(TAKEOVER), flags=[*flags, f"--volume={library}", f"--volume={script}:/run/fake-nvml.json:ro"], gpu_exclusive="true")
    assert pod.ended() == 0 and "refused, killed, none" in pod.logs(), pod.logs()
    (device,) = ledger.job(pod.name)["attempts"][0]["receipt"]["gpu"]["devices"]
    assert float(device["busy_seconds"]) > 0.85 * float(device["allocated_seconds"]), device
    pod.remove()

    # None of the host's: the image's own is not believed, also where it lies in a volume of the image.
    for name in (image, f"{image}-volume"):
        pod = Pod(ledger, command, image=name, flags=flags)
        assert pod.ended() == 0, pod.logs()
        gpu = ledger.job(pod.name)["attempts"][0]["receipt"]["gpu"]
        (device,) = gpu["devices"]
        assert (gpu["source"], device["mode"]) == ("files", "allocated") and float(device["busy_seconds"]) >= 5, gpu
        assert any("part of the container's own image" in note for note in gpu["notes"]), gpu
        pod.remove()
    return f"{share:.0%} of 50 % busy; {float(device['busy_seconds']):.3f} s of 5 s as allocated"


def no_attack_succeeds(ledger):
    """The workload tries to end, stop, trace, impersonate or outlive the meter: attacks.py says which way."""
    text = (HERE / "attacks.py").read_text()
    pod = Pod(ledger, python(text) + ["all"])
    status = pod.ended()
    lines = [line for line in pod.logs().splitlines() if line.startswith("attack ")]
    succeeded = [line for line in lines if not line.endswith(": failed")]
    assert status == 0 and not succeeded and len(lines) >= 17, (status, pod.logs())
    burned = float(ledger.job(pod.name)["attempts"][0]["usage"]["cpu_used_seconds"])
    assert burned >= 0.5, "what was burned after the attacks was not metered"
    pod.remove()
    # Those that end the job end it whole at once, and what it burned until then is in the books.
    for deadly in ("kill_everything", "kill_the_keeper", "stop_the_keeper", "starve_the_meter"):
        pod = Pod(ledger, python(text) + [deadly])
        status = pod.ended()
        (attempt,) = ledger.job(pod.name)["attempts"]
        burned = float(attempt["usage"]["cpu_used_seconds"])
        assert status != 0 and "still alive" not in pod.logs(), (deadly, status, pod.logs())
        assert 1.4 <= burned <= 4 and attempt["reason"] == "meter_lost", (deadly, attempt)
        pod.remove()
        lines.append(deadly)
    return f"{len(lines)} attacks, 0 succeeded"


def a_sidecar_meters_from_outside(ledger):
    """Second best: what was burned between its last look and the end of the container is lost."""
    pod = Pod.attached(ledger, python(SPIN.format(4)))
    assert int(podman("wait", pod.main).stdout) == 0, pod.logs()
    assert int(podman("wait", pod.relay).stdout) == 0, pod.logs(pod.relay)
    burned = float(ledger.job(pod.name)["attempts"][0]["usage"]["cpu_used_seconds"])
    assert 0.95 * 4 <= burned <= 4.2, (burned, pod.logs(pod.relay))
    pod.remove()
    ledger.ask("--user", "rich", "account", "limit", "0.002")
    stopped = Pod.attached(ledger, ["sh", "-c", "trap '' TERM; while :; do :; done"], user="rich")
    assert int(podman("wait", stopped.main).stdout) == 137
    assert int(podman("wait", stopped.relay).stdout) == 75, stopped.logs(stopped.relay)
    stopped.remove()
    return f"{burned:.3f} s of 4 s"


def the_books_are_right(ledger):
    return ledger.ask("ledger", "verify").strip()


SCENES = (
    a_job_is_metered_to_its_last_child,
    it_ends_as_its_command_does,
    credits_run_out,
    the_relay_is_killed_and_goes_on,
    the_ledger_is_away_for_a_while,
    the_container_is_killed_from_outside,
    a_broken_loader_and_a_preload_do_not_reach_the_wrapper,
    it_starts_in_an_image_without_a_libc,
    an_image_does_not_decide_what_its_gpu_did,
    no_attack_succeeds,
    a_sidecar_meters_from_outside,
    the_books_are_right,
)


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-containers-"))
    directory.chmod(0o755)
    ledger = None
    try:
        if podman("image", "exists", "localhost/base", check=False).returncode:
            podman("import", "--quiet", sys.argv[2], "localhost/base")
        podman("build", "--quiet", "--build-arg", "BASE=localhost/base", "--tag", "localhost/jobmeter", "--file", DEPLOY / "Containerfile", BINARIES)
        ledger = Ledger(directory)
        wanted = sys.argv[3:]
        scenes = [scene for scene in SCENES if not wanted or scene.__name__ in wanted]
        return run_scenes("containers", scenes, ledger, print_logs=ledger.processes.print_logs)
    finally:
        podman("rm", "--all", "--force", "--time", "0", check=False)
        if ledger:
            ledger.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
