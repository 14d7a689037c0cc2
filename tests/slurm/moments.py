"""What is ended, killed or stopped at any moment of its start."""

import contextlib
import os
import pathlib
import random
import re
import subprocess

from attacking import BECOME_ANN, PROGRESS, burned_by_those, is_charged
from bed import batch, call, cpu, job, left_over, meters, mount_of_cgroup2, settled
from metering import newest
from harness import let_pass, wait_until


def left_groups():
    """Of jobs, below this machine's own group."""
    own = next(line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    top = mount_of_cgroup2() + own
    return [folder for folder, _, _ in os.walk(top) if re.fullmatch(r"jobmeter-[0-9a-f-]{36}", os.path.basename(folder))]


def end_at_each_moment(end):
    """A hundred starts, each ended after another delay: charged once, or not at all, and nothing is left."""
    random.seed(22)
    for turn in range(int(os.environ.get("ATTACK_TURNS", "100"))):
        path = pathlib.Path(f"{PROGRESS}.{turn}")
        path.unlink(missing_ok=True)
        end(path, random.uniform(0, 0.3))
        wait_until(60, "it has ended", lambda: not call("squeue", "-h", "-u", "ann", check=False).stdout)
        burned = burned_by_those(path) if path.exists() else 0
        wait_until(20, "no meter is left", lambda: not meters())
        number = newest("moment")
        found = settled(number) if job(number) else {"attempts": []}
        assert len(found["attempts"]) <= 1, found
        is_charged(burned, sum(cpu(attempt) for attempt in found["attempts"]))
        assert not left_groups() and not left_over("ann"), (turn, left_groups(), left_over("ann"))


def started(path):
    return subprocess.Popen([*BECOME_ANN, "srun", "--job-name=moment", "burn", "600", path], cwd="/tmp", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cancel_at_each_moment():
    def end(path, delay):
        number = batch(f"#!/bin/sh\nexec burn 600 {path}\n", "--job-name=moment")
        # Slurm may start it a second later.
        wait_until(20, "it starts", lambda: call("pgrep", "-f", "^slurmstepd", check=False).stdout, pause=0.001)
        let_pass(delay / 3)
        call("scancel", *random.choice(([], ["--signal=KILL"], ["--full", "--signal=KILL"], ["--batch", "--signal=KILL"])), number, user="ann")
        let_pass(0.05)
        call("scancel", number, user="ann", check=False)
    end_at_each_moment(end)


def kill_srun_at_each_moment():
    def end(path, delay):
        step = started(path)
        let_pass(delay)
        step.kill()
        step.wait()
        call("scancel", "--user=ann", user="ann", check=False)
    end_at_each_moment(end)


def signal_fronts_while_they_start():
    """From another job of hers, as fast as it can: killed, or stopped and continued. What runs is metered."""
    code = "import enemy, os, signal, sys, contextlib\nnumber = getattr(signal, sys.argv[1])\nwhile True:\n    for pid in enemy.fronts():\n        with contextlib.suppress(OSError):\n            if os.getpgid(pid) != os.getpgid(0) and os.getsid(pid) != os.getsid(0): os.kill(pid, number)\n"
    told = []
    for number in ("SIGKILL", "SIGSTOP"):
        other = subprocess.Popen([*BECOME_ANN, "srun", "--job-name=shooter", "setsid", "python3", "-c", code, number], cwd="/tmp", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for turn in range(10):
            path = pathlib.Path(f"{PROGRESS}.shot{turn}")
            path.unlink(missing_ok=True)
            step = started(path)
            with contextlib.suppress(subprocess.TimeoutExpired):
                step.wait(0.5)
            call("scancel", "--name=moment", user="ann", check=False)
            wait_until(60, "it has ended", lambda: not call("squeue", "-h", "-n", "moment", check=False).stdout)
            found = settled(newest("moment")) if job(newest("moment")) else {"attempts": []}
            told.append(is_charged(burned_by_those(path) if path.exists() else 0, sum(cpu(attempt) for attempt in found["attempts"])))
        call("scancel", "--user=ann", "--signal=KILL", user="ann", check=False)
        call("scancel", "--user=ann", user="ann", check=False)
        other.wait(60)
    return told[-1]
