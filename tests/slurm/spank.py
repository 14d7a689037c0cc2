#!/usr/bin/env python3
"""deploy/slurm with its SPANK plugin, and the files of deploy/schedulers, as they are and where they belong on a machine:
tests/slurm/spank.py JOBMETER. As root; needs slurm-wlm, munge, libslurm-dev, gcc, cron and parallel of Debian, and a cgroup v2 hierarchy
whose groups can be made."""

import json
import os
import pathlib
import shutil
import sys
import types

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from bed import DEPLOY, LEDGER, batch, call, cpu, is_about, job, ledger, left_over, main, over, print_logs, said, settled, start_cron, start_slurm, tasks
from harness import run_scenes, wait_until


def a_script_of_any_language_is_metered_exactly():
    """Against what the kernel says that this process's children burned: the truth is told by rusage, in the job."""
    number = batch("#!/usr/bin/python3 -u\nimport sys, time, os\nassert '-u' in sys.orig_argv\n"
                   "if os.fork() == 0:\n    os.setsid()\n    while time.process_time() < 0.5: pass\n    os._exit(0)\n"
                   "os.wait()\nwhile time.process_time() < 0.5: pass\nprint(sum(os.times()[:4]))\n")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    (attempt,) = found["attempts"]
    truth = float(said(number).split()[0])
    assert (found["user"], found["name"], tasks(found)) == ("ann", "ann.batch", ["0"]), found
    assert attempt["receipt"]["cpu"]["source"] == "cgroup2" and 0.99 * truth - 0.01 <= cpu(attempt) <= 1.03 * truth + 0.03, (truth, attempt)
    assert int(round(float(found["charged"]["total"]) * 1e9)) == round(cpu(attempt) * 1e6) // 4, found  # 0.00025 a second
    return f"{cpu(attempt):.3f} s of {truth:.2f} s by cgroup2, {found['charged']['total']} credits"


def plain_srun_is_metered_and_charged_to_its_user():
    number = call("srun", "sh", "-c", "burn 0.3 >&2; echo $SLURM_JOB_ID", user="bob").stdout.strip()
    found = settled(number)
    assert (found["user"], tasks(found)) == ("bob", ["0"]) and is_about(0.3, cpu(found["attempts"][0])), found
    return f"{cpu(found['attempts'][0]):.3f} s"


def steps_of_a_script_are_tasks_of_one_job():
    number = batch("#!/bin/sh\nsrun burn 0.3\n", "--ntasks=4")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    # The script itself is the fifth attempt.
    assert tasks(found) == ["0", "0", "1", "2", "3"] and is_about(1.2, sum(map(cpu, found["attempts"]))), found
    listed = [row for row in json.loads(ledger("--json", "jobs", "list", "--all"))["jobs"] if row["job"] == number]
    assert len(listed) == 1
    return f"{sum(map(cpu, found['attempts'])):.3f} s"


def an_array_is_one_job_and_what_it_submits_is_another():
    number = batch("#!/bin/sh\nburn 0.2\n[ $SLURM_ARRAY_TASK_ID != 5 ] || sbatch --parsable --output=/dev/null --wrap 'burn 0.1' > /tmp/inner\n", "--array=3-5")
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout)
    inner = pathlib.Path("/tmp/inner").read_text().strip()
    over(inner)
    found = settled(number)
    assert tasks(found) == ["3", "4", "5"] and all(is_about(0.2, cpu(attempt)) for attempt in found["attempts"]), found
    assert tasks(settled(inner)) == ["0"] and cpu(job(inner)["attempts"][0]) >= 0.1
    return f"tasks {', '.join(tasks(found))}; job {inner} apart"


def what_stands_before_a_command_still_holds():
    """Its directory, standard streams, status and signal; and with no jobmeter it does not run at all."""
    done = call("srun", "--chdir=/srv", "sh", "-c", "pwd; echo error >&2; exit 7", user="ann", check=False)
    assert (done.stdout, done.returncode) == ("/srv\n", 7) and "error\n" in done.stderr, done
    # As Slurm has it, which looks for the command itself.
    assert call("srun", "nowhere", user="ann", check=False).returncode == 2
    assert call("srun", "sh", "-c", "kill -9 $$", user="ann", check=False).returncode == 137
    os.rename("/usr/bin/jobmeter", "/usr/bin/away")
    assert call("srun", "touch", "/tmp/unmetered", user="ann", check=False).returncode == 125 and not os.path.exists("/tmp/unmetered")
    os.rename("/usr/bin/away", "/usr/bin/jobmeter")
    number = call("salloc", "--ntasks=1", "sh", "-c", "srun burn 0.2 >&2; echo $SLURM_JOB_ID", user="bob").stdout.strip()
    assert is_about(0.2, cpu(settled(number)["attempts"][0]))


def the_submitters_environment_decides_nothing():
    number = batch("#!/bin/sh\nburn 0.2\n", JOBMETER_USER="bob", JOBMETER_LEDGER="/tmp/own.db", JOBMETER_ATTEMPT="7", JOBMETER_COMMAND="true")
    over(number)
    assert settled(number)["user"] == "ann" and cpu(job(number)["attempts"][0]) >= 0.2
    assert not os.path.exists("/tmp/own.db")


def exhausted_credits_are_failed_with_75():
    processors = os.cpu_count()
    limit = 0.001 * processors
    ledger("--user", "poor", "account", "limit", f"{limit:.3f}")
    number = batch(f"#!/bin/sh\nfor n in $(seq {processors}); do setsid burn 600 & done; wait\n", user="poor")
    now = over(number)
    charged = float(settled(number)["charged"]["total"])
    assert (now["JobState"], now["ExitCode"]) == ("FAILED", "75:0"), now
    assert 0.8 * limit < charged <= limit and not left_over("poor"), (charged, left_over("poor"))
    again = batch("#!/bin/sh\ntouch /tmp/ran\n", user="poor")
    assert over(again)["ExitCode"] == "75:0" and not os.path.exists("/tmp/ran")
    return f"{charged:.6f} of {limit} credits, the next job is refused"


def cancelled(script, state="CANCELLED"):
    """A job that is cancelled in the middle: what it had burned by then, and the books."""
    file = pathlib.Path("/tmp/burned")
    file.unlink(missing_ok=True)
    number = batch(script)
    wait_until(20, "it burns", lambda: file.exists() and float(file.read_text() or 0) > 1)
    call("scancel", number)
    assert over(number)["JobState"] == state
    assert not left_over("ann"), left_over("ann")
    found = settled(number)
    truth, charged = float(file.read_text()), cpu(found["attempts"][0])
    assert truth <= charged < truth + 0.15, (truth, found)
    reason = found["attempts"][0]["reason"]
    return f"{charged:.3f} s charged, {truth:.3f} s burned, {reason}", reason


def a_cancelled_job_is_charged_to_its_end():
    return cancelled("#!/bin/sh\nburn 600 /tmp/burned\n")[0]


def a_job_that_slurm_has_to_kill_is_charged_to_its_end():
    """Along with jobmeter; the epilog settles."""
    return cancelled("#!/bin/sh\ntrap '' TERM\nburn 600 /tmp/burned\n")[0]


def a_requeued_job_is_a_second_attempt():
    again = pathlib.Path("/tmp/again")
    number = batch("#!/bin/sh\n[ -e /tmp/again ] || burn 600 /tmp/again\nburn 0.2\n", "--requeue")
    wait_until(20, "it has burned a second", lambda: again.exists() and float(again.read_text() or 0) > 1)
    call("scontrol", "requeue", number, user="ann")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    seconds = sorted(map(cpu, found["attempts"]))
    assert tasks(found) == ["0", "0"] and is_about(0.2, seconds[0]) and seconds[1] > 0.8, found
    return "{:.3f} s and {:.3f} s".format(*seconds)


def a_sweep_of_gnu_parallel_is_one_job():
    config = {"JOBMETER_LEDGER": LEDGER, "JOBMETER_KEY": "/etc/jobmeter/keys/bob", "JOBMETER_SPOOL": "/tmp/bob-spool", "SWEEP": "sweep", "JOBS": "2"}
    shutil.copy("/usr/bin/burn", "/tmp/train.py")
    call(DEPLOY / "schedulers/parallel.sh", "0.1", "0.2", "0.3", "0.4", user="bob", **config)
    found = settled("sweep")
    assert found["user"] == "bob" and tasks(found) == ["1", "2", "3", "4"] and is_about(1.0, sum(map(cpu, found["attempts"]))), found
    statuses = [line.split("\t")[6] for line in open("/tmp/sweep.joblog").read().splitlines()[1:]]
    assert statuses == ["0"] * 4, statuses
    poor = dict(config, JOBMETER_KEY="/etc/jobmeter/keys/poor", JOBMETER_SPOOL="/tmp/poor-spool", SWEEP="poor-sweep", JOBS="1")
    assert call(DEPLOY / "schedulers/parallel.sh", "0.1", "0.2", user="poor", check=False, **poor).returncode == 75
    statuses = [line.split("\t")[6] for line in open("/tmp/poor-sweep.joblog").read().splitlines()[1:]]
    assert statuses == ["75"], statuses
    return f"{sum(map(cpu, found['attempts'])):.3f} s; with no credits the first run's 75 ends it"


def airflows_operator_runs_it():
    """The command that the DAG gives to BashOperator, rendered, started as BashOperator starts it."""
    given = {}
    operators, sdk = types.ModuleType("bash"), types.ModuleType("sdk")
    operators.BashOperator = lambda **parts: given.update(parts)
    sdk.DAG = lambda *_, **parts: __import__("contextlib").nullcontext()
    sys.modules |= {"airflow.providers.standard.operators.bash": operators, "airflow.sdk": sdk}
    exec((DEPLOY / "schedulers/airflow_dag.py").read_text())
    command = given["bash_command"]
    for template, value in {"task.owner": "ann", "dag.dag_id": "train", "run_id": "manual__2026-11-26T00:00:00+00:00", "ti.task_id": given["task_id"]}.items():
        command = command.replace("{{ " + template + " }}", value)
    call("bash", "-c", command, JOBMETER_LEDGER=LEDGER, JOBMETER_KEY="/etc/jobmeter/node-key", JOBMETER_SPOOL="/tmp/worker-spool")
    found = settled("train.manual__2026-11-26T00:00:00+00:00")
    assert (found["user"], tasks(found)) == ("ann", ["fit"]) and cpu(found["attempts"][0]) >= 0.2, found


def cron_starts_a_job():
    """cron itself, by the file that ships; it looks at the start of each minute."""
    found = wait_until(75, "cron has started a job", lambda: next((row for row in json.loads(ledger("--json", "jobs", "list", "--all", "--count", "100"))["jobs"] if row["name"] == "minutely" and row["state"] == "ended"), None))
    assert found["user"] == "ann" and is_about(0.2, cpu(found["attempts"][0])), found
    (attempt,) = job(found["job"])["attempts"]
    assert attempt["receipt"]["outcome"]["tamper"] == "none", attempt
    return f"{cpu(attempt):.3f} s by {attempt['receipt']['cpu']['source']}"


def the_books_are_right():
    told = ledger("ledger", "verify").strip()
    assert told.endswith("the books are right"), told
    return told


# cron's is last, since the others fill the time until its minute begins.
SCENES = (a_script_of_any_language_is_metered_exactly, plain_srun_is_metered_and_charged_to_its_user, steps_of_a_script_are_tasks_of_one_job,
          an_array_is_one_job_and_what_it_submits_is_another, what_stands_before_a_command_still_holds, the_submitters_environment_decides_nothing, exhausted_credits_are_failed_with_75,
          a_cancelled_job_is_charged_to_its_end, a_job_that_slurm_has_to_kill_is_charged_to_its_end, a_requeued_job_is_a_second_attempt,
          a_sweep_of_gnu_parallel_is_one_job, airflows_operator_runs_it, cron_starts_a_job, the_books_are_right)


def run():
    start_slurm()
    start_cron()
    return run_scenes("spank", SCENES, print_logs=print_logs)


if __name__ == "__main__":
    main(HERE, run)
