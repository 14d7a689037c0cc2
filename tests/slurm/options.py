"""What srun's own options do to a task, and its helpers: functions as those of behaviour.py."""

import os
import pathlib
import re
import subprocess
import time

from bed import batch, become, call, left_over, over, said, shown
from harness import wait_until

AS_ANN = become("ann")
# Of a command that is not to wait for its end.
LONG_S = 60


def timed(*line):
    """The exit status, and whether it came before the command's own end, with which nothing of it was left."""
    for stale in pathlib.Path("/tmp").glob("begun.*"):
        stale.unlink()
    begun = time.monotonic()
    done = call(*line, user="ann", check=False, limit_s=4 * LONG_S)
    wait_until(20, "its processes end", lambda: not left_over("ann"))
    # Slurm sends SIGTERM and SIGKILL so close together that either may have ended the others.
    return "killed" if done.returncode in (137, 143) else done.returncode, time.monotonic() - begun < LONG_S


def what_one_tasks_end_does_to_the_others():
    """--kill-on-bad-exit and --wait: the others are ended. Where neither says so, they go on."""
    first = lambda does, others: ("sh", "-c", f"if [ $SLURM_PROCID = 0 ]; then while [ ! -e /tmp/begun.1 ]; do sleep 0.05; done; {does}; fi; touch /tmp/begun.$SLURM_PROCID; {others}")
    return [
        timed("srun", "-n3", "--kill-on-bad-exit=1", *first("exit 3", f"sleep {LONG_S}")),
        timed("srun", "-n3", "--kill-on-bad-exit=1", *first("kill -9 $$", f"sleep {LONG_S}")),
        timed("srun", "-n3", "--kill-on-bad-exit=1", *first("exit 3", f"trap '' TERM; sleep {LONG_S} & wait; sleep {LONG_S}")),
        timed("srun", "-n2", "--wait=1", *first("exit 0", f"sleep {LONG_S}")),
        timed("srun", "-n2", "--wait=1", *first("exit 4", f"sleep {LONG_S}")),
        timed("srun", "-n2", "--kill-on-bad-exit=0", *first("exit 3", "sleep 1; exit 2")),
    ]


def where_the_streams_of_a_task_go():
    """--input, --output and --error: files of a step, of each task, of one task, and none."""
    pathlib.Path("/tmp/given").write_text("one\ntwo\n")
    for stale in pathlib.Path("/tmp").glob("stream.*"):
        stale.unlink()
    both = ("sh", "-c", "cat; echo out; echo err >&2")
    lines = (
        ["--input=/tmp/given", "--output=/tmp/stream.a", "--error=/tmp/stream.b", *both],
        ["-n2", "--input=/tmp/given", "--output=/tmp/stream.c.%t", *both],
        ["-n2", "--input=1", "--output=/tmp/stream.d.%t", *both],
        ["--input=none", "--output=none", "--error=/tmp/stream.e", *both],
        ["--output=/tmp/stream.a", "--open-mode=append", "echo", "more"],
        ["--output=/tmp/stream.f.%J-%s-%N-%u", "--unbuffered", "echo", "named"],
        ["--output=/nowhere/at/all", "true"],
    )
    statuses = [subprocess.run([*AS_ANN, "srun", *line], input="fed\n", capture_output=True, text=True, cwd="/tmp", timeout=60).returncode for line in lines]
    return statuses, sorted((re.sub(r"\d+", "N", path.name) if ".f." in path.name else path.name, path.read_text(), path.owner()) for path in pathlib.Path("/tmp").glob("stream.*"))


def what_limits_a_task_has():
    """--propagate, and what is the scheduler's alone: --nice."""
    show = "ulimit -Sn; ulimit -Ss; ulimit -Sc; ulimit -Hn; nice"
    outputs = [call("sh", "-c", f'ulimit -Sn 500; ulimit -Ss 4096; ulimit -c 0; exec srun {option} sh -c "{show}"', user="ann").stdout for option in ("", "--propagate", "--propagate=NOFILE", "--propagate=NONE", "--nice=100")]
    number = batch(f"#!/bin/sh\n{show}\n", "--nice=50", "--propagate=STACK")
    return outputs, shown(number)["Nice"], over(number)["ExitCode"], said(number)


def how_a_step_is_attached_to():
    """sattach shows what it prints, and ends as it does."""
    for path in ("/tmp/attached", "/tmp/go"):
        pathlib.Path(path).unlink(missing_ok=True)
    step = subprocess.Popen([*AS_ANN, "srun", "--job-name=attached", "sh", "-c", "while [ ! -e /tmp/go ]; do echo tick; sleep 0.05; done; echo last; exit 6"], cwd="/tmp", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    number = wait_until(20, "it has a number", lambda: call("squeue", "-h", "-n", "attached", "-t", "running", "-o", "%i").stdout.strip())
    # Until slurmstepd listens.
    wait_until(20, "it may be attached to", lambda: call("sattach", "--layout", f"{number}.0", user="ann", check=False).returncode == 0)
    with open("/tmp/attached", "w") as file:
        attached = subprocess.Popen([*AS_ANN, "sattach", f"{number}.0"], cwd="/tmp", stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    wait_until(20, "it is attached to", lambda: "tick" in pathlib.Path("/tmp/attached").read_text())
    layout = call("sattach", "--layout", f"{number}.0", user="ann")
    pathlib.Path("/tmp/go").touch()
    return attached.wait(30), step.wait(30), "last" in pathlib.Path("/tmp/attached").read_text(), "tasks" in layout.stdout + layout.stderr


def what_becomes_of_a_step_that_outlives_its_script():
    """Slurm ends it, with what it has started, and the job is what its script was."""
    found = []
    # What has left its process group is lost to this tracker; the plugin ends it all the same.
    leaves = "" if "proctrack/pgid" in call("scontrol", "show", "config").stdout else "setsid "
    for status, command in ((0, f"sleep {LONG_S}"), (5, f"sh -c \"trap 'touch /tmp/asked; exit 1' TERM; touch /tmp/on; {leaves}sleep {LONG_S} & wait\"")):
        for path in ("/tmp/on", "/tmp/asked"):
            pathlib.Path(path).unlink(missing_ok=True)
        wait = "while [ ! -e /tmp/on ]; do sleep 0.05; done" if status else "sleep 0.5"
        begun = time.monotonic()
        number = batch(f"#!/bin/sh\nsrun --overlap {command} &\n{wait}\nexit {status}\n")
        now = over(number)
        wait_until(20, "its processes end", lambda: not left_over("ann"))
        found.append((now["JobState"], now["ExitCode"], time.monotonic() - begun < LONG_S, os.path.exists("/tmp/asked")))
    return found


OPTIONS = (what_one_tasks_end_does_to_the_others, where_the_streams_of_a_task_go, what_limits_a_task_has, how_a_step_is_attached_to, what_becomes_of_a_step_that_outlives_its_script)
