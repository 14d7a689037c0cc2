#!/usr/bin/env python3
"""deploy/slurm/lua: batch scripts are metered by jobmeters of the jobs' own users, who decide nothing by it: tests/slurm/lua.py JOBMETER.
As root; needs what spank.py needs."""

import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from bed import DEPLOY, LEDGER, batch, call, cpu, is_about, job, ledger, left_over, main, over, print_logs, said, settled, start_slurm, state_of, tasks
from harness import let_pass, run_scenes, wait_until


def a_batch_script_is_metered_without_a_word():
    number = batch("#!/bin/bash\n#SBATCH --job-name=silent\nburn 0.5 & burn 0.5 & wait\n")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    assert found["user"] == "ann" and is_about(1.0, cpu(found["attempts"][0])), found
    # Any interpreter, with its one argument as it stands.
    number = batch("#!/usr/bin/python3 -u\nimport os, sys\nos.execlp('burn', 'burn', '0.3') if '-u' in sys.orig_argv else 1\n")
    assert over(number)["JobState"] == "COMPLETED" and is_about(0.3, cpu(settled(number)["attempts"][0])), said(number)
    number = batch("#!/usr/bin/env -S sh -c 'burn 0.2; exit 9'\n")
    assert over(number)["ExitCode"] == "9:0" and is_about(0.2, cpu(settled(number)["attempts"][0])), said(number)
    return f"by {found['attempts'][0]['receipt']['cpu']['source']}"


def an_srun_has_to_say_it():
    call("srun", "--job-name=plain", "jobmeter", "run", "-q", "--", "burn", "0.5", user="ann")
    listed = ledger("--json", "jobs", "list", "--all")
    numbers = [part.split('"')[0] for part in listed.split('"job": "')[1:]]
    # One that has none was started outside of a job.
    assert all(number.isdigit() for number in numbers), listed
    newest = max(numbers, key=int)
    assert is_about(0.5, cpu(settled(newest)["attempts"][0]))
    refused = call("srun", "burn", "0.1", user="ann", check=False)
    return f"an unmetered srun is {'refused' if refused.returncode else 'let through by this Slurm'}"


def a_job_that_a_job_submits_is_metered():
    """It inherits the environment of the one that is metered, and of an array."""
    number = batch("#!/bin/sh\nsbatch --parsable --output=/dev/null --wrap 'burn 0.3' > /tmp/submitted\n", "--array=7")
    wait_until(40, "it ends", lambda: not call("squeue", "-h", "-j", number, check=False).stdout.strip())
    submitted = pathlib.Path("/tmp/submitted").read_text().strip()
    assert over(submitted)["JobState"] == "COMPLETED"
    assert is_about(0.3, cpu(settled(submitted)["attempts"][0])) and len(job(number)["attempts"]) == 1, job(number)


def tasks_and_arrays_are_one_job_each():
    number = batch("#!/bin/sh\nsrun --overlap jobmeter run -q -- burn 0.3\n", "--ntasks=4")
    assert over(number)["JobState"] == "COMPLETED", said(number)
    # The script itself is the fifth attempt.
    assert tasks(settled(number)) == ["0", "0", "1", "2", "3"], settled(number)
    array = batch("#!/bin/sh\nburn 0.2\n", "--array=3-5")
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", array, check=False).stdout.strip())
    found = settled(array)
    assert tasks(found) == ["3", "4", "5"] and all(is_about(0.2, cpu(attempt)) for attempt in found["attempts"]), found


def the_user_decides_nothing():
    """A variable that says something else is refused, and what the meter itself would obey it does not see."""
    pathlib.Path("/tmp/fake").mkdir(exist_ok=True)
    pathlib.Path("/tmp/fake/jobmeter").write_text("#!/bin/sh\ntouch /tmp/fake-ran; shift 2; exec \"$@\"\n")
    os.chmod("/tmp/fake/jobmeter", 0o755)
    for variable, value in (("JOBMETER_LEDGER", "/tmp/own.db"), ("JOBMETER_USER", "bob"), ("JOBMETER_KEY", "/etc/jobmeter/keys/bob"), ("JOBMETER_CONFIG", "/tmp/own.toml"), ("JOBMETER_SPOOL", "/tmp/own-spool")):
        number = batch("#!/bin/sh\ntouch /tmp/ran\n", **{variable: value})
        now = over(number)
        assert (now["JobState"], now["ExitCode"]) == ("FAILED", "125:0") and "refused" in said(number), (variable, now, said(number))
    for variable, value in (("PATH", "/tmp/fake:/usr/bin:/bin"), ("http_proxy", "http://127.0.0.1:1"), ("ALL_PROXY", "http://127.0.0.1:1"), ("SSL_CERT_FILE", "/tmp/none"), ("XDG_CONFIG_HOME", "/tmp")):
        number = batch("#!/bin/sh\nburn 0.2\n", **{variable: value})
        assert over(number)["JobState"] == "COMPLETED", (variable, said(number))
        found = settled(number)
        assert found["user"] == "ann" and is_about(0.2, cpu(found["attempts"][0])), (variable, found)
    assert not any(map(os.path.exists, ("/tmp/own.db", "/tmp/own-spool", "/tmp/ran", "/tmp/fake-ran")))


def exhausted_credits_are_failed_with_75():
    ledger("--user", "poor", "account", "limit", "0.002")
    number = batch("#!/bin/sh\n(setsid burn 600 &); burn 600\n", user="poor")
    now = over(number)
    assert (now["JobState"], now["ExitCode"]) == ("FAILED", "75:0"), now
    assert job(number)["attempts"][0]["reason"] == "credits_exhausted" and not left_over("poor"), left_over("poor")
    again = batch("#!/bin/sh\nburn 1\n", user="poor")
    assert over(again)["ExitCode"] == "75:0" and job(again) is None or job(again)["attempts"] == [], job(again)


def burned(path):
    return float(path.read_text() or 0) if path.exists() else 0.0


def a_cancelled_job_is_charged_to_its_end():
    path = pathlib.Path("/tmp/cancelled")
    number = batch("#!/bin/sh\nburn 600 /tmp/cancelled\n")
    wait_until(20, "it burns", lambda: burned(path) > 1)
    call("scancel", number)
    assert over(number)["JobState"] == "CANCELLED"
    (attempt,) = settled(number)["attempts"]
    assert burned(path) <= cpu(attempt) < burned(path) + 0.3 and not left_over("ann"), (burned(path), attempt, left_over("ann"))
    return f"{cpu(attempt):.3f} s of {burned(path):.3f} s, {attempt['reason']}"


def a_suspended_job_goes_on():
    """Its meter stands still with it, longer than it is trusted; a lease lasts 30 s."""
    path = pathlib.Path("/tmp/suspended")
    number = batch("#!/bin/sh\nburn 3 /tmp/suspended\n")
    wait_until(20, "it burns", lambda: burned(path) > 0.5)
    for _ in range(2):
        call("scontrol", "suspend", number)
        wait_until(20, "it is suspended", lambda: state_of(number) == "SUSPENDED")
        wait_until(20, "it stands still", lambda: (before := path.read_text()) and (let_pass(1) or path.read_text() == before))
        call("scontrol", "resume", number)
        let_pass(0.5)
    now = over(number)
    assert (now["JobState"], now["ExitCode"]) == ("COMPLETED", "0:0"), (now, said(number))
    (attempt,) = settled(number)["attempts"]
    assert 3 <= cpu(attempt) < 3.3 and attempt["reason"] == "completed", attempt
    return f"{cpu(attempt):.3f} s of 3 s"


def a_requeued_job_is_the_same_job():
    again = pathlib.Path("/tmp/again")
    number = batch("#!/bin/sh\n[ -e /tmp/again ] || burn 600 /tmp/again\nburn 0.3\n", "--requeue")
    wait_until(20, "it burns", lambda: burned(again) > 1)
    call("scontrol", "requeue", number)
    assert over(number)["JobState"] == "COMPLETED", said(number)
    found = settled(number)
    assert len(found["attempts"]) == 2 and cpu(found["attempts"][0]) >= burned(again) - 0.01 and is_about(0.3, cpu(found["attempts"][1])), found


def the_books_are_right():
    told = ledger("ledger", "verify").strip()
    assert told.endswith("the books are right"), told
    return told


SCENES = (a_batch_script_is_metered_without_a_word, an_srun_has_to_say_it, a_job_that_a_job_submits_is_metered, tasks_and_arrays_are_one_job_each, the_user_decides_nothing,
          exhausted_credits_are_failed_with_75, a_cancelled_job_is_charged_to_its_end, a_suspended_job_goes_on, a_requeued_job_is_the_same_job, the_books_are_right)


def run():
    for name in ("prolog", "epilog"):
        shutil.copy(DEPLOY / "slurm/lua" / name, f"/etc/slurm/{name}")
    shutil.copy(DEPLOY / "slurm/lua/job_submit.lua", "/etc/slurm/job_submit.lua")
    pathlib.Path("/etc/slurm/plugstack.conf").write_text("")
    pathlib.Path("/etc/jobmeter/config.toml").write_text(
        f'enforced = true\nledger = "{LEDGER}"\nkey_file = "/etc/jobmeter/keys/{{user}}"\nspool_dir = "/var/spool/jobmeter/{{user}}"\n[run]\nquiet = true\n')
    start_slurm(JobSubmitPlugins="lua", Prolog="/etc/slurm/prolog")
    return run_scenes("lua", SCENES, print_logs=print_logs)


if __name__ == "__main__":
    main(HERE, run)
