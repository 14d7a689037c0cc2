#!/usr/bin/env python3
"""deploy/slurm with its SPANK plugin, and the files of deploy/schedulers, as they are and where they belong on a machine:
tests/slurm/spank.py JOBMETER. Slurm, munge and cron run in namespaces of their own over a view of this machine whose changes are kept in
memory, so that nothing is left of them, however this ends. As root; needs slurm-wlm, munge, libslurm-dev, gcc, cron and parallel of Debian, and
a cgroup v2 hierarchy whose groups can be made."""

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
import types

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from harness import run_scenes, wait_until

# A copy, since the working directory may be below /tmp, which the jobs have for themselves.
DEPLOY = pathlib.Path("/usr/share/jobmeter/deploy")
LEDGER = "http://127.0.0.1:7770"
HOST = "node"
# Not 127.0.0.1: where no other address is, Slurm finds none to listen on (AI_ADDRCONFIG).
ADDRESS = "10.77.77.77"
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
CONF = f"""\
ClusterName=test
SlurmctldHost={HOST}({ADDRESS})
SlurmUser=root
AuthInfo=cred_expire=5
StateSaveLocation=/var/lib/slurm-state
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=2
Prolog=/etc/slurm/prolog
Epilog=/etc/slurm/epilog
NodeName={HOST} NodeAddr={ADDRESS} CPUs=8
PartitionName=all Nodes=ALL Default=YES
"""


def call(*line, user=None, check=True, **environment):
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **environment}
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
    done = subprocess.run([*become, *map(str, line)], env=env, cwd="/tmp", capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
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


def over(number):
    """What Slurm says of the job, when no task or epilog of it runs any more."""
    running = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
    return wait_until(40, f"job {number} ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout and (now := shown(number))["JobState"] not in running and now)


def left_over(user):
    return call("ps", "-u", user, "-o", "stat=,args=", check=False).stdout.replace("Z ", "").strip()


def a_script_of_any_language_is_metered_exactly():
    """Against what the kernel says that this process's children burned: the truth is told by rusage, in the job."""
    number = batch("#!/usr/bin/python3 -u\nimport sys, time, os\nassert '-u' in sys.orig_argv\n"
                   "if os.fork() == 0:\n    os.setsid()\n    while time.process_time() < 0.5: pass\n    os._exit(0)\n"
                   "os.wait()\nwhile time.process_time() < 0.5: pass\nprint(sum(os.times()[:4]))\n")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    (attempt,) = found["attempts"]
    truth = float(said(number).split()[0])
    assert (found["user"], found["name"], tasks(found)) == ("ann", "ann.batch", ["0"]), found
    assert attempt["receipt"]["cpu"]["source"] == "cgroup2" and 0.99 * truth - 0.01 <= cpu(attempt) <= 1.03 * truth + 0.03, (truth, attempt)
    assert int(round(float(found["charged"]["total"]) * 1e9)) == round(cpu(attempt) * 1e6) // 4, found  # 0.00025 a second
    return f"{cpu(attempt):.3f} s of {truth:.2f} s by cgroup2, {found['charged']['total']} credits"


def plain_srun_is_metered_and_charged_to_its_user():
    number = call("srun", "sh", "-c", "burn 0.3 >&2; echo $SLURM_JOB_ID", user="bob").stdout.strip()
    found = settled(number)
    assert (found["user"], tasks(found)) == ("bob", ["0"]) and is_about(0.3, cpu(found["attempts"][0])), found
    return f"{cpu(found['attempts'][0]):.3f} s"


def steps_of_a_script_are_tasks_of_one_job():
    number = batch("#!/bin/sh\nsrun burn 0.3\n", "--ntasks=4")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    # The script itself is the fifth attempt.
    assert tasks(found) == ["0", "0", "1", "2", "3"] and is_about(1.2, sum(map(cpu, found["attempts"]))), found
    listed = [row for row in json.loads(ledger("--json", "jobs", "list", "--all"))["jobs"] if row["job"] == number]
    assert len(listed) == 1
    return f"{sum(map(cpu, found['attempts'])):.3f} s"


def an_array_is_one_job_and_what_it_submits_is_another():
    number = batch("#!/bin/sh\nburn 0.2\n[ $SLURM_ARRAY_TASK_ID != 5 ] || sbatch --parsable --output=/dev/null --wrap 'burn 0.1' > /tmp/inner\n", "--array=3-5")
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout)
    inner = pathlib.Path("/tmp/inner").read_text().strip()
    over(inner)
    found = settled(number)
    assert tasks(found) == ["3", "4", "5"] and all(is_about(0.2, cpu(attempt)) for attempt in found["attempts"]), found
    assert tasks(settled(inner)) == ["0"] and cpu(job(inner)["attempts"][0]) >= 0.1
    return f"tasks {', '.join(tasks(found))}; job {inner} apart"


def what_stands_before_a_command_still_holds():
    """Its directory, standard streams, status and signal; and with no launcher it does not run at all."""
    done = call("srun", "--chdir=/srv", "sh", "-c", "pwd; echo error >&2; exit 7", user="ann", check=False)
    assert (done.stdout, done.returncode) == ("/srv\n", 7) and "error\n" in done.stderr, done
    assert call("srun", "nowhere", user="ann", check=False).returncode == 127
    assert call("srun", "sh", "-c", "kill -9 $$", user="ann", check=False).returncode == 137
    os.rename("/usr/libexec/jobmeter/slurm-task", "/usr/libexec/jobmeter/away")
    assert call("srun", "touch", "/tmp/unmetered", user="ann", check=False).returncode != 0 and not os.path.exists("/tmp/unmetered")
    os.rename("/usr/libexec/jobmeter/away", "/usr/libexec/jobmeter/slurm-task")
    number = call("salloc", "--ntasks=1", "sh", "-c", "srun burn 0.2 >&2; echo $SLURM_JOB_ID", user="bob").stdout.strip()
    assert is_about(0.2, cpu(settled(number)["attempts"][0]))


def the_submitters_environment_decides_nothing():
    number = batch("#!/bin/sh\nburn 0.2\n", JOBMETER_USER="bob", JOBMETER_LEDGER="/tmp/own.db", JOBMETER_ATTEMPT="7", JOBMETER_COMMAND="true")
    over(number)
    assert settled(number)["user"] == "ann" and cpu(job(number)["attempts"][0]) >= 0.2
    assert not os.path.exists("/tmp/own.db")


def exhausted_credits_are_failed_with_75():
    processors = os.cpu_count()
    limit = 0.001 * processors
    ledger("--user", "poor", "account", "limit", f"{limit:.3f}")
    number = batch(f"#!/bin/sh\nfor n in $(seq {processors}); do setsid burn 600 & done; wait\n", user="poor")
    now = over(number)
    charged = float(settled(number)["charged"]["total"])
    assert (now["JobState"], now["ExitCode"]) == ("FAILED", "75:0"), now
    assert 0.8 * limit < charged <= limit and not left_over("poor"), (charged, left_over("poor"))
    again = batch("#!/bin/sh\ntouch /tmp/ran\n", user="poor")
    assert over(again)["ExitCode"] == "75:0" and not os.path.exists("/tmp/ran")
    return f"{charged:.6f} of {limit} credits, the next job is refused"


def cancelled(script, state="CANCELLED"):
    """A job that is cancelled in the middle: what it had burned by then, and the books."""
    file = pathlib.Path("/tmp/burned")
    file.unlink(missing_ok=True)
    number = batch(script)
    wait_until(20, "it burns", lambda: file.exists() and float(file.read_text() or 0) > 1)
    call("scancel", number)
    assert over(number)["JobState"] == state
    assert not left_over("ann"), left_over("ann")
    found = settled(number)
    truth, charged = float(file.read_text()), cpu(found["attempts"][0])
    assert truth <= charged < truth + 0.15, (truth, found)
    reason = found["attempts"][0]["reason"]
    return f"{charged:.3f} s charged, {truth:.3f} s burned, {reason}", reason


def a_cancelled_job_is_charged_to_its_end():
    return cancelled("#!/bin/sh\nburn 600 /tmp/burned\n")[0]


def a_job_that_slurm_has_to_kill_is_charged_to_its_end():
    """Along with jobmeter; the epilog settles."""
    return cancelled("#!/bin/sh\ntrap '' TERM\nburn 600 /tmp/burned\n")[0]


def a_requeued_job_is_a_second_attempt():
    again = pathlib.Path("/tmp/again")
    number = batch("#!/bin/sh\n[ -e /tmp/again ] || burn 600 /tmp/again\nburn 0.2\n", "--requeue")
    wait_until(20, "it has burned a second", lambda: again.exists() and float(again.read_text() or 0) > 1)
    call("scontrol", "requeue", number, user="ann")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    seconds = sorted(map(cpu, found["attempts"]))
    assert tasks(found) == ["0", "0"] and is_about(0.2, seconds[0]) and seconds[1] > 0.8, found
    return "{:.3f} s and {:.3f} s".format(*seconds)


def a_sweep_of_gnu_parallel_is_one_job():
    config = {"JOBMETER_LEDGER": LEDGER, "JOBMETER_KEY": "/etc/jobmeter/keys/bob", "JOBMETER_SPOOL": "/tmp/bob-spool", "SWEEP": "sweep", "JOBS": "2"}
    shutil.copy("/usr/bin/burn", "/tmp/train.py")
    call(DEPLOY / "schedulers/parallel.sh", "0.1", "0.2", "0.3", "0.4", user="bob", **config)
    found = settled("sweep")
    assert found["user"] == "bob" and tasks(found) == ["1", "2", "3", "4"] and is_about(1.0, sum(map(cpu, found["attempts"]))), found
    statuses = [line.split("\t")[6] for line in open("/tmp/sweep.joblog").read().splitlines()[1:]]
    assert statuses == ["0"] * 4, statuses
    poor = dict(config, JOBMETER_KEY="/etc/jobmeter/keys/poor", JOBMETER_SPOOL="/tmp/poor-spool", SWEEP="poor-sweep", JOBS="1")
    assert call(DEPLOY / "schedulers/parallel.sh", "0.1", "0.2", user="poor", check=False, **poor).returncode == 75
    statuses = [line.split("\t")[6] for line in open("/tmp/poor-sweep.joblog").read().splitlines()[1:]]
    assert statuses == ["75"], statuses
    return f"{sum(map(cpu, found['attempts'])):.3f} s; with no credits the first run's 75 ends it"


def airflows_operator_runs_it():
    """The command that the DAG gives to BashOperator, rendered, started as BashOperator starts it."""
    given = {}
    operators, sdk = types.ModuleType("bash"), types.ModuleType("sdk")
    operators.BashOperator = lambda **parts: given.update(parts)
    sdk.DAG = lambda *_, **parts: __import__("contextlib").nullcontext()
    sys.modules |= {"airflow.providers.standard.operators.bash": operators, "airflow.sdk": sdk}
    exec((DEPLOY / "schedulers/airflow_dag.py").read_text())
    command = given["bash_command"]
    for template, value in {"task.owner": "ann", "dag.dag_id": "train", "run_id": "manual__2026-11-26T00:00:00+00:00", "ti.task_id": given["task_id"]}.items():
        command = command.replace("{{ " + template + " }}", value)
    call("bash", "-c", command, JOBMETER_LEDGER=LEDGER, JOBMETER_KEY="/etc/jobmeter/node-key", JOBMETER_SPOOL="/tmp/worker-spool")
    found = settled("train.manual__2026-11-26T00:00:00+00:00")
    assert (found["user"], tasks(found)) == ("ann", ["fit"]) and cpu(found["attempts"][0]) >= 0.2, found


def cron_starts_a_job():
    """cron itself, by the file that ships; it looks at the start of each minute."""
    found = wait_until(75, "cron has started a job", lambda: next((row for row in json.loads(ledger("--json", "jobs", "list", "--all", "--count", "100"))["jobs"] if row["name"] == "minutely" and row["state"] == "ended"), None))
    assert found["user"] == "ann" and is_about(0.2, cpu(found["attempts"][0])), found
    (attempt,) = job(found["job"])["attempts"]
    assert attempt["receipt"]["outcome"]["tamper"] == "none", attempt
    return f"{cpu(attempt):.3f} s by {attempt['receipt']['cpu']['source']}"


def the_books_are_right():
    told = ledger("ledger", "verify").strip()
    assert told.endswith("the books are right"), told
    return told


# cron's is last, since the others fill the time until its minute begins.
SCENES = (a_script_of_any_language_is_metered_exactly, plain_srun_is_metered_and_charged_to_its_user, steps_of_a_script_are_tasks_of_one_job,
          an_array_is_one_job_and_what_it_submits_is_another, what_stands_before_a_command_still_holds, the_submitters_environment_decides_nothing, exhausted_credits_are_failed_with_75,
          a_cancelled_job_is_charged_to_its_end, a_job_that_slurm_has_to_kill_is_charged_to_its_end, a_requeued_job_is_a_second_attempt,
          a_sweep_of_gnu_parallel_is_one_job, airflows_operator_runs_it, cron_starts_a_job, the_books_are_right)


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
    shutil.copytree(HERE.parent.parent.parent / "deploy", DEPLOY)
    for place, mode in (("/run", "755"), ("/tmp", "1777"), ("/srv", "755"), ("/var/spool", "755")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode}", "own", place], check=True)
    socket.sethostname(HOST)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"{ADDRESS} {HOST}\n")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
        fcntl.ioctl(any_socket, 0x8916, struct.pack("16s16s", b"lo:1", address))  # SIOCSIFADDR
    for user in ("ann", "bob", "poor"):
        call("useradd", "--no-create-home", "--home-dir", "/tmp", "--user-group", user)
    for path in ("/usr/bin/burn", "/srv/train.py"):
        pathlib.Path(path).write_text(BURN if path.endswith("burn") else BURN.replace("sys.argv[1:]", "['0.2']"))
        os.chmod(path, 0o755)

    slurm = DEPLOY / "slurm"
    for path in ("/etc/slurm", "/etc/jobmeter/keys", "/usr/libexec/jobmeter", "/var/spool/slurmd", "/var/lib/slurm-state"):
        os.makedirs(path, exist_ok=True)
    shutil.copy(slurm / "slurm-task", "/usr/libexec/jobmeter/slurm-task")
    for name in ("prolog", "epilog"):
        shutil.copy(slurm / name, f"/etc/slurm/{name}")
    call("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-o", "/usr/libexec/jobmeter/jobmeter_spank.so", slurm / "jobmeter_spank.c")
    pathlib.Path("/etc/slurm/slurm.conf").write_text(CONF)
    pathlib.Path("/etc/slurm/plugstack.conf").write_text("required /usr/libexec/jobmeter/jobmeter_spank.so\n")
    pathlib.Path("/etc/jobmeter/config.toml").write_text(f'ledger = "{LEDGER}"\n[run]\nquiet = true\n')

    # cron: this file, and nothing of the machine's own.
    for path in ("/etc/cron.d", "/etc/cron.hourly"):
        shutil.rmtree(path, ignore_errors=True)
    pathlib.Path("/etc/crontab").unlink(missing_ok=True)
    os.makedirs("/etc/cron.d")
    os.makedirs("/var/spool/cron/crontabs")
    shutil.copy(DEPLOY / "schedulers/crontab", "/etc/cron.d/training")
    os.chmod("/etc/cron.d/training", 0o644)


def start():
    def daemon(*line):
        with open(f"/var/log/{line[0]}.test.log", "w") as log:
            return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    daemon("jobmeter", "serve", "--db", "/var/lib/ledger.db", "--admin-key-file", "/etc/jobmeter/admin-key")
    wait_until(20, "the ledger answers", lambda: os.path.exists("/etc/jobmeter/admin-key") and call("jobmeter", "status", check=False, JOBMETER_LEDGER=LEDGER, JOBMETER_KEY="/etc/jobmeter/admin-key").returncode == 0)
    for user in ("ann", "bob", "poor"):
        key = f"/etc/jobmeter/keys/{user}"
        ledger("--user", user, "key", "create", user, "--only-user", "--to", key)
        shutil.chown(key, user)
    ledger("key", "create", "node", "--to", "/etc/jobmeter/node-key")
    daemon("cron", "-f")

    os.makedirs("/run/munge")
    pathlib.Path("/etc/munge/munge.key").write_bytes(os.urandom(128))
    shutil.rmtree("/var/log/munge", ignore_errors=True)
    shutil.rmtree("/var/lib/munge", ignore_errors=True)
    for path in ("/run/munge", "/etc/munge", "/etc/munge/munge.key"):
        shutil.chown(path, "root", "root")
    daemon("munged", "--foreground", "--log-file=/run/munge/log", "--seed-file=/run/munge/seed")
    wait_until(20, "munge answers", lambda: os.path.exists("/run/munge/munge.socket.2"))
    daemon("slurmctld", "-D")
    daemon("slurmd", "-D")
    wait_until(30, "the node is idle", lambda: "idle" in call("sinfo", "-h", "-o", "%T", check=False).stdout)


def inside(changes, binary):
    install(changes, binary)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    for name in [name for name in os.environ if name.startswith(("JOBMETER", "SLURM"))]:
        del os.environ[name]
    try:
        start()
    except BaseException:
        print_logs()
        raise
    return run_scenes("spank", SCENES, print_logs=print_logs)


def print_logs():
    for log in sorted(pathlib.Path("/var/log").glob("*.test.log")):
        print(f"== the end of {log.name}\n{log.read_text()[-1500:]}", file=sys.stderr)


def outside(binary):
    mount = next((line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2"), None)
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
        # bash is the first process of the namespace, which has to reap what others leave; with it everything in there ends.
        return subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", 'echo 0 > "$1/cgroup.procs"; shift; "$@" & wait $!', "bash", group, sys.executable, HERE, "--inside", changes, binary],
            check=False).returncode
    finally:
        changes.rmdir()
        wait_until(10, "the group is empty", lambda: "populated 0" in (group / "cgroup.events").read_text())
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3]))
    sys.exit(outside(pathlib.Path(sys.argv[1]).resolve()))
