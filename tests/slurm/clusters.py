"""What depends on how a cluster is set up: each behaviour (as those of behaviour.py) has one of its own, which is another one each time."""

import itertools
import os
import pathlib
import shutil

import bed
from bed import ADDRESS, HOST, batch, call, cpu, left_over, over, said, started, state_of, write_slurm_conf
from behaviour import stands_still
from harness import Skip, wait_until

# Of each cluster, so that the ledger takes none of its jobs for another's.
first_job = itertools.count(10_000, 1_000)
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
SMALL = {"SelectTypeParameters": "CR_CPU_Memory", "DefMemPerCPU": "100", "NodeName": f"{HOST} NodeAddr={ADDRESS} CPUs=8 RealMemory=4000"}
CGROUP_CONF = pathlib.Path("/etc/slurm/cgroup.conf")
IS_LIMITED = "ConstrainRAMSpace=yes\n"
BOUND = {"TaskPlugin": "task/affinity", "NodeName": f"{HOST} NodeAddr={ADDRESS} CPUs={os.cpu_count()}"}


def begin(names=(), **changes):
    """In the place of the one that runs."""
    if names and os.path.exists("/usr/libexec/cgroup2-alone.so"):
        raise Skip("the second slurmd does not start below the group that cgroup v2 has here")
    for name in [name for name in started if name.startswith(("slurmctld", "slurmd"))]:
        started[name].terminate()
        started.pop(name).wait()
    CGROUP_CONF.write_text(CGROUP_CONF.read_text().replace(IS_LIMITED, "") + (IS_LIMITED if "DefMemPerCPU" in changes else ""))
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
    found = [bed.job(field("JobId", row)) for row in sorted(rows, key=lambda row: int(field("JobId", row)))]
    if any(found):
        # Each component is a job of its own. A step over both counts its tasks over both.
        metered = [sorted((attempt["identity"]["task"], attempt["state"], attempt["identity"]["command"][-2:][0]) for attempt in one["attempts"]) for one in found]
        ended = lambda *pairs: sorted((task, "ended", command) for task, command in pairs)
        assert metered[:2] == [ended(("0", "a")), ended(("1", "b"), ("2", "b"))], metered
        assert [len(one) for one in metered[2:]] == [2, 4] and metered[3] == ended(("0", "-c"), ("1", "-c"), ("1", "b"), ("2", "b")), metered
    return sorted(by_srun.stdout.splitlines()), by_srun.returncode, sorted(line for line in said(number).splitlines() if not line.startswith("srun:")), states


def field(name, row):
    return dict(part.split("=", 1) for part in row.split() if "=" in part).get(name)


@of_cluster(**SMALL)
def how_what_is_out_of_memory_ends():
    """A step, a script, a child of a script, and one task of two."""
    if not CGROUP_CONF.read_text().startswith("CgroupPlugin=cgroup/v1"):
        raise Skip("Slurm limits memory by cgroups alone, and this machine's memory controller is v1's")
    takes = "python3 -c 'bytearray(400 << 20)'"
    steps = [call("srun", *options, "sh", "-c", command, user="ann", check=False).returncode for options, command in (
        (["--mem=60"], f"exec {takes}"), (["--mem=60"], f"{takes}; exit 7"), (["-n2", "--mem=60"], f"[ $SLURM_PROCID = 0 ] && exec {takes}; exit 0"), (["--mem=600"], takes))]
    found = []
    for script in (f"exec {takes}", f"{takes}; exit 3", f"srun --mem=60 {takes}; echo step $?", f"{takes} & wait; exit 0"):
        number = batch(f"#!/bin/sh\n{script}\n", "--mem=60")
        now = over(number)
        found.append((now["JobState"], now["ExitCode"], now["Reason"], [line for line in said(number).splitlines() if "step" in line and "error" not in line]))
    wait_until(10, "no process is left", lambda: not left_over("ann"))
    return steps, found


@of_cluster(**BOUND)
def where_tasks_are_bound():
    """--cpu-bind, and what a task is given without."""
    show = "import os; print(os.environ['SLURM_PROCID'], sorted(os.sched_getaffinity(0)), os.environ.get('SLURM_CPU_BIND'))"
    options = ([], ["--cpu-bind=map_cpu:0,1"], ["--cpu-bind=rank"], ["--cpu-bind=none"], ["--cpu-bind=mask_cpu:0x2,0x1"], ["--cpu-bind=cores", "-c1"])
    done = [call("srun", "-n2", *option, "python3", "-c", show, user="ann", check=False) for option in options]
    number = batch("#!/bin/sh\ntaskset -cp $$ | cut -d: -f2\nsrun -n1 --cpu-bind=map_cpu:1 sh -c 'taskset -cp $$' | cut -d: -f2\n", "-n2")
    over(number)
    return [(sorted(found.stdout.splitlines()), found.returncode) for found in done], said(number)


CLUSTERS = (what_preemption_by_suspension_does, how_heterogeneous_jobs_run, how_what_is_out_of_memory_ends, where_tasks_are_bound)
