"""What the plugin charges, and how it ends what has no credits left."""

import json
import os
import pathlib
import re

from bed import HERE, batch, call, cpu, ledger, left_over, over, said, settled, shown, state_of
from harness import let_pass, wait_until

# Of what the kernel charged. A program's last microseconds, and its loading, are the meter's alone.
ERROR_MAX = 0.005
LOADING_S = 0.004


def build_burner():
    call("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", "/usr/bin/burner", HERE / "burner.c")


def is_exact(truth, metered):
    return truth - 0.0005 <= metered <= truth * (1 + ERROR_MAX) + LOADING_S


def each_task_is_charged_what_it_burned():
    """By steps of one to four tasks, each in another way; the step's figure is their sum."""
    build_burner()
    told = []
    for count, way in ((1, "plain"), (2, "children"), (3, "orphan"), (4, "threads")):
        done = call("srun", f"-n{count}", "--label", f"--job-name={way}", "burner", "0.8", way, user="ann")
        truths = dict(re.findall(r"(\d+): ([\d.]+)", done.stdout))
        number = newest(way)
        found = settled(number)
        metered = {attempt["identity"]["task"]: cpu(attempt) for attempt in found["attempts"]}
        assert sorted(metered) == sorted(truths) and len(found["attempts"]) == count, (metered, truths)
        assert all(is_exact(float(truths[task]), metered[task]) for task in truths), (way, truths, metered)
        tamper = {attempt["receipt"]["outcome"]["tamper"] for attempt in found["attempts"]}
        assert tamper == {"none"}, found
        told.append("{} {:+.2f} %".format(way, max(100 * (metered[task] / float(truths[task]) - 1) for task in truths)))
    return ", ".join(told)


def newest(name):
    rows = call("scontrol", "--oneliner", "show", "jobs").stdout.splitlines()
    return max(int(re.match(r"JobId=(\d+)", row).group(1)) for row in rows if f"JobName={name} " in row)


def credits(user, amount):
    ledger("--user", user, "account", "limit", f"{amount:.6f}")


def charged_to(user):
    return float(json.loads(ledger("--user", user, "--json", "status"))["current"])


def more(user, amount):
    """So much more than was charged today; what that is then."""
    total = charged_to(user) + amount
    credits(user, total)
    return total


def at_zero_every_way_ends_with_75():
    amount = 0.001 * os.cpu_count()
    more("poor", amount)
    done = call("srun", "-n2", "--job-name=zero", "burn", "600", user="poor", check=False)
    assert done.returncode == 75 and "credits" in done.stderr, done
    found = settled(newest("zero"))
    charged = float(found["charged"]["total"])
    assert 0.8 * amount < charged <= amount, (charged, amount)
    for line in (["srun", "touch", "/tmp/ran"], ["salloc", "-n1", "srun", "touch", "/tmp/ran"]):
        refused = call(*line, user="poor", check=False)
        assert refused.returncode == 75 and "credits" in refused.stderr, refused
    number = batch("#!/bin/sh\ntouch /tmp/ran\n", user="poor")
    array = batch("#!/bin/sh\ntouch /tmp/ran\n", "--array=0-1", user="poor")
    now = over(number)
    wait_until(40, "the array ends", lambda: not call("squeue", "-h", "-j", array, check=False).stdout)
    assert (now["JobState"], now["ExitCode"]) == ("FAILED", "75:0"), now
    assert {shown(f"{array}_{task}")["ExitCode"] for task in range(2)} == {"75:0"}
    assert "credits" in said(number) and not os.path.exists("/tmp/ran") and not left_over("poor"), left_over("poor")
    return f"{charged:.6f} of {amount} credits"


def a_job_may_choose_and_not_more():
    """By options of srun and sbatch, and by variables: what they are stands in `srun --help`."""
    help = call("srun", "--help", user="ann").stdout
    assert all(f"--jobmeter-{name}" in help for name in ("limit", "kind", "name", "label", "notice", "grace")), help
    done = call("srun", "--jobmeter-limit=0.0002", "--jobmeter-kind=generation", "--jobmeter-name=mine", "--jobmeter-label=team=blue", "--job-name=chosen", "burn", "60", user="ann", check=False)
    found = settled(newest("chosen"))
    (attempt,) = found["attempts"]
    assert done.returncode == 75 and (found["kind"], found["name"], attempt["identity"]["labels"]) == ("generation", "mine", {"team": "blue"}), (done, found)
    assert float(found["charged"]["total"]) <= 0.0002 and attempt["reason"] == "job_limit", found
    number = batch("#!/bin/sh\ntrue\n", "--jobmeter-name=of-batch", JOBMETER_KIND="python-session", JOBMETER_NAME="of-variable")
    over(number)
    found = settled(number)
    assert (found["name"], found["kind"]) == ("of-batch", "python-session"), found
    for option in ("--jobmeter-limit=none", "--jobmeter-kind=nothing", "--jobmeter-limit=-1", "--jobmeter-label=plain"):
        wrong = call("srun", option, "touch", "/tmp/ran", user="ann", check=False)
        assert wrong.returncode == 125 and "jobmeter: error" in wrong.stderr and not os.path.exists("/tmp/ran"), wrong
    strange = batch("#!/bin/sh\ntrue\n", "--job-name=a\u202eb" + "x" * 300)
    assert over(strange)["ExitCode"] == "0:0", said(strange)


def slurm_keeps_what_a_job_cost():
    """In the AdminComment, which its user cannot write."""
    plugstack = pathlib.Path("/etc/slurm/plugstack.conf")
    plain = plugstack.read_text()
    plugstack.write_text(plain.strip() + " comment=/usr/libexec/jobmeter/write-comment\n")
    number = batch("#!/bin/sh\nsrun -n2 burn 0.3\n", "-n2")
    over(number)
    plugstack.write_text(plain)
    found = settled(number)
    row = call("scontrol", "--oneliner", "show", "job", number).stdout
    comment = re.search(r"AdminComment=(.*?) [A-Z]\w+=", row).group(1)
    charged = float(re.match(r"jobmeter: ([\d.]+) credits, ", comment).group(1))
    assert abs(charged / float(found["charged"]["total"]) - 1) < 0.001 and "ended" in comment, (comment, found["charged"])
    assert call("scontrol", "update", f"JobId={number}", "AdminComment=free", user="ann", check=False).returncode != 0
    return comment


def a_job_finds_its_meter():
    done = call("srun", "sh", "-c", "echo $JOBMETER_JOB $SLURM_JOB_ID; python3 -c \"import os,socket; s=socket.socket(socket.AF_UNIX); s.connect(os.environ['JOBMETER_SOCKET']); s.send(b'left\\n'); print(s.recv(1000).decode())\"", user="ann")
    ids, answer = done.stdout.splitlines()[:2]
    assert len(set(ids.split())) == 1 and '"left"' in answer, done
    return answer


def what_is_suspended_is_not_charged_and_gives_back():
    """Its meter stays awake: it lets others have what it holds, and goes on when it is continued."""
    progress = pathlib.Path("/tmp/progress")
    progress.unlink(missing_ok=True)
    most = more("bob", 0.01)
    number = batch("#!/bin/sh\nburn 600 /tmp/progress\n", user="bob")
    wait_until(20, "it burns", lambda: progress.exists() and float(progress.read_text() or 0) > 1)
    call("scontrol", "suspend", number)
    wait_until(20, "it is suspended", lambda: state_of(number) == "SUSPENDED")
    wait_until(20, "it stands still", lambda: still(progress))
    before = float(progress.read_text())
    # Most of what is left: it is not to be had while the suspended job holds its share.
    free = 0.01 - before * 0.00025
    done = call("srun", "--job-name=other", "burn", f"{free / 0.00025 * 0.9:.3f}", user="bob", check=False, limit_s=120)
    assert done.returncode == 0, done
    call("scontrol", "resume", number)
    now = over(number)
    found = settled(number)
    truth, metered = float(progress.read_text()), cpu(found["attempts"][0])
    assert (now["JobState"], now["ExitCode"]) == ("FAILED", "75:0") and truth <= metered < truth + 0.2, (now, truth, metered)
    assert charged_to("bob") <= most, (charged_to("bob"), most)
    return f"{metered:.3f} s, {float(settled(newest('other'))['charged']['total']):.6f} credits by the other one meanwhile"


def still(progress):
    before = progress.read_text()
    let_pass(0.3)
    return progress.read_text() == before


METERING = (each_task_is_charged_what_it_burned, at_zero_every_way_ends_with_75, a_job_may_choose_and_not_more, slurm_keeps_what_a_job_cost, a_job_finds_its_meter, what_is_suspended_is_not_charged_and_gives_back)
