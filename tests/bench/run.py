#!/usr/bin/env python3
"""Measures jobmeter beside its peers on this machine, and prints one table.

    cargo build --release && sudo tests/bench/run.py [--quick] [--only NAME,...]

Truth is the `usage_usec` of a cgroup v2 that the bench makes around each run, so it needs root and cgroup v2. Peers that
can be installed (GNU time by apt, BenchExec's runexec by pip into a temporary directory) are; what is missing is said.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBMETER = os.path.join(ROOT, "target/release/jobmeter")
WORK = tempfile.mkdtemp(prefix="jobmeter-bench-")
BURN = os.path.join(WORK, "burn")
ROWS = []

SHORT = """
import os
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            sum(range(250000))
        os._exit(0)
    os.waitpid(pid, 0)
"""


def row(what, who, value, reach=""):
    ROWS.append((what, who, value, reach))
    print(f"  {what} | {who} | {value} | {reach}", file=sys.stderr, flush=True)


def v2_mount():
    with open("/proc/mounts") as mounts:
        for line in mounts:
            if line.split()[2] == "cgroup2":
                return line.split()[1]
    sys.exit("bench: no cgroup v2 is mounted")


class Around:
    """A group around one run; its counter is the truth."""

    count = 0

    def __enter__(self):
        Around.count += 1
        self.path = f"{v2_mount()}/bench-{os.getpid()}-{Around.count}"
        os.mkdir(self.path)
        return self

    def join(self):
        with open(f"{self.path}/cgroup.procs", "w") as procs:
            procs.write("0")

    def usage(self):
        with open(f"{self.path}/cpu.stat") as stat:
            return int(stat.readline().split()[1])

    def job_lives(self):
        """Whether something lives in a job's group below; the dead whom nobody has waited for do not count."""
        for name in os.listdir(self.path):
            try:
                with open(f"{self.path}/{name}/cgroup.events") as events:
                    if "populated 1" in events.read():
                        return True
            except OSError:
                pass
        return False

    def __exit__(self, *_):
        with open(f"{self.path}/cgroup.kill", "w") as kill:
            kill.write("1")
        for _ in range(1000):
            try:
                for path, _, _ in os.walk(self.path, topdown=False):
                    os.rmdir(path)
                return
            except OSError:
                time.sleep(0.005)


def environment(name="ledger"):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JOBMETER")}
    return dict(clean, JOBMETER_LEDGER=f"{WORK}/{name}.db", JOBMETER_SPOOL=f"{WORK}/{name}.spool", JOBMETER_USER="bench")


def jobmeter(*arguments, name="ledger", group=None, **options):
    return subprocess.run(
        [JOBMETER, *arguments], env=environment(name), preexec_fn=group.join if group else None,
        capture_output=True, text=True, **options,
    )


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def install_peers():
    peers = {}
    if not os.path.exists("/usr/bin/time"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "time"], capture_output=True)
    if os.path.exists("/usr/bin/time"):
        peers["time"] = "/usr/bin/time"
    venv = os.path.join(WORK, "peers")
    done = subprocess.run(f"python3 -m venv {venv} && {venv}/bin/pip -q install benchexec", shell=True, capture_output=True)
    if done.returncode != 0:
        done = subprocess.run(f"pip -q install --break-system-packages --target {venv} benchexec", shell=True, capture_output=True)
    runexec = next((p for p in (f"{venv}/bin/runexec",) if os.path.exists(p)), None)
    if runexec:
        tried = subprocess.run([runexec, "--no-container", "--output", "/dev/null", "--", "true"], capture_output=True, text=True,
                               env=dict(os.environ, PYTHONPATH=venv))
        if tried.returncode == 0 or "cputime" in tried.stdout:
            peers["runexec"] = runexec
        else:
            print(f"  runexec does not run here: {tried.stderr.strip()[-200:]}", file=sys.stderr)
    for name in ("timeout", "prlimit"):
        if shutil.which(name):
            peers[name] = shutil.which(name)
    return peers


def runexec_cpu(peers, arguments, group):
    env = dict(os.environ, PYTHONPATH=os.path.join(WORK, "peers"))
    done = subprocess.run([peers["runexec"], "--no-container", "--output", "/dev/null", *arguments], capture_output=True,
                          text=True, env=env, preexec_fn=group.join)
    found = re.search(r"cputime=([0-9.]+)s", done.stdout)
    return float(found.group(1)) * 1e6 if found else None


def exactness(peers, quick):
    what, script = "CPU of 300 double-forked setsid children of 10 ms, of truth", os.path.join(WORK, "short.py")
    with open(script, "w") as file:
        file.write(SHORT)
    command = ["python3", script]
    for source, reach in (("cgroup2", "≥ 99.9 %"), ("cgroup1", "≥ 99.9 %"), ("perf", "≥ 99.9 %"), ("procfs", "≥ 99 %")):
        shares = []
        for _ in range(2 if quick else 7):
            receipt = f"{WORK}/receipt.json"
            # What jobmeter burns after its last word about itself is measured with a job that does nothing.
            with Around() as group:
                jobmeter("run", "--linger", "--cpu-source", source, "--receipt", receipt, "--", "true", group=group)
                read = json.load(open(receipt))
                told = float(read["cpu"]["total_seconds"]) + float(read["meter"]["cpu_seconds"])
                tail = group.usage() - told * 1e6
            with Around() as group:
                jobmeter("run", "--linger", "--cpu-source", source, "--receipt", receipt, "--", *command, group=group)
                read = json.load(open(receipt))
                metered = float(read["cpu"]["total_seconds"]) * 1e6
                own = float(read["meter"]["cpu_seconds"]) * 1e6 + tail
                shares.append(metered / (group.usage() - own))
        row(what, f"jobmeter {source}", f"{statistics.median(shares):.2%}", reach)
    if "time" in peers:
        with Around() as group:
            done = subprocess.run([peers["time"], "-f", "%U %S", *command], capture_output=True, text=True, preexec_fn=group.join)
            time.sleep(0.3)
            user, system = done.stderr.split()[-2:]
            row(what, "GNU time", f"{(float(user) + float(system)) * 1e6 / group.usage():.1%}")
    if "runexec" in peers:
        with Around() as group:
            cpu = runexec_cpu(peers, ["--", *command], group)
            row(what, "runexec", f"{cpu / 1e6:.3f} s" if cpu else "no figure")


def overshoot(peers, quick):
    runs = 6 if quick else 50
    for threads in (1, 2, 8, 32):
        what, late, early, charged = f"CPU past a limit of 1 s, {threads} threads", [], [], []
        for attempt in range(runs):
            busy = [subprocess.Popen([BURN, "1"]) for _ in range(2)] if attempt % 2 else []
            receipt = f"{WORK}/receipt.json"
            jobmeter("run", "--limit", "0.00025", "--receipt", receipt, "--", BURN, str(threads))
            for other in busy:
                other.kill()
                other.wait()
            read = json.load(open(receipt))
            burned = (float(read["cpu"]["total_seconds"]) + float(read["cpu"]["teardown_seconds"])) * 1e3 - 1000
            late.append(max(burned, 0))
            early.append(max(1000 - float(read["cpu"]["total_seconds"]) * 1e3, 0))
            charged.append(float(read["credits"]["total"]))
        value = f"median {statistics.median(late):.1f} ms, p99 {percentile(late, 0.99):.1f} ms, stopped at most {max(early):.1f} ms early"
        row(what, "jobmeter", value, "≤ 2 ms, ≤ 10 ms, ≤ 25 ms")
        row(what, "jobmeter, charged past it", f"{max(max(charged) - 0.00025, 0):.9f} credits", "0")
        for peer, command in (("prlimit", ["prlimit", "--cpu=1", BURN, str(threads)]), ("runexec", None)):
            if peer not in peers:
                continue
            past = []
            for _ in range(2 if quick else 5):
                with Around() as group:
                    if command:
                        subprocess.run(command, preexec_fn=group.join, capture_output=True)
                        past.append(group.usage() / 1e3 - 1000)
                    else:
                        cpu = runexec_cpu(peers, ["--timelimit", "1s", "--", BURN, str(threads)], group)
                        if cpu:
                            past.append(cpu / 1e3 - 1000)
            if past:
                row(what, peer, f"median {statistics.median(past):.0f} ms")


def added_wall(peers, quick):
    what, runs = "added to the wall time of true", 40 if quick else 300
    candidates = {"(nothing)": ["true"], "jobmeter": [JOBMETER, "run", "-q", "--", "true"], "timeout": ["timeout", "10", "true"]}
    if "runexec" in peers:
        candidates["runexec"] = [peers["runexec"], "--no-container", "--output", "/dev/null", "--", "true"]
    took = {who: [] for who in candidates}
    for at in range(runs):
        for who, command in candidates.items():
            if who == "runexec" and at % 10:
                continue
            start = time.perf_counter()
            subprocess.run(command, env=dict(environment(), PYTHONPATH=os.path.join(WORK, "peers")), capture_output=True)
            took[who].append((time.perf_counter() - start) * 1e3)
    bare = statistics.median(took.pop("(nothing)"))
    for who, values in took.items():
        row(what, who, f"median {statistics.median(values) - bare:.1f} ms", "≤ 10 ms" if who == "jobmeter" else "")


def own_cpu(_peers, quick):
    seconds, receipt = (10 if quick else 60), f"{WORK}/receipt.json"
    jobmeter("run", "--receipt", receipt, "--", BURN, "2", str(seconds))
    read = json.load(open(receipt))
    share = float(read["meter"]["cpu_seconds"]) / float(read["time"]["wall_seconds"])
    row(f"own CPU beside a job of {seconds} s", "jobmeter", f"{share:.3%} of one core", "≤ 0.1 %")


def own_memory(_peers, quick):
    count = 20 if quick else 100
    jobs = [subprocess.Popen([JOBMETER, "run", "-q", "--", "sleep", "1000"], env=environment("many")) for _ in range(count)]
    until = time.time() + 30
    while time.time() < until and len(subprocess.run(["pgrep", "-x", "sleep"], capture_output=True).stdout.split()) < count:
        time.sleep(0.2)
    time.sleep(2)
    total = 0
    for pid in subprocess.run(["pgrep", "-x", "jobmeter"], capture_output=True, text=True).stdout.split():
        try:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            pass
    for job in jobs:
        job.terminate()
    for job in jobs:
        job.wait()
    row(f"PSS of front and keeper, {count} running", "jobmeter", f"{total / count / 1024:.2f} MiB each", "≤ 5 MiB")


# More than what it has burned by the time at which it is stopped.
LOST_LIMIT = 0.0005


def lost(_peers, quick):
    for who, number in (("front", signal.SIGKILL), ("keeper", signal.SIGKILL), ("front", signal.SIGSTOP), ("keeper", signal.SIGSTOP)):
        slowest, off, unknown, most = 0.0, [], 0, 0.0
        runs = 5 if quick else 50
        # The front reads for a keeper that stands still, up to the ceiling.
        stands_still = (who, number) == ("keeper", signal.SIGSTOP)
        limit = ["--limit", f"{LOST_LIMIT}"] if stands_still else []
        for _ in range(runs):
            with Around() as group:
                job = f"lost-{random.random()}"
                code = f"for i in $(seq 19); do {BURN} 1 & done; wait"
                front = subprocess.Popen(
                    [JOBMETER, "run", "-q", "--job", job, "--as", "nobody", *limit, "--", "bash", "-c", code], env=environment("lost"),
                    preexec_fn=group.join, stderr=subprocess.DEVNULL)
                time.sleep(0.2 + random.random() * 0.5)
                children = subprocess.run(["pgrep", "-P", str(front.pid), "-x", "jobmeter"], capture_output=True, text=True)
                target = front.pid if who == "front" else int(children.stdout.split()[0])
                os.kill(target, number)
                start = time.perf_counter()
                while group.job_lives() and time.perf_counter() - start < 10:
                    time.sleep(0.001)
                slowest = max(slowest, time.perf_counter() - start)
                if number == signal.SIGSTOP:
                    try:
                        os.kill(target, signal.SIGCONT)
                    except ProcessLookupError:
                        pass
                front.wait()
                time.sleep(0.05)
                for _ in range(100):
                    shown = json.loads(jobmeter("--json", "jobs", "show", job, name="lost").stdout)
                    if shown["state"] == "ended":
                        break
                    time.sleep(0.02)
                unknown += shown["state"] != "ended"
                booked = float(shown["attempts"][0]["usage"]["cpu_used_seconds"]) * 1e3
                off.append(group.usage() / 1e3 - booked)
                most = max(most, float(shown["charged"]["total"]))
        name = f"{number.name} of the {who}, {runs} instants"
        if stands_still:
            row(name, "jobmeter", f"at most {most:.7f} of {LOST_LIMIT} credits charged", f"≤ {LOST_LIMIT}")
        else:
            row(name, "jobmeter", f"all dead within {slowest * 1e3:.0f} ms", "≤ 1 s")
        row(name, "ledger behind the truth, jobmeter's own CPU included", f"median {statistics.median(off):.0f} ms, unknown {unknown}", "≤ 20 ms")


def crowd(_peers, quick):
    count, name = 64, "crowd"
    jobmeter("account", "limit", "0.05", name=name)
    jobs = []
    for at in range(count):
        receipt = f"{WORK}/crowd-{at}.json"
        jobs.append(subprocess.Popen([JOBMETER, "run", "-q", "--receipt", receipt, "--", BURN, "1"], env=environment(name),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for job in jobs:
        job.wait()
    account = json.loads(jobmeter("--json", "status", name=name).stdout)
    slowest, below = 0, {}
    for at in range(count):
        try:
            answers = json.load(open(f"{WORK}/crowd-{at}.json"))["meter"]["ledger_answers"]
        except (OSError, KeyError):
            continue
        slowest = max(slowest, float(answers["max_seconds"]) * 1e3)
        for bound, calls in answers["below_ms"].items():
            below[int(bound)] = below.get(int(bound), 0) + calls
    calls = sum(below.values())
    within = sum(number for bound, number in below.items() if bound <= 50)
    charged = float(account["current"])
    row("64 jobs on 0.05 credits", "charged", f"{charged:.9f}", "≤ 0.05")
    row("64 jobs on 0.05 credits", "unburned", f"{1 - charged / 0.05:.1%}", "≤ 15 %")
    row("64 jobs on 0.05 credits", f"{calls} ledger calls", f"{within / calls:.2%} within 50 ms, the slowest {slowest:.0f} ms",
        "≥ 99 % within 50 ms")
    row("64 jobs on 0.05 credits", "ledger verify", jobmeter("ledger", "verify", name=name).stdout.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    every = {"exactness": exactness, "overshoot": overshoot, "wall": added_wall, "cpu": own_cpu, "memory": own_memory,
             "lost": lost, "crowd": crowd}
    parser.add_argument("--only", help="of " + ",".join(every))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: root is needed, to make the groups that are the truth")
    if not os.path.exists(JOBMETER):
        sys.exit(f"bench: {JOBMETER} is missing: cargo build --release")
    subprocess.run(["cc", "-O1", "-pthread", "-o", BURN, os.path.join(ROOT, "tests/bench/burn.c")], check=True)
    os.chmod(WORK, 0o755)
    peers = install_peers()
    for name in arguments.only.split(",") if arguments.only else every:
        every[name](peers, arguments.quick)
    print("| what | who | measured | to reach |\n|---|---|---|---|")
    for cells in ROWS:
        print("| " + " | ".join(cells) + " |")
    shutil.rmtree(WORK, ignore_errors=True)


main()
