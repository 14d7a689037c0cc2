"""What Slurm does with jobs, as its users see it. Each function runs some and returns what can be compared: the same without jobmeter's
plugin and with it."""

import os
import pathlib
import pty
import re
import subprocess

from bed import batch, become, call, over, said, shown, state_of
from harness import let_pass, wait_until

# Two processes of a task, a parent and its child, and one more in a session of its own: each counts what it gets. It says when all three are
# ready, and ends of SIGUSR2 to the parent, or after a minute.
COUNTER = r"""
import os, select, signal, sys, time
where = sys.argv[1]
def count(name):
    got = {}
    def take(number, frame):
        got[number] = got.get(number, 0) + 1
        with open(f"{where}.{name}.part", "w") as file: file.write(" ".join(f"{k}:{v}" for k, v in sorted(got.items())))
        os.rename(f"{where}.{name}.part", f"{where}.{name}")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGRTMIN + 3, signal.SIGCONT): signal.signal(number, take)
    open(f"{where}.{name}.ready", "w")
def rest():
    end = time.monotonic() + 60
    while time.monotonic() < end and not os.path.exists(f"{where}.end"): select.select((), (), (), 0.02)
count("parent")
if os.fork() == 0: count("child"); rest(); os._exit(0)
if os.fork() == 0: os.setsid(); count("apart"); rest(); os._exit(0)
rest()
os.wait(); os.wait()
"""


def statuses_of_srun():
    """The exit status of srun for what a task can do."""
    pathlib.Path("/tmp/plain").write_text("not executable")
    commands = (["true"], ["sh", "-c", "exit 7"], ["sh", "-c", "kill -9 $$"], ["sh", "-c", "kill -SEGV $$"], ["sh", "-c", "kill -USR1 $$"], ["nowhere"], ["/tmp/plain"],
                ["sh", "-c", "sleep 0.1 & exit 3"])
    return [call("srun", *command, user="ann", check=False).returncode for command in commands]


def what_srun_prints():
    """Streams, labels, standard input, the order of a task's own lines."""
    plain = call("srun", "sh", "-c", "pwd; echo error >&2; echo last", "--chdir=/srv", user="ann", check=False)
    labelled = call("srun", "-n3", "--label", "sh", "-c", "echo $SLURM_PROCID of $SLURM_NTASKS", user="ann")
    fed = subprocess.run([*become("ann"), "srun", "cat"], input="fed\n" * 1000, capture_output=True, text=True, cwd="/tmp", timeout=60)
    return plain.stdout, "error" in plain.stderr, sorted(labelled.stdout.splitlines()), fed.stdout == "fed\n" * 1000, fed.returncode


def what_a_task_inherits():
    """Its environment, limits, masks, session, descriptors and place, but for what names a job or a process."""
    script = r"""
import os, re, resource, sys
own = open("/proc/self/status").read()
of_status = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in own.splitlines() if line.startswith(("SigBlk", "SigIgn", "Uid", "Gid", "Groups", "CapEff", "CapInh", "NoNewPrivs", "Seccomp", "Cpus_allowed_list"))}
limits = [line.split()[:5] for line in open("/proc/self/limits")]
files = sorted(os.listdir("/proc/self/fd"))[:-1]
place = os.getcwd(), os.umask(0), os.nice(0), os.getpgid(0) == os.getsid(0), open("/proc/self/oom_score_adj").read().strip(), os.path.exists("/dev/tty") and os.isatty(0)
numbers = re.compile(r"JOBID|JOB_ID|STEPID|STEP_ID|TASK_PID|STEPMGR|_PORT|COMM_PORT|START_TIME|END_TIME|LAUNCH_NODE|SRUN_COMM|JOB_START|JOB_END|SLURM_CONF|TMPDIR|PWD")
environment = sorted(f"{key}={value}" for key, value in os.environ.items() if not key.startswith("JOBMETER_") and not numbers.search(key))
print(of_status, limits, files, place, environment)
"""
    path = pathlib.Path("/tmp/inherits.py")
    path.write_text(script)
    from_srun = call("srun", "python3", path, user="ann").stdout
    number = batch(f"#!/bin/sh\nexec python3 {path}\n", "--job-name=inherits")
    over(number)
    return from_srun, said(number)


def states_of_batch_jobs():
    """The state and exit code that Slurm keeps."""
    found = []
    for script in ("exit 0", "exit 3", "kill -9 $$", "kill -TERM $$", "srun sh -c 'exit 9'", "srun -n2 sh -c 'exit $SLURM_PROCID'", "nowhere", "sleep 100 & exit 0"):
        now = over(batch(f"#!/bin/sh\n{script}\n", "-n2"))
        found.append((script, now["JobState"], now["ExitCode"], now["Reason"]))
    return found


def start_counter(name, *options):
    path = pathlib.Path("/tmp/counter.py")
    path.write_text(COUNTER)
    for stale in pathlib.Path("/tmp").glob(f"{name}.*"):
        stale.unlink()
    number = batch(f"#!/bin/sh\nexec python3 {path} /tmp/{name}\n", *options)
    wait_until(20, "all three are ready", lambda: all(os.path.exists(f"/tmp/{name}.{who}.ready") for who in ("parent", "child", "apart")))
    return number


def counted(name):
    def read(who):
        path = pathlib.Path(f"/tmp/{name}.{who}")
        return path.read_text() if path.exists() else ""
    return {who: read(who) for who in ("parent", "child", "apart")}


def steady(name):
    """What was counted, once it has not changed for half a second."""
    last = [None, 0]

    def is_steady():
        now = counted(name)
        last[:] = [now, last[1] + 1 if now == last[0] else 0]
        return last[1] >= 10
    wait_until(20, "what is counted stays the same", is_steady)
    return last[0]


def what_scancel_signals():
    """How often each process of a job gets a signal that is sent to the batch shell, to the job's steps, to all of it."""
    found = []
    for options in (["--batch", "--signal=USR1"], ["--full", "--signal=USR1"], ["--full", "--signal=HUP"], ["--batch", "--signal=ALRM"]):
        number = start_counter("signals")
        call("scancel", *options, number, user="ann")
        found.append((options, steady("signals")))
        call("scancel", "--full", "--signal=TERM", number, user="ann")
        found.append(("then TERM to all", steady("signals")))
        pathlib.Path("/tmp/signals.end").touch()
        found.append(over(number)["JobState"])
    return found


def what_scancel_signals_in_a_step():
    found = []
    path = pathlib.Path("/tmp/counter.py")
    for sent in ("USR1", "HUP"):
        for stale in pathlib.Path("/tmp").glob("step.*"):
            stale.unlink()
        path.write_text(COUNTER)
        step = subprocess.Popen([*become("ann"), "srun", "--job-name=counter", "python3", path, "/tmp/step"], cwd="/tmp", stdin=subprocess.DEVNULL)
        wait_until(20, "all three are ready", lambda: all(os.path.exists(f"/tmp/step.{who}.ready") for who in ("parent", "child", "apart")))
        number = call("squeue", "-h", "-n", "counter", "-o", "%i").stdout.strip()
        call("scancel", f"--signal={sent}", f"{number}.0", user="ann")
        found.append((sent, steady("step")))
        pathlib.Path("/tmp/step.end").touch()
        found.append(step.wait(20))
        over(number)
    return found


def how_a_job_is_cancelled():
    """By SIGTERM, KillWait and SIGKILL: what a job that waits for it can still say, and what becomes of one that does not listen."""
    found = []
    for trap, ends in (("trap 'echo asked; exit 4' TERM", True), ("trap '' TERM", False)):
        number = batch(f"#!/bin/sh\n{trap}\necho ready\nwhile :; do :; done\n")
        wait_until(20, "it runs", lambda: "ready" in (said(number) if os.path.exists(f"/tmp/{number}.out") else ""))
        call("scancel", number, user="ann")
        now = over(number)
        found.append((trap, now["JobState"], now["ExitCode"], [line for line in said(number).splitlines() if "slurmstepd" not in line] if ends else ""))
    return found


def what_a_suspension_does():
    """The state, whether it stands still, and that it goes on and ends as if nothing had been."""
    name = "suspended"
    progress = pathlib.Path("/tmp/progress")
    progress.unlink(missing_ok=True)
    number = batch("#!/bin/sh\nburn 4 /tmp/progress\n", f"--job-name={name}")
    wait_until(20, "it burns", lambda: progress.exists() and float(progress.read_text() or 0) > 0.5)
    call("scontrol", "suspend", number)
    wait_until(20, "it is suspended", lambda: state_of(number) == "SUSPENDED")
    wait_until(20, "it stands still", lambda: stands_still(progress))
    before = float(progress.read_text())
    let_pass(2)
    moved = float(progress.read_text()) - before
    call("scontrol", "resume", number)
    now = over(number)
    return round(moved, 1), now["JobState"], now["ExitCode"]


def stands_still(progress):
    before = progress.read_text()
    let_pass(0.3)
    return progress.read_text() == before


def what_a_terminal_shows():
    """srun --pty: the task has a terminal, its size, and its end is the terminal's."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir("/tmp")
        os.execvp("setpriv", [*become("ann"), "srun", "--pty", "sh", "-c", "test -t 0 && test -t 1 && echo terminal; stty size; trap 'echo int; exit 5' INT; echo now; sleep 20 & wait"])
    shows, sent = b"", False
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        shows += part
        if b"now" in shows and not sent:
            sent = True
            os.write(master, b"\x03")
    _, status = os.waitpid(pid, 0)
    # What srun says itself comes whenever it comes.
    lines = [line for line in re.sub(rb"[\r^C]", b"", shows).decode().splitlines() if not line.startswith("srun:")]
    return lines, os.waitstatus_to_exitcode(status)


def what_else_starts_tasks():
    """salloc, several programs in one step, a step beside another, an array, a job that depends on another."""
    allocated = call("salloc", "-n2", "sh", "-c", "srun sh -c 'echo $SLURM_PROCID' | sort", user="ann").stdout
    pathlib.Path("/tmp/programs").write_text("0 sh -c 'echo zero; exit 1'\n1 echo one\n")
    many = call("srun", "-n2", "--multi-prog", "/tmp/programs", user="ann", check=False)
    beside = batch("#!/bin/sh\nsrun --overlap sh -c 'echo one; exit 1' & first=$!\nsrun --overlap echo two; wait $first; echo $?\n")
    array = batch("#!/bin/sh\nexit $SLURM_ARRAY_TASK_ID\n", "--array=0-2")
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", array, check=False).stdout)
    states = sorted(f"{found['JobState']} {found['ExitCode']}" for found in (shown(f"{array}_{task}") for task in range(3)))
    later = batch("#!/bin/sh\necho later\n", f"--dependency=afterany:{beside}")
    over(later)
    return allocated, sorted(many.stdout.splitlines()), many.returncode, over(beside)["ExitCode"], sorted(said(beside).split()), states, said(later)


def how_a_job_is_requeued():
    pathlib.Path("/tmp/again").unlink(missing_ok=True)
    number = batch("#!/bin/sh\n[ -e /tmp/again ] && { echo second; exit 0; }\ntouch /tmp/again\nsleep 60\n", "--requeue")
    wait_until(20, "it runs", lambda: os.path.exists("/tmp/again"))
    call("scontrol", "requeue", number)
    now = over(number)
    return now["JobState"], now["ExitCode"], now["Restarts"], "second" in said(number)


BEHAVIOURS = (statuses_of_srun, what_srun_prints, what_a_task_inherits, states_of_batch_jobs, what_scancel_signals, what_scancel_signals_in_a_step, how_a_job_is_cancelled,
              what_a_suspension_does, what_a_terminal_shows, what_else_starts_tasks, how_a_job_is_requeued)
