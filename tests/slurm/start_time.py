#!/usr/bin/env python3
"""What the plugin adds to a step: tests/slurm/start_time.py JOBMETER [WAY [TURNS]]. Steps of one allocation with the plugin and without it, in
turns and in both orders; the medians of the time from srun to the command, and to srun's end. As root; needs what trackers.py needs."""

import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from bed import call, inside, outside
from trackers import PLUGSTACK, start

TURNS = 40
ADDED_MAX_S = 0.02


def step(allocation):
    begun = time.time_ns()
    said = call("srun", f"--jobid={allocation}", "--overlap", "date", "+%s%N", user="ann").stdout
    return (int(said) - begun) / 1e9, (time.time_ns() - begun) / 1e9


def run(way, turns=TURNS):
    plugin = PLUGSTACK.read_text()
    start(way)
    call("salloc", "--no-shell", "-n1", "--job-name=turns", user="ann")
    allocation = call("squeue", "-h", "-n", "turns", "-o", "%i").stdout.strip()
    times = {"": [], plugin: []}
    for turn in range(int(turns)):
        for text in ("", plugin) if turn % 2 else (plugin, ""):
            PLUGSTACK.write_text(text)
            times[text].append(step(allocation))
    # The least as well, which a busy machine does not change as much.
    found = {(figure, text): [of(column) for column in zip(*pairs)] for text, pairs in times.items() for figure, of in (("median", statistics.median), ("least", min))}
    for figure in ("median", "least"):
        for what, bare, metered in zip(("to the command", "to srun's end"), found[figure, ""], found[figure, plugin]):
            print(f"{way}: {what}: {figure} of {turns}: {bare * 1000:.1f} ms without, {metered * 1000:.1f} ms with, {(metered - bare) * 1000:+.1f} ms", flush=True)
    call("scancel", allocation)
    return int(found["median", plugin][0] - found["median", ""][0] > ADDED_MAX_S)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3], lambda: run(*sys.argv[4:])))
    binary, way, *turns = [*sys.argv[1:], *(["linuxproc"] if len(sys.argv) == 2 else [])]
    sys.exit(outside(HERE, pathlib.Path(binary).resolve(), way, *turns, namespaces=["--cgroup"] if way == "cgroup2" else []))
