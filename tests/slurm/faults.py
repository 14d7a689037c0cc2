#!/usr/bin/env python3
"""Steps under Slurm while things go wrong on the node: tests/slurm/faults.py JOBMETER [STEPS [SEED [WAY [KIND...]]]], where WAY is one of
trackers.py's. What is to hold afterwards: the
node is not drained, nothing hangs, nothing is left, and all that ran is charged, once. As root; needs what spank.py needs."""

import collections
import json
import pathlib
import pwd
import random
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

import bed
from bed import become, call, cpu, inside, ledger, left_over, meters, node_state, outside, print_logs
from fault_kinds import AIMED, KINDS, SPOOL, SPOOL_MIB, metered, missed
from harness import let_pass, run_scenes, wait_until
from metering import ERROR_MAX, LOADING_S
from trackers import start as start_tracker

TRUTH = pathlib.Path("/srv/truth")
OUT = pathlib.Path("/srv/out")
USERS = ("ann", "bob")
AT_ONCE = (2, 4)
# Of a round whose commands burn less than a second each. What takes so long hangs.
HUNG_S = 60


class Started:
    """A job of one step of srun, or of a batch script with some."""

    def __init__(self, name, process, steps):
        self.name, self.process, self.steps, self.beside = name, process, steps, None

    def has_ended(self):
        return self.process.poll() is not None


class Field:
    """What was started, and what was seen."""

    def __init__(self, wanted, dice, kinds):
        self.wanted, self.dice, self.kinds, self.deck = wanted, dice, kinds, []
        self.jobs, self.hung, self.drained, self.harmed_beside = [], [], [], []
        self.faults, self.ended_well = collections.Counter(), collections.Counter()

    def beside(self, step):
        """What went wrong meanwhile."""
        return next(job.beside for job in self.jobs if job.name == step.split(".")[0])

    def draw(self):
        """Each kind comes as often as the others, in any order."""
        if not self.deck:
            self.deck = self.dice.sample(self.kinds, len(self.kinds))
        return self.deck.pop()

    def steps(self):
        return sum(len(job.steps) for job in self.jobs)


def start(field):
    """One more job: srun with one or two tasks, or a script with two steps side by side and one after them."""
    dice = field.dice
    name, user = f"j{len(field.jobs)}", dice.choice(USERS)
    seconds = lambda: f"{dice.uniform(0.02, 0.7):.2f}"
    line = lambda step, count=1: f"-n{count} --jobmeter-label=step={step}"
    if dice.random() < 0.6:
        steps = {name: dice.choice((1, 1, 1, 2))}
        command = ["srun", *line(name, steps[name]).split(), f"--job-name={name}", "noted", TRUTH, name, seconds()]
    else:
        steps = {name: 1, f"{name}.1": 1, f"{name}.2": 1, f"{name}.3": 2}
        inner = [f"srun --overlap {line(step, steps[step])} noted {TRUTH} {step} {seconds()}" for step in list(steps)[1:]]
        script = OUT / f"{name}.batch"
        script.write_text(f"#!/bin/sh\nexec noted {TRUTH} {name} {seconds()} '{inner[0]} & {inner[1]} & wait; {inner[2]}'\n")
        command = ["sbatch", "--wait", "--no-requeue", "-n2", f"--jobmeter-label=step={name}", f"--job-name={name}", f"--output={OUT}/{name}.said", script]
    with open(OUT / f"{name}.out", "w") as out:
        process = subprocess.Popen([*become(user), *map(str, command)], cwd="/tmp", stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    field.jobs.append(Started(name, process, steps))
    return field.jobs[-1]


def truths():
    """What each task has noted: the seconds that it had burned, and whether it was at its end."""
    found = {}
    for path in TRUTH.iterdir():
        step, rank = path.name.rsplit(".", 1)
        seconds, state = path.read_text().split() or ("0", "runs")
        found[step, rank] = float(seconds), state == "ended"
    return found


def ended_well(job, noted):
    return job.process.returncode == 0 and all(noted.get((step, str(rank)), (0, False))[1] for step, count in job.steps.items() for rank in range(count))


def a_round(field):
    kind = field.draw()
    jobs = [start(field) for _ in range(field.dice.randint(*AT_ONCE))]
    # Before the first has begun, or in the middle.
    if kind in AIMED or field.dice.random() < 0.7:
        wait_until(30, "some run", lambda: metered() or all(job.has_ended() for job in jobs))
        let_pass(field.dice.uniform(0, 0.3))
    misses = len(missed)
    aimed_at = kind(field.dice)
    if len(missed) == misses:
        field.faults[kind.__name__] += 1
    for job in jobs:
        job.beside = f"{kind.__name__} at {aimed_at}" if aimed_at is not None else kind.__name__
    until = time.monotonic() + HUNG_S
    while time.monotonic() < until and not all(job.has_ended() for job in jobs):
        let_pass(0.05)
    for job in jobs:
        if not job.has_ended():
            field.hung.append((job.beside, job.name))
            print(f"hangs after {job.beside}: {job.name}\n{processes()}\n{call('squeue', '-s', check=False).stdout}{call('squeue', check=False).stdout}", file=sys.stderr)
            call("scancel", f"--jobname={job.name}", check=False)
            job.process.kill()
            job.process.wait()
    noted = truths()
    for job in jobs:
        well = ended_well(job, noted)
        field.ended_well[well] += 1
        if not well and aimed_at is not None and job.name != aimed_at:
            said = "".join(path.read_text()[-600:] for path in OUT.glob(f"{job.name}.*") if path.suffix != ".batch")
            field.harmed_beside.append((job.beside, job.name, job.process.returncode, said))
    if "drain" in node_state():
        field.drained.append((job.beside, call("sinfo", "-R", "-h").stdout.strip()))
        call("scontrol", "update", f"nodename={bed.HOST}", "state=resume")


def processes():
    return call("ps", "axfo", "pid,ppid,user,stat,etimes,args").stdout


def steps_run_while_things_go_wrong(field):
    while field.steps() < field.wanted:
        a_round(field)
    told = ", ".join(f"{name} {count}" for name, count in sorted(field.faults.items()))
    return f"{field.steps()} steps of {len(field.jobs)} jobs, {field.ended_well[True]} of them ended well; {told}; {len(missed)} came too late"


def no_task_has_hung(field):
    assert not field.hung, field.hung
    return "tasks hung 0"


def the_node_is_idle_and_was_never_drained(field):
    assert not field.drained, field.drained
    wait_until(30, "the node is idle", lambda: node_state() == "idle")
    return "nodes drained 0"


def only_what_was_hit_was_harmed(field):
    assert not field.harmed_beside, "\n".join(map(str, field.harmed_beside))


def no_process_is_left(_):
    left = lambda: [*filter(None, map(left_over, USERS)), *meters()]
    call("jobmeter", "slurm", "flush", check=False)
    try:
        wait_until(10, "nothing is left", lambda: not left())
    except AssertionError:
        raise AssertionError(processes()) from None
    return "processes left 0"


def no_group_is_left(field):
    of_test = pathlib.Path(bed.mount_of_cgroup2(), open("/proc/self/cgroup").read().split("0::/")[1].strip())
    # Under cgroup v1, Slurm's are at the top of each hierarchy.
    tops = [of_test, *(top for top in pathlib.Path("/sys/fs/cgroup").glob("*/slurm*") if "jobmeter" not in top.name)]
    whose = {several[0]["identity"]["attempt"]: field.beside(step) for (step, _), several in attempts().items()}
    left = [(whose.get(path.name.removeprefix("jobmeter-"), "no attempt"), str(path)) for top in tops for path in top.rglob("jobmeter-*") if path.is_dir() and path.name != "jobmeter-meters"]
    assert not left, (len(left), left)


def no_socket_is_left(_):
    places = pathlib.Path("/run/jobmeter")
    left = sorted(str(path) for path in (*places.glob("*"), *(places / "tasks").glob("*")) if path.name != "tasks")
    assert not left, (len(left), left[:5])


def the_spool_is_settled(_):
    told = call("jobmeter", "slurm", "flush", check=False)
    left = sorted(path.name for path in SPOOL.glob("*.spool"))
    assert told.returncode == 0 and not left, (told, left)


def attempts():
    """All that the ledger knows, by step and task."""
    found = collections.defaultdict(list)
    for row in json.loads(ledger("--json", "jobs", "list", "--all", "--count", "1000"))["jobs"]:
        for identity, attempt in ((attempt["identity"], attempt) for attempt in bed.job(row["job"])["attempts"]):
            found[identity["labels"]["step"], identity["task"]].append(attempt)
    return found


def each_attempt_has_ended_and_is_charged_once(field):
    found = attempts()
    wrong = {key: [attempt["state"] for attempt in several] for key, several in found.items() if len(several) != 1 or several[0]["state"] != "ended"}
    assert not wrong, wrong
    held = {key: several[0]["held"] for key, several in found.items() if several[0]["held"]}
    assert not held, held
    return f"{len(found)} attempts"


def what_ran_is_charged(field):
    """To its end where it came to it; of what was killed, what it had noted."""
    found, noted = attempts(), truths()
    unknown = [(key, field.beside(key[0]), *noted[key]) for key in sorted(set(noted) - set(found))]
    off, burned, charged = {}, 0, 0
    for key in set(noted) & set(found):
        (seconds, has_ended), measured = noted[key], cpu(found[key][0])
        if measured < seconds - 0.0005 or (has_ended and measured > seconds * (1 + ERROR_MAX) + LOADING_S):
            off[key] = (field.beside(key[0]), seconds, has_ended, measured, found[key][0]["reason"])
        if has_ended:
            burned, charged = burned + seconds, charged + measured
    assert not unknown and not off, f"ran unknown: {unknown}; not what it burned: {off}"
    return f"{sum(state for _, state in noted.values())} tasks ended, {burned:.3f} s burned, {charged:.3f} s charged; {sum(not state for _, state in noted.values())} were killed"


def the_books_are_right(_):
    told = ledger("ledger", "verify").strip()
    assert told.endswith("the books are right"), told
    return told


SCENES = (steps_run_while_things_go_wrong, no_task_has_hung, the_node_is_idle_and_was_never_drained, only_what_was_hit_was_harmed, no_process_is_left, the_spool_is_settled,
          no_group_is_left, no_socket_is_left, each_attempt_has_ended_and_is_charged_once, what_ran_is_charged, the_books_are_right)


def prepare():
    call("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "/usr/bin/noted", HERE.parent / "noted.c")
    for path in (TRUTH, OUT):
        path.mkdir()
        path.chmod(0o1777)
    SPOOL.mkdir(parents=True)
    meter = pwd.getpwnam("jobmeter")
    call("mount", "-t", "tmpfs", "-o", f"size={SPOOL_MIB}m,mode=700,uid={meter.pw_uid},gid={meter.pw_gid}", "spool", SPOOL)


def run(steps="300", seed=None, way="linuxproc", *names):
    seed = seed or str(random.randrange(10**6))
    print(f"faults: seed {seed}", flush=True)
    prepare()
    start_tracker(way, ReturnToService="2")
    kinds = [kind for kind in KINDS if not names or kind.__name__ in names]
    field = Field(int(steps), random.Random(seed), kinds)
    return run_scenes(f"faults, {way}", SCENES, field, print_logs=print_logs)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3], lambda: run(*sys.argv[4:])))
    binary, *arguments = sys.argv[1:]
    sys.exit(outside(HERE, pathlib.Path(binary).resolve(), *arguments, namespaces=["--cgroup"] if "cgroup2" in arguments else []))
