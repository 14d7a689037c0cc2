#!/usr/bin/env python3
"""Figures of the wrapper in an unprivileged container: tests/containers/podman.sh DIRECTORY tests/bench/containers.py BINARIES
BASE.tar [RUNS]. BINARIES is as for tests/containers/run.py, built by the profile `image`."""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "containers"))
from pods import BINARIES, CHILDREN, DEPLOY, Ledger, Pod, podman  # noqa: E402

RUNS = int(sys.argv[3]) if len(sys.argv) > 3 else 50
# Says when it started, and becomes what it is told.
STAMP = """
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  dprintf(1, "stamp %lld\\n", now.tv_sec * 1000000000LL + now.tv_nsec);
  if (count < 2) return 0;
  execv(words[1], words + 1);
  return 1;
}
"""


def stamped(directory):
    context = directory / "stamp"
    context.mkdir()
    (context / "stamp.c").write_text(STAMP)
    subprocess.run(["cc", "-O2", "-static", "-o", context / "stamp", context / "stamp.c"], check=True)
    (context / "Containerfile").write_text("FROM localhost/base\nCOPY stamp /stamp\n")
    podman("build", "--quiet", "--tag", "localhost/stamp", context)


def started(ledger):
    pod = Pod(ledger, ["/stamp"], image="localhost/stamp", before=["/stamp"])
    assert pod.ended() == 0, pod.logs()
    first, second = (int(line.split()[1]) for line in pod.logs().splitlines() if line.startswith("stamp"))
    pod.remove()
    return (second - first) / 1e6


def burned_past(ledger, threads):
    spin = "while :; do :; done"
    pod = Pod(ledger, ["sh", "-c", " & ".join([spin] * threads)], relay_options=["--limit=0.00025"])
    assert pod.ended() == 75, pod.logs()
    receipt = ledger.job(pod.name)["attempts"][0]["receipt"]
    pod.remove()
    return (float(receipt["cpu"]["total_seconds"]) + float(receipt["cpu"]["teardown_seconds"]) - 1) * 1000


def share_of_truth(ledger):
    """What was metered of what the container's own counter gained from the workload's start on, less what the meter burned."""
    pod = Pod(ledger, ["python3", "-c", CHILDREN.format(count=600, each=0.01, rest=3)], image="localhost/stamp", before=["/stamp"])
    stat = open(pod.group() / "cpu.stat")
    truth = 0
    while True:
        try:
            stat.seek(0)
            truth = int(stat.readline().split()[1])
        except OSError:
            break
        time.sleep(0.02)
    assert pod.ended() == 0, pod.logs()
    receipt = ledger.job(pod.name)["attempts"][0]["receipt"]
    pod.remove()
    metered, own = float(receipt["cpu"]["total_seconds"]), float(receipt["meter"]["cpu_seconds"])
    return metered / (truth / 1e6 - own) * 100


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-containers-"))
    directory.chmod(0o755)
    ledger = None
    try:
        if podman("image", "exists", "localhost/base", check=False).returncode:
            podman("import", "--quiet", sys.argv[2], "localhost/base")
        podman("build", "--quiet", "--build-arg", "BASE=localhost/base", "--tag", "localhost/jobmeter", "--file", DEPLOY / "Containerfile", BINARIES)
        stamped(directory)
        ledger = Ledger(directory)
        size = sum((BINARIES / name).stat().st_size for name in ("jobmeter", "jobmeter-wrapper", "jobmeter-nvml"))
        print(f"image beyond its base: {size / 2**20:.2f} MiB", flush=True)
        took = [started(ledger) for _ in range(RUNS)]
        print(f"from the wrapper's start to the workload's: median {statistics.median(took):.1f} ms, slowest {max(took):.1f} ms", flush=True)
        shares = [share_of_truth(ledger) for _ in range(min(RUNS, 10))]
        print(f"600 double-forked setsid children of 10 ms, metered of truth: median {statistics.median(shares):.2f} %, "
              f"{min(shares):.2f} to {max(shares):.2f} %", flush=True)
        for threads in (1, 2, 8):
            past = [burned_past(ledger, threads) for _ in range(RUNS)]
            print(f"burned past 1 s, {threads} threads: median {max(statistics.median(past), 0):.1f} ms, worst {max(max(past), 0):.1f} ms, "
                  f"stopped at most {max(-min(past), 0):.1f} ms early", flush=True)
        print(ledger.ask("ledger", "verify").strip())
    finally:
        podman("rm", "--all", "--force", "--time", "0", check=False)
        if ledger:
            ledger.stop()
        shutil.rmtree(directory, ignore_errors=True)


main()
