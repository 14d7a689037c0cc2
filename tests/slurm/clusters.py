"""What depends on how a cluster is set up: each behaviour (as those of behaviour.py) has one of its own, which is another one each time."""

import itertools
import json
import os
import pathlib
import shutil

import bed
from bed import ADDRESS, CONF, HOST, batch, call, cpu, left_over, over, said, shown, started, state_of, write_slurm_conf
from behaviour import stands_still
from harness import skip_unless, wait_until

# Of each cluster, so that the ledger takes none of its jobs for another's.
first_job = itertools.count(10_000, 1_000)
# With a preloaded library, slurmd does not start as another node.
TWO_NODES = {
    "NodeName": "\nNodeName=".join(f"{HOST}{number} NodeHostname={HOST}{number} NodeAddr={ADDRESS} Port={17000 + number} CPUs=4" for number in (1, 2)),
    "SlurmdSpoolDir": "/var/spool/slurmd.%n",
    "SlurmdPidFile": "/run/slurmd.%n.pid",
}
PREEMPTED = {
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "SUSPEND,GANG",
    "PartitionName": "low Nodes=ALL Default=YES PriorityTier=1 OverSubscribe=FORCE:1\nPartitionName=high Nodes=ALL PriorityTier=2 OverSubscribe=FORCE:1",
}
BOUND = {"TaskPlugin": "task/affinity", "NodeName": f"{HOST} NodeAddr={ADDRESS} CPUs={os.cpu_count()}"}


def begin(names=(), **changes):
    """In the place of the one that runs."""
    for name in [name for name in started if name.startswith(("slurmctld", "slurmd"))]:
        started[name].terminate()
        started.pop(name).wait()
    for path in pathlib.Path("/var/lib/slurm-state"), *pathlib.Path("/var/spool").glob("slurmd*"):
        shutil.rmtree(path)
    for path in ["/var/lib/slurm-state", "/var/spool/slurmd", *(f"/var/spool/slurmd.{name}" for name in names)]:
        os.makedirs(path)
    if not names:
        bed.start_slurm(FirstJobId=next(first_job), **changes)
        return
    write_slurm_conf(FirstJobId=next(first_job), **changes)
    started["slurmctld"] = bed.daemon("slurmctld", "-D")
    for name in names:
        started[f"slurmd {name}"] = bed.daemon("slurmd", "-D", "-N", name)
    wait_until(30, "all nodes are idle", lambda: call("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split() == ["idle"] * len(names))


def of_cluster(names=(), **changes):
    """The behaviour in a cluster with these settings, on top of the tracker's."""
    def marked(behaviour):
        behaviour.begin = lambda tracker: begin(names, **{**tracker, **changes})
        return behaviour
    return marked


@of_cluster(**PREEMPTED)
def what_preemption_by_suspension_does():
    """The job of the lower partition stands still while the other runs, goes on, and ends as if nothing had been."""
    progress = pathlib.Path("/tmp/progress")
    progress.unlink(missing_ok=True)
    low = batch("#!/bin/sh\nburn 3 /tmp/progress\nexit 6\n", "--partition=low", "--exclusive")
    wait_until(20, "it burns", lambda: progress.exists() and float(progress.read_text() or 0) > 0.3)
    pathlib.Path("/tmp/go").unlink(missing_ok=True)
    high = batch("#!/bin/sh\nwhile [ ! -e /tmp/go ]; do sleep 0.05; done\n", "--partition=high", "--exclusive", user="bob")
    wait_until(30, "the lower one is suspended", lambda: state_of(low) == "SUSPENDED" and state_of(high) == "RUNNING")
    wait_until(20, "it stands still", lambda: stands_still(progress))
    pathlib.Path("/tmp/go").touch()
    ended = [(now["JobState"], now["ExitCode"]) for now in (over(high), over(low))]
    found = bed.job(low)
    if found:
        truth = float(progress.read_text())
        (attempt,) = bed.settled(low)["attempts"]
        assert truth <= cpu(attempt) < truth * 1.05 + 0.1 and attempt["receipt"]["outcome"]["tamper"] == "none", (truth, attempt)
    return ended


@of_cluster(names=(f"{HOST}1", f"{HOST}2"), **TWO_NODES)
def how_heterogeneous_jobs_run():
    """One step of several programs over two nodes, by srun and within a script: the output, statuses, and each task once."""
    says = 'echo "$0 $SLURM_PROCID of $SLURM_NTASKS"; exit $1'
    step = ["-n1", "sh", "-c", says, "a", "0", ":", "-n2", "sh", "-c", says, "b", "3"]
    by_srun = call("srun", "--job-name=het", *step, user="ann", check=False)
    quoted = lambda part: "'" + part + "'" if " " in part else part
    script = f"#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n2\nsrun {' '.join(map(quoted, step))}\necho $?\nsrun --het-group=1 sh -c 'echo second $SLURM_PROCID'\n"
    number = batch(script, "--job-name=of-script")
    over(number)
    rows = [row for row in call("scontrol", "--oneliner", "show", "jobs").stdout.splitlines() if "JobName=het " in row or "JobName=of-script " in row]
    states = sorted((field("JobName", row), field("HetJobOffset", row), field("JobState", row), field("ExitCode", row)) for row in rows)
    wait_until(10, "no process is left", lambda: not left_over("ann"))
    if bed.meters() or bed.job(number):
        for component in (field("JobId", row) for row in rows):
            found = bed.job(component)
            print(component, found and [(attempt["identity"]["task"], attempt["state"], attempt["identity"]["command"][-2:]) for attempt in found["attempts"]], flush=True)
    return sorted(by_srun.stdout.splitlines()), by_srun.returncode, sorted(line for line in said(number).splitlines() if not line.startswith("srun:")), states


def field(name, row):
    return dict(part.split("=", 1) for part in row.split() if "=" in part).get(name)


@of_cluster(**BOUND)
def where_tasks_are_bound():
    """--cpu-bind, and what a task is given without."""
    show = "import os; print(os.environ['SLURM_PROCID'], sorted(os.sched_getaffinity(0)), os.environ.get('SLURM_CPU_BIND'))"
    options = ([], ["--cpu-bind=map_cpu:0,1"], ["--cpu-bind=rank"], ["--cpu-bind=none"], ["--cpu-bind=mask_cpu:0x2,0x1"], ["--cpu-bind=cores", "-c1"])
    done = [call("srun", "-n2", *option, "python3", "-c", show, user="ann", check=False) for option in options]
    number = batch(f'#!/bin/sh\ntaskset -cp $$ | cut -d: -f2\nsrun --cpu-bind=map_cpu:1 taskset -cp 0 | cut -d: -f2\n')
    over(number)
    return [(sorted(found.stdout.splitlines()), found.returncode) for found in done], said(number)


CLUSTERS = (what_preemption_by_suspension_does, how_heterogeneous_jobs_run, where_tasks_are_bound)
