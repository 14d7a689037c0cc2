#!/usr/bin/env python3
"""Slurm gives devices to jobs by --gres, in each of its ways, and each device is charged once: tests/slurm/gpus.py JOBMETER. As root; needs
what spank.py needs. Devices and driver are the scripted ones (JOBMETER_FAKE_NVML), Slurm is real."""

import collections
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from bed import batch, call, ledger, main, over, print_logs, said, settled, start_slurm
from harness import run_scenes, wait_until
from trackers import PLUGSTACK, the_books_are_right

DEVICES = 4
LIBRARY = "/usr/lib/libnvidia-ml.so.1"
SCRIPT = pathlib.Path("/run/fake-nvml.json")
# Of each device.
PERCENT = (20, 40, 60, 80)
# How long a job holds its devices, in seconds.
SLEEP = 3


def make_devices():
    """A /dev of its own, in which other devices have their names."""
    for folder in ("pts", "shm"):
        os.makedirs(f"/run/dev/{folder}")
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx"):
        subprocess.run(["cp", "-a", f"/dev/{name}", "/run/dev"], check=True)
    for name in (*(f"nvidia{minor}" for minor in range(DEVICES)), "nvidiactl"):
        os.mknod(f"/run/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        os.chmod(f"/run/dev/{name}", 0o666)
    subprocess.run(["mount", "--bind", "/run/dev", "/dev"], check=True)


def write_script():
    """A device for each number, the busier the higher that is."""
    busy = [{"uuid": f"GPU-{minor}", "counters": True, "busy": [{"percent": percent}]} for minor, percent in enumerate(PERCENT)]
    SCRIPT.write_text(json.dumps({"start_us": time.time_ns() // 1000, "devices": busy}))


def used_by(number):
    """Of each device, over all attempts of a job: how long it was held, and how long it worked."""
    found = settled(number)
    held, busy = collections.Counter(), collections.Counter()
    for attempt in found["attempts"]:
        assert attempt["reason"] == "completed", attempt
        for uuid, usage in attempt["usage"].get("gpus", {}).items():
            # On a busy machine a device may be the job's before NVML has told its name.
            name = uuid.replace("unknown-", "")
            held[name] += float(usage["allocated_seconds"])
            busy[name] += float(usage["busy_seconds"])
    return held, busy


def check(number, minors):
    """These devices were charged, each once and by what it did, and no others."""
    assert over(number)["JobState"] == "COMPLETED", said(number)
    held, busy = used_by(number)
    held = {uuid: seconds for uuid, seconds in held.items() if seconds >= 0.1}
    assert len(held) == len(minors) and all(uuid in {f"GPU-{minor}" for minor in minors} for uuid in held), (number, held)
    for uuid, seconds in held.items():
        share = PERCENT[int(uuid[-1])] / 100
        # A script holds its devices before and after its step.
        assert SLEEP <= seconds < SLEEP + 3, (number, held)
        assert abs(busy[uuid] - share * seconds) < 0.05 * seconds + 0.15, (number, uuid, busy, held)


def each_way_to_ask_is_charged_once():
    """As many tasks as there are, in a script or not, all of its devices given to each or one to each."""
    step = f"sleep {SLEEP}"
    # Both at once: the lower devices are given first.
    numbers = batch(f"#!/bin/sh\n{step}\n", "--gres=gpu:2"), batch(f"#!/bin/sh\nsrun {step}\n", "--gpus=2")
    for number, minors in zip(numbers, ((0, 1), (2, 3))):
        check(number, minors)
    for options, line in (
        (["--gres=gpu:4", "--ntasks=4"], "srun -n4 --gpus-per-task=1"),
        (["--gres=gpu:4", "--ntasks=4"], "srun -n4"),
        (["--gres=gpu:4", "--ntasks=4"], "srun -n4 --gpu-bind=single:1"),
        (["--gpus-per-task=2", "--ntasks=2"], "srun"),
        (["--gpus-per-node=4", "--ntasks=3"], "srun --gpu-bind=map_gpu:0,1,2"),
    ):
        check(batch(f"#!/bin/sh\n{line} {step}\n", *options), range(DEVICES))


def an_srun_and_an_array_are_charged_once():
    call("srun", "--job-name=alone", "--gres=gpu:1", "sleep", SLEEP, user="ann")
    (found,) = (row for row in json.loads(ledger("--json", "jobs", "list", "--all", "--count", "50"))["jobs"] if row["name"] == "alone")
    held, busy = used_by(found["job"])
    (uuid,) = held
    assert SLEEP <= held[uuid] < SLEEP + 1, held
    number = batch(f"#!/bin/sh\nsleep {SLEEP}\n", "--array=0-3", "--gres=gpu:1")
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout.strip())
    held, busy = used_by(number)
    assert len(held) == DEVICES and all(SLEEP <= seconds < SLEEP + 1 for seconds in held.values()), held


def what_a_user_says_himself_takes_nothing_away():
    """In a batch script and its steps; Slurm alone knows what is shared."""
    for variables in ({"SLURM_STEP_GPUS": ""}, {"SLURM_STEP_GPUS": "none"}, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100"}, {"SLURM_SHARDS_ON_NODE": "1"}):
        number = batch(f"#!/bin/sh\nsleep {SLEEP}\n", "--gres=gpu:1", **variables)
        check(number, (0,))
        (device,) = settled(number)["attempts"][0]["receipt"]["gpu"]["devices"]
        assert device["mode"] == "exclusive", (variables, device)


def who_asks_for_none_is_charged_for_none():
    check(batch(f"#!/bin/sh\nsrun sleep {SLEEP}\n", CUDA_VISIBLE_DEVICES="0"), ())


def tasks_that_each_say_it_are_charged_once():
    """Without the plugin, by `srun jobmeter run`: each task has a meter of its user's."""
    plugin = PLUGSTACK.read_text()
    PLUGSTACK.write_text("")
    for line in ("srun -n4 --gpus-per-task=1", "srun -n4"):
        script = f"#!/bin/sh\n{line} jobmeter run --quiet -- sleep {SLEEP}\n"
        check(batch(script, "--gres=gpu:4", "--ntasks=4", JOBMETER_KEY="/etc/jobmeter/keys/ann"), range(DEVICES))
    PLUGSTACK.write_text(plugin)


SCENES = (each_way_to_ask_is_charged_once, an_srun_and_an_array_are_charged_once, what_a_user_says_himself_takes_nothing_away, who_asks_for_none_is_charged_for_none,
          tasks_that_each_say_it_are_charged_once, the_books_are_right)


def run(helper, library):
    make_devices()
    shutil.copy(helper, "/usr/libexec/jobmeter/jobmeter-nvml")
    shutil.copy(library, LIBRARY)
    # As a runtime mounts it: this node has process ids of its own, and so looks like a container.
    subprocess.run(["mount", "--bind", LIBRARY, LIBRARY], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", LIBRARY], check=True)
    write_script()
    ledger("--user", "ann", "account", "limit", "1000")
    pathlib.Path("/etc/slurm/gres.conf").write_text(f"NodeName=node Name=gpu File=/dev/nvidia[0-{DEVICES - 1}]\n")
    start_slurm(GresTypes="gpu", NodeName=f"node NodeAddr=10.77.77.77 CPUs=8 Gres=gpu:{DEVICES}")
    return run_scenes("gpus", SCENES, print_logs=print_logs)


if __name__ == "__main__":
    main(HERE, run)
