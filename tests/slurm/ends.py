"""How jobs end when what runs them does: functions as those of behaviour.py."""

import os
import pathlib
import signal
import subprocess

import bed
from bed import HOST, batch, become, call, left_over, node_state, over, said, start_slurmd, state_of
from harness import wait_until

AS_ANN = become("ann")
# A step within a script: it says that it runs, and ends when it is told.
WAITS = "#!/bin/sh\nsrun --overlap sh -c 'touch /tmp/on; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3'\necho step $?\nexit 4\n"
GOES_ON = ["sh", "-c", "touch /tmp/on; while [ ! -e /tmp/go ]; do sleep 0.05; done"]


def clear(*paths):
    for path in paths:
        pathlib.Path(path).unlink(missing_ok=True)


def running(*options):
    clear("/tmp/on", "/tmp/go")
    number = batch(WAITS, *options)
    wait_until(20, "its step runs", lambda: os.path.exists("/tmp/on"))
    return number


def nothing_of_it_is_left():
    wait_until(30, "its processes end", lambda: not left_over("ann"))


def kill_slurmd():
    bed.started["slurmd"].kill()
    bed.started["slurmd"].wait()


def what_a_restart_of_slurmd_does():
    """Nothing, to what runs: its steps and script end as they would, before slurmd is back and after."""
    found = []
    for ends_meanwhile in (False, True):
        number = running()
        kill_slurmd()
        if ends_meanwhile:
            pathlib.Path("/tmp/go").touch()
            wait_until(20, "the step has ended", lambda: "step" in said(number))
        start_slurmd()
        before = state_of(number)
        pathlib.Path("/tmp/go").touch()
        now = over(number)
        nothing_of_it_is_left()
        found.append((before if not ends_meanwhile else None, now["JobState"], now["ExitCode"], said(number)))
    return found


def what_a_lost_node_does():
    """slurmd has gone, and the node is down: its job is lost. When slurmd is back, it ends what runs still."""
    number = running("--no-requeue")
    kill_slurmd()
    call("scontrol", "update", f"nodename={HOST}", "state=down", "reason=a test")
    wait_until(20, "the job is lost", lambda: state_of(number) != "RUNNING")
    left_meanwhile = bool(left_over("ann"))
    start_slurmd()
    call("scontrol", "update", f"nodename={HOST}", "state=resume")
    wait_until(30, "the node is back", lambda: node_state() == "idle")
    now = over(number)
    nothing_of_it_is_left()
    return left_meanwhile, now["JobState"], now["ExitCode"], "step 3" in said(number)


def lose_slurmstepd(step):
    find = ("pgrep", "-f", rf"^slurmstepd: \[{step}\]")
    os.kill(int(call(*find).stdout.split()[0]), signal.SIGKILL)
    wait_until(10, "it has gone", lambda: not call(*find, check=False).stdout)


def what_a_lost_slurmstepd_does_to_a_step():
    """srun waits on, until somebody cancels it; what the step had started is nobody's to Slurm, and goes on."""
    clear("/tmp/on", "/tmp/go")
    step = subprocess.Popen([*AS_ANN, "srun", "--job-name=lost", *GOES_ON], cwd="/tmp", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(20, "it runs", lambda: os.path.exists("/tmp/on"))
    number = call("squeue", "-h", "-n", "lost", "-o", "%i").stdout.strip()
    lose_slurmstepd(f"{number}.0")
    call("scancel", number, user="ann")
    status = step.wait(60)
    now = over(number)
    goes_on = "sleep" in left_over("ann")
    pathlib.Path("/tmp/go").touch()
    nothing_of_it_is_left()
    return status, now["JobState"], now["ExitCode"], goes_on


def what_a_lost_slurmstepd_does_to_a_script():
    """Its job runs on, until slurmd registers again or somebody cancels it."""
    clear("/tmp/on", "/tmp/go")
    number = batch(f"#!/bin/sh\n{GOES_ON[-1]}\n", "--no-requeue")
    wait_until(20, "it runs", lambda: os.path.exists("/tmp/on"))
    lose_slurmstepd(f"{number}.batch")
    before = state_of(number)
    call("scancel", number, user="ann")
    now = over(number)
    goes_on = "sleep" in left_over("ann")
    pathlib.Path("/tmp/go").touch()
    nothing_of_it_is_left()
    return before, now["JobState"], now["ExitCode"], goes_on


def what_the_time_limit_does():
    """By SIGTERM, KillWait and SIGKILL: to one that listens, one that does not, and a step. Side by side, since the least is a minute."""
    clear("/tmp/on", "/tmp/go")
    listens, does_not, step = "trap 'echo asked; exit 4' TERM", "trap '' TERM", "exec srun sleep 300"
    numbers = [batch(f"#!/bin/sh\n{first}\nwhile :; do sleep 0.05; done\n", "--time=1") for first in (listens, does_not, step)]
    return numbers


def how_they_ended(numbers):
    found = []
    for number in numbers:
        wait_until(60, f"the time of job {number} is up", lambda number=number: state_of(number) not in ("PENDING", "RUNNING"))
        now = over(number)
        found.append((now["JobState"], now["ExitCode"], "asked" in said(number)))
    nothing_of_it_is_left()
    return found


ENDS = (what_a_restart_of_slurmd_does, what_a_lost_node_does, what_a_lost_slurmstepd_does_to_a_step, what_a_lost_slurmstepd_does_to_a_script)
