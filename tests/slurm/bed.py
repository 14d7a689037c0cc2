"""A machine with Slurm, munge, cron and a ledger service, as its administrator would set it up, in namespaces of its own over a view of this
machine whose changes are kept in memory, so that nothing is left of it, however this ends."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import wait_until

# A copy, since the working directory may be below /tmp, which the jobs have for themselves.
DEPLOY = pathlib.Path("/usr/share/jobmeter/deploy")
LEDGER = "http://127.0.0.1:7770"
HOST = "node"
# Not 127.0.0.1: where no other address is, Slurm finds none to listen on (AI_ADDRCONFIG).
ADDRESS = "10.77.77.77"
USERS = ("ann", "bob", "poor")
# The programs of the namespace, and the time that they burn. A burner writes down what it has burned so far, since it may be killed.
BURN = """\
#!/usr/bin/python3 -u
import os, sys, time
seconds, *path = sys.argv[1:]
file = os.open(path[0], os.O_CREAT | os.O_WRONLY) if path else None
while time.process_time() < float(seconds):
    if path:
        os.pwrite(file, b"%012.6f" % time.process_time(), 0)
print("burned", seconds)
"""
CONF = {
    "ClusterName": "test",
    "SlurmctldHost": f"{HOST}({ADDRESS})",
    "SlurmUser": "root",
    "AuthInfo": "cred_expire=5",
    "StateSaveLocation": "/var/lib/slurm-state",
    "SlurmdSpoolDir": "/var/spool/slurmd",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "JobAcctGatherType": "jobacct_gather/none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_CPU",
    "SlurmdParameters": "config_overrides",
    "SchedulerParameters": "batch_sched_delay=0,sched_interval=1",
    "KillWait": "2",
    "MinJobAge": "900",
    "Epilog": "/etc/slurm/epilog",
    "NodeName": f"{HOST} NodeAddr={ADDRESS} CPUs=8",
    "PartitionName": "all Nodes=ALL Default=YES OverSubscribe=FORCE:4",
}


def become(user):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]


def call(*line, user=None, check=True, limit_s=60, **environment):
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **environment}
    done = subprocess.run([*(become(user) if user else []), *map(str, line)], env=env, cwd="/tmp", capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit_s)
    assert not check or done.returncode == 0, (line, done.returncode, done.stdout, done.stderr)
    return done


def ledger(*arguments, check=True):
    return call("jobmeter", *arguments, check=check, JOBMETER_LEDGER=LEDGER, JOBMETER_KEY="/etc/jobmeter/admin-key").stdout


def job(name):
    return json.loads(ledger("--json", "jobs", "show", name, check=False) or "null")


def settled(name):
    """The job, when its books are closed."""
    return wait_until(20, f"the books of {name} are closed", lambda: (found := job(name)) and found["state"] == "ended" and found)


def cpu(attempt):
    return float(attempt["usage"]["cpu_used_seconds"])


def is_about(seconds, measured):
    """All of it, and once: an interpreter's start comes on top, which costs some hundredths of a second, more on a busy machine."""
    return seconds <= measured < 1.6 * seconds + 0.1


def tasks(found):
    return sorted(attempt["identity"]["task"] for attempt in found["attempts"])


def batch(script, *options, user="ann", **environment):
    path = pathlib.Path(f"/tmp/{user}.batch")
    path.write_text(script)
    return call("sbatch", "--parsable", "--output=/tmp/%j.out", *options, path, user=user, **environment).stdout.strip()


def said(number):
    return pathlib.Path(f"/tmp/{number}.out").read_text()


def shown(number):
    return dict(field.split("=", 1) for field in call("scontrol", "--oneliner", "show", "job", number).stdout.split() if "=" in field)


def state_of(number):
    return shown(number)["JobState"]


def over(number):
    """What Slurm says of the job, when no task or epilog of it runs any more."""
    running = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")
    return wait_until(40, f"job {number} ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout and (now := shown(number))["JobState"] not in running and now)


def left_over(user):
    return call("ps", "-u", user, "-o", "stat=,args=", check=False).stdout.replace("Z ", "").strip()


def meters():
    """What runs of the meters: guardians, keepers, and their settling."""
    return call("pgrep", "-f", "^jobmeter slurm task", check=False).stdout.split()


def node_state():
    return call("sinfo", "-h", "-o", "%T").stdout.strip()


def write_slurm_conf(**changes):
    conf = CONF | changes
    pathlib.Path("/etc/slurm/slurm.conf").write_text("".join(f"{key}={value}\n" for key, value in conf.items() if value is not None))


def install(changes, binary):
    """The machine as its administrator would set it up."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "changes", changes], check=True)
    shutil.copy(binary, changes / "jobmeter")
    for place in ("etc", "usr", "var"):
        (changes / place).mkdir()
        (changes / f"{place}.work").mkdir()
        options = f"lowerdir=/{place},upperdir={changes}/{place},workdir={changes}/{place}.work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", f"/{place}"], check=True)
    shutil.copy(changes / "jobmeter", "/usr/bin/jobmeter")
    shutil.copytree(HERE.parent.parent / "deploy", DEPLOY)
    for place, mode in (("/run", "755"), ("/tmp", "1777"), ("/srv", "755"), ("/var/spool", "755")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode}", "own", place], check=True)
    socket.sethostname(HOST)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"{ADDRESS} {HOST}\n")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
        fcntl.ioctl(any_socket, 0x8916, struct.pack("16s16s", b"lo:1", address))  # SIOCSIFADDR
    for user in USERS:
        call("useradd", "--no-create-home", "--home-dir", "/tmp", "--user-group", user)
    for path in ("/usr/bin/burn", "/srv/train.py"):
        pathlib.Path(path).write_text(BURN if path.endswith("burn") else BURN.replace("sys.argv[1:]", "['0.2']"))
        os.chmod(path, 0o755)

    # As deploy/slurm/README.md says.
    slurm = DEPLOY / "slurm"
    for path in ("/etc/slurm", "/etc/jobmeter/keys", "/usr/libexec/jobmeter", "/var/spool/slurmd", "/var/lib/slurm-state"):
        os.makedirs(path, exist_ok=True)
    call("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "jobmeter")
    shutil.copy(slurm / "epilog", "/etc/slurm/epilog")
    shutil.copy("/usr/bin/jobmeter", "/usr/libexec/jobmeter/slurm-front")
    os.chmod("/usr/libexec/jobmeter/slurm-front", 0o711)
    shutil.copy(slurm / "write-comment", "/usr/libexec/jobmeter/write-comment")
    call("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", "/usr/libexec/jobmeter/jobmeter_spank.so", slurm / "jobmeter_spank.c", slurm / "description.c")
    pathlib.Path("/etc/slurm/plugstack.conf").write_text("required /usr/libexec/jobmeter/jobmeter_spank.so\n")
    pathlib.Path("/etc/jobmeter/config.toml").write_text(f'ledger = "{LEDGER}"\n[run]\nquiet = true\n[slurm]\nkey_file = "/etc/jobmeter/slurm.key"\n')


# For whoever wants to stop some.
started = {}


def daemon(*line, **environment):
    env = {**os.environ, **environment}
    with open(f"/var/log/{line[0]}.test.log", "a") as log:
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=env)


def serve():
    service = started["ledger"] = daemon("jobmeter", "serve", "--db", "/var/lib/ledger.db", "--admin-key-file", "/etc/jobmeter/admin-key")
    wait_until(20, "the ledger answers", lambda: os.path.exists("/etc/jobmeter/admin-key") and call("jobmeter", "status", check=False, JOBMETER_LEDGER=LEDGER, JOBMETER_KEY="/etc/jobmeter/admin-key").returncode == 0)
    return service


def start_slurmd(*options):
    preload = {"LD_PRELOAD": "/usr/libexec/cgroup2-alone.so"} if os.path.exists("/usr/libexec/cgroup2-alone.so") else {}
    started["slurmd"] = daemon("slurmd", "-D", *options, **preload)
    # Its port, for one that comes back.
    wait_until(30, "slurmd answers", lambda: call("scontrol", "show", "slurmd", check=False).returncode == 0)
    return started["slurmd"]


def start_slurm(**changes):
    """slurmctld and slurmd, by these settings."""
    write_slurm_conf(**changes)
    started["slurmctld"] = daemon("slurmctld", "-D")
    start_slurmd()
    wait_until(30, "the node is idle", lambda: "idle" in call("sinfo", "-h", "-o", "%T", check=False).stdout)


def start_cron():
    """With the file that ships, and nothing of the machine's own."""
    for path in ("/etc/cron.d", "/etc/cron.hourly"):
        shutil.rmtree(path, ignore_errors=True)
    pathlib.Path("/etc/crontab").unlink(missing_ok=True)
    os.makedirs("/etc/cron.d")
    os.makedirs("/var/spool/cron/crontabs")
    shutil.copy(DEPLOY / "schedulers/crontab", "/etc/cron.d/training")
    os.chmod("/etc/cron.d/training", 0o644)
    daemon("cron", "-f")


def start():
    service = serve()
    for user in USERS:
        key = f"/etc/jobmeter/keys/{user}"
        ledger("--user", user, "key", "create", user, "--only-user", "--to", key)
        shutil.chown(key, user)
    ledger("key", "create", "node", "--to", "/etc/jobmeter/node-key")
    ledger("key", "create", "slurm", "--to", "/etc/jobmeter/slurm.key")
    shutil.chown("/etc/jobmeter/slurm.key", "jobmeter")
    ledger("key", "create", "comment", "--scope", "read", "--to", "/etc/jobmeter/slurm-comment.key")
    pathlib.Path("/etc/jobmeter/slurm-comment.env").write_text(f"JOBMETER_LEDGER={LEDGER}\nJOBMETER_KEY=/etc/jobmeter/slurm-comment.key\n")

    os.makedirs("/run/munge")
    pathlib.Path("/etc/munge/munge.key").write_bytes(os.urandom(128))
    shutil.rmtree("/var/log/munge", ignore_errors=True)
    shutil.rmtree("/var/lib/munge", ignore_errors=True)
    for path in ("/run/munge", "/etc/munge", "/etc/munge/munge.key"):
        shutil.chown(path, "root", "root")
    daemon("munged", "--foreground", "--log-file=/run/munge/log", "--seed-file=/run/munge/seed")
    wait_until(20, "munge answers", lambda: os.path.exists("/run/munge/munge.socket.2"))
    return service


def inside(changes, binary, run):
    install(changes, binary)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    for variable in [variable for variable in os.environ if variable.startswith(("JOBMETER", "SLURM"))]:
        del os.environ[variable]
    try:
        start()
        return run()
    except BaseException:
        print_logs()
        raise


def print_logs():
    for log in sorted(pathlib.Path("/var/log").glob("*.test.log")):
        print(f"== the end of {log.name}\n{log.read_text()[-1500:]}", file=sys.stderr)


def mount_of_cgroup2():
    return next((line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2"), None)


def outside(script, binary, *arguments, namespaces=()):
    mount = mount_of_cgroup2()
    wanted = {"slurmctld": "slurm-wlm", "munged": "munge", "gcc": "gcc", "cron": "cron", "parallel": "parallel"}
    missing = [package for program, package in wanted.items() if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")]
    if not os.path.exists("/usr/include/slurm/spank.h"):
        missing.append("libslurm-dev")
    if missing or os.geteuid() != 0 or not mount:
        sys.exit(f"slurm: needs root, cgroup v2, and: apt-get install {' '.join(missing)}")
    group = pathlib.Path(mount, f"jobmeter-slurm-{os.getpid()}")
    changes = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-slurm-"))
    group.mkdir()
    try:
        # The second bash is the first process of the namespace, which has to reap what others leave; with it everything in there ends.
        return subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "bash", "-c", 'echo 0 > "$1/cgroup.procs"; shift; exec "$@"', "bash", group,
             "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", *namespaces, "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", '"$@" & wait $!', "bash", sys.executable, script, "--inside", changes, binary, *arguments],
            check=False).returncode
    finally:
        changes.rmdir()
        wait_until(10, "the group is empty", lambda: "populated 0" in (group / "cgroup.events").read_text())
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
        # Of meters, which leave the groups of what they meter. Other nodes of this machine may have some there.
        with contextlib.suppress(OSError):
            pathlib.Path(mount, "jobmeter-meters").rmdir()


def main(script, run):
    """`run` within such a machine."""
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3], lambda: run(*sys.argv[4:])))
    sys.exit(outside(script, pathlib.Path(sys.argv[1]).resolve(), *sys.argv[2:]))
