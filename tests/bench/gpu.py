#!/usr/bin/env python3
"""What metering GPUs costs and how exact it is, on the scripted devices of tests/fake-nvml, whose truth is known.

    cargo build --release --bins --example fake_nvml && tests/bench/gpu.py [--seconds 60] [--rounds 5]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

TARGET = pathlib.Path(__file__).resolve().parents[2] / "target/release"
JOBMETER = str(TARGET / "jobmeter")
LIBRARY = str(TARGET / "examples/libfake_nvml.so")


def row(what, measured, reach=""):
    print(f"| {what} | {measured} | {reach} |", flush=True)


class Place:
    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-bench-"))
        self.env = dict(os.environ, JOBMETER_LEDGER=str(self.directory / "ledger.db"), JOBMETER_USER="bench")
        self.env.update(JOBMETER_SPOOL=str(self.directory / "spool"), FAKE_NVML=str(self.directory / "script.json"))
        self.call("account", "limit", "none")

    def call(self, *arguments):
        return subprocess.run([JOBMETER, *arguments], env=self.env, capture_output=True, text=True, check=True).stdout

    def script(self, devices):
        start_us = int(time.time() * 1e6) - 30_000_000
        script = {"start_us": start_us, "clock_us": start_us % 1_000_003, "devices": devices}
        (self.directory / "script.json").write_text(json.dumps(script))

    def start(self, name, options, command, library=True):
        options = ["--nvml-library", LIBRARY, *options] if library else options
        receipt = self.directory / f"{name}.json"
        line = [JOBMETER, "run", "-q", "--job", name, "--receipt", str(receipt), *options, "--", *command]
        return subprocess.Popen(line, env=self.env, stderr=subprocess.DEVNULL), receipt

    def run(self, *arguments, **more):
        child, receipt = self.start(*arguments, **more)
        return child.wait(), json.loads(receipt.read_text())


def device(name, percent, pids=(1,)):
    return {"uuid": f"GPU-{name}", "busy": [{"percent": percent, "pids": list(pids)}]}


def exact(place, seconds):
    duty = [10, 50, 90, 100]
    place.script([device(percent, percent) for percent in duty])
    _, receipt = place.run("exact", ["--gpus", "all", "--gpu-exclusive"], ["sleep", str(seconds)])
    for found in receipt["gpu"]["devices"]:
        truth = found["allocated_seconds"] * int(found["uuid"].removeprefix("GPU-")) / 100
        off = abs(found["busy_seconds"] - truth)
        reach = max(0.01 * truth, 0.34)
        row(f"busy, exclusive, {found['uuid'][4:]} % of {seconds} s", f"{off:.3f} s off ({off / truth:.2%})", f"≤ {reach:.2f} s")


def shared(place, seconds, rounds):
    each, sums = [], []
    for turn in range(rounds):
        files = [place.directory / f"{turn}-{name}.pid" for name in "ab"]
        place.script([device("shared", 100, [str(path) for path in files])])
        line = "echo $$ > $0; exec sleep $1"
        pair = [
            place.start(f"s{turn}{path.stem}", ["--gpus", "all"], ["sh", "-c", line, str(path), str(seconds)])
            for path in files
        ]
        for child, _ in pair:
            child.wait()
        busy = [json.loads(receipt.read_text())["gpu"]["busy_seconds"] for _, receipt in pair]
        each += [abs(value / (seconds / 2) - 1) for value in busy]
        sums.append(abs(sum(busy) / seconds - 1))
    row(f"two jobs on one GPU, {seconds} s, each of {2 * rounds}", f"median {statistics.median(each):.1%} off, at most {max(each):.1%}", "≤ 5 %")
    row("their sum", f"at most {max(sums):.2%} off", "≤ 1 %")


def zero(place, rounds):
    past, charged = [], []
    place.script([device("zero", 100)])
    for turn in range(rounds):
        _, receipt = place.run(f"z{turn}", ["--gpus", "all", "--gpu-exclusive", "--limit", "0.015"], ["sleep", "60"])
        credits = receipt["credits"]
        charged.append(credits["total"])
        past.append(max(0, receipt["gpu"]["allocated_seconds"] * 0.0025 - 0.015))
        assert credits["overshoot"] == 0, credits
    row("charged past a limit of 0.015 credits, GPU 91 % of the rate", f"0; stopped at {min(charged):.6f} to {max(charged):.6f}", "0")
    row("burned past it, by the script", f"at most {max(past):.6f} credits", "≤ rate × (age + 20 ms)")


def cost(place, seconds):
    place.script([device(index, 50) for index in range(8)])
    child, receipt = place.start("cost", ["--gpus", "all", "--gpu-exclusive"], ["sleep", str(seconds)])
    time.sleep(seconds / 2)
    helper = subprocess.run(["pgrep", "-nf", "jobmeter-nvml"], capture_output=True, text=True).stdout.strip()
    rollup = pathlib.Path(f"/proc/{helper}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    child.wait()
    with_gpus = json.loads(receipt.read_text())
    _, without = place.run("plain", [], ["sleep", str(seconds)], library=False)
    more = with_gpus["meter"]["cpu_seconds"] - without["meter"]["cpu_seconds"]
    row(f"CPU time of metering 8 GPUs each second, {with_gpus['gpu']['readings']} looks", f"{more / seconds:.3%} of one core", "≤ 0.1 %")
    row("the same without a GPU", f"{without['meter']['cpu_seconds'] / seconds:.3%} of one core")
    row("PSS of the helper", f"{pss / 1024:.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="cost,exact,shared,zero")
    given = parser.parse_args()
    place = Place()
    print("| what | measured | to reach |\n|---|---|---|")
    runs = {
        "cost": lambda: cost(place, given.seconds),
        "exact": lambda: exact(place, given.seconds),
        "shared": lambda: shared(place, given.seconds, given.rounds),
        "zero": lambda: zero(place, given.rounds),
    }
    for name in given.only.split(","):
        runs[name]()
    print(place.call("ledger", "verify").strip())


main()
