#!/usr/bin/env python3
"""Under each of Slurm's ways to track processes: what Slurm does with jobs is the same with jobmeter's plugin as without, and each task is
metered once: tests/slurm/trackers.py JOBMETER WAY..., of linuxproc, pgid, cgroup1, cgroup2. As root; needs what spank.py needs."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from bed import HERE as BED, USERS, inside, ledger, node_state, outside, print_logs, start_slurm, state_of
from behaviour import BEHAVIOURS
from clusters import CLUSTERS
from ends import ENDS, how_they_ended, what_the_time_limit_does
from metering import METERING
from options import OPTIONS
from harness import run_scenes, wait_until

PLUGSTACK = pathlib.Path("/etc/slurm/plugstack.conf")
WAYS = ("linuxproc", "pgid", "cgroup1", "cgroup2")


def start(way, **others):
    """Slurm with this tracker: its settings."""
    changes = {}
    if way.startswith("cgroup"):
        changes |= {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup", "JobAcctGatherType": "jobacct_gather/cgroup" if way == "cgroup1" else "jobacct_gather/linux"}
    elif way == "pgid":
        changes |= {"ProctrackType": "proctrack/pgid"}
    if way == "cgroup2":
        # In a cgroup namespace, so that what is the top here is a group of the test's.
        for line in (["umount", "-R", "/sys/fs/cgroup"], ["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]):
            subprocess.run(line, check=True)
        pathlib.Path("/sys/fs/cgroup/system.slice").mkdir()
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", "/usr/libexec/cgroup2-alone.so", BED / "cgroup2_alone.c", "-ldl"], check=True)
    plugin = {"cgroup1": "cgroup/v1", "cgroup2": "cgroup/v2"}.get(way)
    conf = f"CgroupPlugin={plugin}\nCgroupMountpoint=/sys/fs/cgroup\nIgnoreSystemd=yes\n" if plugin else ""
    pathlib.Path("/etc/slurm/cgroup.conf").write_text(conf)
    start_slurm(**changes, **others)
    return changes


def compared(behaviour, plugin, begin=lambda: None):
    def scene():
        PLUGSTACK.write_text("")
        begin()
        bare = behaviour()
        PLUGSTACK.write_text(plugin)
        begin()
        metered = behaviour()
        assert bare == metered, f"without: {bare}\nwith: {metered}"
        return str(bare)[:200] if os.environ.get("VERBOSE") else None
    scene.__name__ = behaviour.__name__
    return scene


def limited(plugin):
    """Both at once. What runs has read its plugins."""
    def the_time_limit_ends_jobs_as_ever():
        PLUGSTACK.write_text("")
        bare = what_the_time_limit_does()
        wait_until(20, "they run", lambda: all(state_of(number) == "RUNNING" for number in bare))
        PLUGSTACK.write_text(plugin)
        metered = what_the_time_limit_does()
        without, with_it = how_they_ended(bare), how_they_ended(metered)
        assert without == with_it, f"without: {without}\nwith: {with_it}"
        return str(with_it)
    return the_time_limit_ends_jobs_as_ever


def everybody_may_spend_again():
    for user in USERS:
        ledger("--user", user, "account", "limit", "1000")


def the_node_is_well():
    assert wait_until(20, "the node is idle", lambda: node_state() == "idle")


def the_books_are_right():
    told = ledger("ledger", "verify").strip()
    assert told.endswith("the books are right"), told
    return told


def run(way, *wanted):
    plugin = PLUGSTACK.read_text()
    tracker = start(way)
    PLUGSTACK.write_text(plugin)
    scenes = [compared(behaviour, plugin) for behaviour in BEHAVIOURS]
    scenes += [*METERING, the_node_is_well]
    # What takes long: of one way in the suite, of the others by slurm-all.
    if way != "linuxproc" or wanted:
        scenes.append(everybody_may_spend_again)
        scenes += [compared(behaviour, plugin) for behaviour in (*OPTIONS, *ENDS)]
        scenes.append(limited(plugin))
        scenes += [compared(behaviour, plugin, lambda behaviour=behaviour: behaviour.begin(tracker)) for behaviour in CLUSTERS]
    always = (everybody_may_spend_again.__name__, *wanted)
    scenes = [scene for scene in scenes if not wanted or scene.__name__ in always]
    return run_scenes(way, (*scenes, the_books_are_right), print_logs=print_logs)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3], lambda: run(*sys.argv[4:])))
    binary, *ways = sys.argv[1:]
    wanted = [way for way in ways if way not in WAYS]
    chosen = [way for way in ways if way in WAYS] or WAYS
    sys.exit(max(outside(HERE, pathlib.Path(binary).resolve(), way, *wanted, namespaces=["--cgroup"] if way == "cgroup2" else []) for way in chosen))
