#!/usr/bin/env python3
"""A job's user against the plugin that meters her: tests/slurm/attacks.py JOBMETER [WAY] [NAME...]. She wants free time, somebody else to pay,
or harm to others. As root; needs what spank.py needs. What she tries from within a task is in enemy.py.

Known ways out, which no plugin closes and which are not tried: ssh to the node, cron and at, a user's service manager (systemd-run --user),
a service of another user's, programs on the machine where jobs are submitted (salloc's own command, srun --prolog). Who has a key of the ledger's
for his own account can run jobs by hand under ids that Slurm gives out later, whose jobs are refused then (issue 24)."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

import trackers
from attacking import BECOME_ANN, CREDITS_PER_SECOND, ERROR_MAX, PROGRESS, burned_by_those, enemy, is_charged, program, progress, seconds, srun, tries
from bed import DEPLOY, HERE as BED, LEDGER, batch, become, call, cpu, inside, job, ledger, left_over, meters, node_state, outside, over, print_logs, said, settled, shown, state_of
from metering import build_burner, charged_to, more, newest
from moments import cancel_at_each_moment, kill_srun_at_each_moment, left_groups, signal_fronts_while_they_start
from harness import run_scenes, wait_until

IN_A_TASK = [tries(what) for what in (
    "signal_the_meters", "trace_what_is_jobmeters", "starve_the_meters", "leave_the_groups", "leave_the_groups_as_root_of_a_namespace",
    "stop_everybody", "look_at_descriptors", "read_secrets", "flood_the_socket")]


def is_ended_and_charged(what):
    """It burns until somebody ends it. By sbatch: an srun is a process of hers too, and what it has allocated stays when it is killed."""
    def attack():
        PROGRESS.unlink(missing_ok=True)
        number = batch(f"#!/bin/sh\npython3 -m enemy {what}\n", f"--job-name={what}")
        now = over(number)
        assert "succeeded" not in said(number), said(number)
        return is_charged(burned_by_those(PROGRESS), seconds(what)) + f", {now['JobState']} {now['ExitCode']}"
    attack.__name__ = what
    return attack


def is_ended_at_its_limit(what):
    def attack():
        limit = 0.002
        done = enemy(what, f"--jobmeter-limit={limit}")
        charged = seconds(what) * CREDITS_PER_SECOND
        assert done.returncode == 75 and 0.5 * limit < charged <= limit, (done, charged)
        is_charged(burned_by_those(PROGRESS), seconds(what))
        return f"{charged:.6f} of {limit} credits"
    attack.__name__ = f"{what}_at_zero"
    return attack


def end_with_a_daemon():
    """Processes that have left group, session and parent, and outlive the command."""
    paths = [pathlib.Path(f"{PROGRESS}.{name}") for name in ("one", "two")]
    enemy("end_with_a_daemon")
    return is_charged(burned_by_those(*paths), seconds("end_with_a_daemon"))


def burn_as_another_user_by_a_set_uid_program():
    shutil.copy("/usr/bin/burner", "/usr/bin/set-uid-burner")
    os.chmod("/usr/bin/set-uid-burner", 0o4755)
    done = srun("--jobmeter-limit=0.0005", "set-uid-burner", "600", name="set-uid")
    charged = seconds("set-uid") * CREDITS_PER_SECOND
    assert done.returncode == 75 and charged <= 0.0005, (done, charged)
    wait_until(10, "it has ended", lambda: not call("pgrep", "-f", "^set-uid-burner", check=False).stdout)


def burn_within_namespaces():
    done = srun("unshare", "-Urpfm", "--mount-proc", "burner", "0.8", "orphan", name="namespaces")
    return is_charged(float(done.stdout or 0), seconds("namespaces"))


def take_sockets_of_others():
    of_bob = subprocess.Popen([*become("bob"), "srun", "sh", "-c", "echo $JOBMETER_SOCKET > /tmp/bob.socket; cat"], cwd="/tmp", stdin=subprocess.PIPE)
    wait_until(20, "bob's task runs", lambda: os.path.exists("/tmp/bob.socket"))
    try:
        return tries("take_sockets_of_others")()
    finally:
        of_bob.communicate()
        assert of_bob.returncode == 0


def burn_in_a_task_prolog():
    path = program("prolog", "burn 0.5 /tmp/enemy.progress > /dev/null\n(setsid burn 600 /tmp/enemy.progress.two >/dev/null 2>&1 &)\n")
    srun(f"--task-prolog={path}", "sleep", "0.5", name="prolog")
    return is_charged(burned_by_those(PROGRESS, pathlib.Path(f"{PROGRESS}.two")), seconds("prolog"))


def burn_in_a_task_epilog():
    """Slurm starts it as the user when the task has ended, and gives it 5 s."""
    path = program("epilog", "(setsid burn 3 /tmp/enemy.progress.two >/dev/null 2>&1 &)\nburn 1 /tmp/enemy.progress\n")
    srun(f"--task-epilog={path}", "true", name="epilog")
    return is_charged(burned_by_those(PROGRESS, pathlib.Path(f"{PROGRESS}.two")), seconds("epilog"))


def burn_while_slurm_asks_for_the_users_environment():
    """slurmd becomes the user by `su -`, whose profile is the user's."""
    program("nothing", "")
    pathlib.Path("/tmp/.profile").write_text("(setsid burn 3 /tmp/enemy.progress.two >/dev/null 2>&1 &)\nburn 1 /tmp/enemy.progress\n")
    try:
        path = pathlib.Path("/tmp/environment.batch")
        path.write_text("#!/bin/sh\ntrue\n")
        done = call("sbatch", "--parsable", "--output=/tmp/%j.out", "--get-user-env", "--job-name=environment", path, user="ann", check=False)
        if done.returncode != 0:
            assert "get-user-env" in done.stderr, done
            return "refused by job_submit.lua"
        over(done.stdout.strip())
    finally:
        os.unlink("/tmp/.profile")
    return is_charged(burned_by_those(PROGRESS, pathlib.Path(f"{PROGRESS}.two")), seconds("environment"))


def take_over_a_front():
    """Before it has forbidden to be traced."""
    call("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "/usr/bin/takeover", BED / "takeover.c")
    program("nothing", "")
    taking = subprocess.Popen([*BECOME_ANN, "srun", "--job-name=taking", "takeover", "10", "/usr/bin/burn", "1", "/tmp/enemy.progress"], cwd="/tmp", stdout=subprocess.PIPE, text=True)
    charged = 0
    while taking.poll() is None:
        srun("sleep", "0.5", name="taken")
        charged += seconds("taken")
    told = taking.communicate()[0].strip()
    assert "not taken" in told, f"{told}; it burned {progress():.3f} s; {charged:.3f} s were charged for these jobs"
    return told


# srun sends the limits that it has itself, and needs more to run: one of her own may say what it likes.
LIMITS_OF_HER_OWN = """
#include <stdlib.h>
#include <sys/resource.h>
int own(int which, struct rlimit *limit)
{
	int wanted = atoi(getenv("WHICH"));
	int known = prlimit(0, which, NULL, limit);
	if (which == wanted)
		limit->rlim_cur = strtoul(getenv("LIMIT"), NULL, 10);
	return known;
}
int getrlimit(__rlimit_resource_t which, struct rlimit *limit) { return own((int)which, limit); }
int getrlimit64(__rlimit_resource_t which, struct rlimit64 *limit) { return own((int)which, (struct rlimit *)limit); }
"""


def lose_what_a_front_needs():
    """Limits that Slurm hands on to the task: it runs metered, or not at all, and nothing hangs."""
    pathlib.Path("/tmp/limits.c").write_text(LIMITS_OF_HER_OWN)
    call("gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", "/tmp/limits.so", "/tmp/limits.c")
    told = []
    for name, value in (("NOFILE", 0), ("NOFILE", 3), ("NOFILE", 4), ("NOFILE", 8), ("NOFILE", 10), ("NOFILE", 12), ("AS", 1 << 20), ("AS", 8 << 20), ("AS", 64 << 20), ("NPROC", 0), ("NPROC", 1), ("NPROC", 3), ("STACK", 4096), ("STACK", 65536),
                        ("DATA", 0), ("DATA", 1 << 20), ("FSIZE", 0), ("CPU", 1), ("MEMLOCK", 0), ("CORE", 0), ("SIGPENDING", 0)):
        call("rm", "-f", "/tmp/ran")
        wanted = {"LD_PRELOAD": "/tmp/limits.so", "WHICH": str(getattr(resource, f"RLIMIT_{name}", 11)), "LIMIT": str(value)}
        done = srun("--export=NONE", f"--propagate={name}", "/bin/sh", "-c", ": > /tmp/ran; exec /usr/bin/burner 0.2", name="limits", **wanted)
        attempts = (job(newest("limits")) or {"attempts": []})["attempts"]
        if done.stdout:
            is_charged(float(done.stdout), sum(map(cpu, attempts)))
        assert attempts or not os.path.exists("/tmp/ran"), f"{name}={value}: it ran without a meter: {done}"
        told.append(f"{name}={value}: {done.returncode}")
    return ", ".join(told)


def set_every_variable():
    """What Slurm, SPANK and jobmeter are told by variables. The job, its user and its GPUs are Slurm's to say."""
    hostile = {"LD_PRELOAD": "/tmp/own.so", "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "SSL_CERT_FILE": "/tmp/none", "JOBMETER_LEDGER": "/tmp/own.db",
               "JOBMETER_USER": "bob", "JOBMETER_KEY": "x", "JOBMETER_ATTEMPT": "1", "JOBMETER_JOB": "1", "JOBMETER_SPOOL": "/tmp", "JOBMETER_CONFIG": "/tmp/none", "SLURM_JOB_ID": "1", "SLURM_JOBID": "1",
               "SLURM_PROCID": "-1", "SLURM_NTASKS": "0", "SLURM_JOB_UID": "0", "SLURM_SPANK_JOBMETER": "1", "SPANK_JOBMETER_LIMIT": "1", "_SLURM_SPANK_OPTION_jobmeter_limit": "-1", "XDG_RUNTIME_DIR": "/tmp"}
    exported = ",".join(f"{name}={value}" for name, value in hostile.items())
    line = ["--jobmeter-limit=1", f"--export=ALL,{exported}", "burner", "0.3"]
    done = call("srun", "--job-name=variables", *line, user="ann", check=False)
    assert not os.path.exists("/tmp/own.db") and settled(newest("variables"))["user"] == "ann", done
    bare = srun("--export=NONE", "/usr/bin/burner", "0.3", name="bare")
    is_charged(float(bare.stdout), seconds("bare"))
    return is_charged(float(done.stdout), seconds("variables"))


def be_charged_as_another_job():
    """Whoever names a job of the future refuses it to whom Slurm gives it."""
    number = newest_of_all() + 2
    srun("true", name="squat", SLURM_ARRAY_JOB_ID=str(number), SLURM_ARRAY_TASK_ID="1")
    found = job(number)
    assert not found, f"Slurm has not given out job {number} yet, and the ledger has it: {found['user']}'s"


def newest_of_all():
    return max(int(number) for number in re.findall(r"JobId=(\d+)", call("scontrol", "--oneliner", "show", "jobs").stdout))


def name_other_gpus():
    """The meter is told of the GPUs that Slurm has given, and of no others."""
    done = srun("python3", "-c", "import enemy; print([open(f'/proc/{pid}/cmdline').read().split(chr(0)) for pid in enemy.meters()])", name="gpus", SLURM_STEP_GPUS="7", SLURM_JOB_GPUS="6")
    assert "--gpus" not in done.stdout, f"a job without GPUs, and its meter is told {re.findall(r'--gpus=[^,]*', done.stdout)}"


def start_tasks_in_every_way():
    """Also with a plugin stack of her own, which loads nothing."""
    pathlib.Path("/tmp/own").mkdir(exist_ok=True)
    shutil.chown("/tmp/own", "ann")
    for path in ("slurm.conf", "cgroup.conf"):
        shutil.copy(f"/etc/slurm/{path}", "/tmp/own")
    pathlib.Path("/tmp/own/plugstack.conf").write_text("")
    pathlib.Path("/tmp/programs").write_text("0-1 burner 0.2\n")
    ways = {"own-stack": ([], ["burner", "0.2"], {"SLURM_CONF": "/tmp/own/slurm.conf"}), "programs": (["-n2", "--multi-prog"], ["/tmp/programs"], {}), "bcast": (["--bcast=/tmp/burner"], ["/usr/bin/burner", "0.2"], {}),
            "none": (["--mpi=none"], ["burner", "0.2"], {}), "pmi2": (["--mpi=pmi2", "-n2"], ["burner", "0.2"], {}), "own-command": (["--input=none", "--output=/tmp/own/%t.out", "--export=NONE", "--chdir=/"], ["/usr/bin/burner", "0.2"], {})}
    for name, (options, command, environment) in ways.items():
        done = srun(*options, *command, name=name, **environment)
        assert done.returncode == 0, done
        told = done.stdout or pathlib.Path("/tmp/own/0.out").read_text()
        is_charged(sum(map(float, told.split())), seconds(name))
    number = batch("#!/bin/sh\nsrun --overlap burner 0.2\nsrun --overlap -n2 burner 0.2\nsrun --exact burner 0.2\nsh -c 'exec burner 0.2'\n", "-n4", "--job-name=steps")
    wait_until(20, "it runs", lambda: state_of(number) == "RUNNING")
    beside = srun(f"--jobid={number}", "--overlap", "burner", "0.2", name="beside")
    over(number)
    return is_charged(sum(map(float, (said(number) + beside.stdout).split())), sum(cpu(attempt) for attempt in settled(number)["attempts"]))


def say_more_than_fits():
    """Words, variables and names that are long, many, or not for a terminal: it is metered, or not run."""
    call("rm", "-f", "/tmp/ran")
    strange = "a\n\x1b[31mb=\t\x07;$(touch /tmp/ran)`touch /tmp/ran`"
    told = []
    lines = {"word": ["x" * 131000], "words": ["y"] * 6000, "names": [strange], "options": ["--limit=1", "--", "--as=bob", "--job=1"], "none": [""]}
    for name, words in lines.items():
        done = srun("python3", "-c", "import os\nwhile os.times()[0] < .2: pass\nprint(sum(os.times()[:4]))", *words, name=name)
        told.append(f"{name}: {done.returncode}")
        if done.returncode == 0:
            is_charged(float(done.stdout), seconds(name))
    for option in (f"--jobmeter-name={strange}", f"--jobmeter-label={strange}", "--jobmeter-label=a=b --as=bob", "--jobmeter-limit=1 --as=bob", "--jobmeter-name=" + "n" * 5000, "--jobmeter-kind=training\n--as=bob", "--jobmeter-grace=-1", "--jobmeter-notice=KILL@0s", "--jobmeter-grace=99999999999"):
        done = srun(option, "true", name="option")
        assert "\x1b" not in done.stderr and done.returncode in (0, 125), done
        told.append(str(done.returncode))
    assert srun("true", name="big", BIG="z" * 100000).returncode == 0
    srun("true", name=f"odd {strange}")
    assert "\x1b" not in ledger("jobs", "list", "--all") and not os.path.exists("/tmp/ran")
    return ", ".join(told)


def start_many_at_once():
    """64 tasks of one step, and an array of 20."""
    done = srun("-n64", "--overcommit", "--label", "burner", "0.05", name="sixty-four", limit_s=300)
    truth = sum(map(float, re.findall(r": ([\d.]+)", done.stdout)))
    assert len(done.stdout.splitlines()) == 64, done
    told = is_charged(truth, seconds("sixty-four"))
    array = batch("#!/bin/sh\nexec burner 0.05\n", "--array=1-20", "--job-name=twenty")
    wait_until(60, "the array ends", lambda: not call("squeue", "-h", "-j", array, check=False).stdout)
    outputs = [float(said(shown(f"{array}_{element}")["JobId"])) for element in range(1, 21)]
    return told + "; " + is_charged(sum(outputs), sum(cpu(attempt) for attempt in settled(array)["attempts"]))


def spend_the_same_credits_at_once():
    """Ten steps side by side with credits for one."""
    amount, paths = 0.002, [pathlib.Path(f"{PROGRESS}.{step}") for step in range(10)]
    program("nothing", "")
    before = charged_to("poor")
    more("poor", amount)
    as_poor = become("poor")
    steps = [subprocess.Popen([*as_poor, "srun", "--overcommit", "--job-name=same", "burn", "600", path], cwd="/tmp", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for path in paths]
    statuses = wait_until(60, "all have ended", lambda: None not in (found := [step.poll() for step in steps]) and found)
    truth = sum(map(progress, paths)) * CREDITS_PER_SECOND
    with contextlib.suppress(AssertionError):
        wait_until(2, "all is charged", lambda: charged_to("poor") - before >= truth)
    assert truth * (1 - ERROR_MAX) <= charged_to("poor") - before <= amount + 1e-9 and truth <= amount and set(statuses) == {75}, (charged_to("poor") - before, truth, statuses)
    return f"{truth:.6f} of {amount} credits burned"


def change_a_running_job():
    PROGRESS.unlink(missing_ok=True)
    number = batch("#!/bin/sh\nburn 2 /tmp/enemy.progress\n", "--job-name=changed", "--requeue")
    wait_until(20, "it burns", lambda: progress() > 0.2)
    for change in ("UserId=bob", "JobName=other", "Account=bob", "ArrayTaskId=1", "Comment=jobmeter", "AdminComment=free", "GroupId=bob", "TimeLimit=1", "Name=x"):
        call("scontrol", "update", f"JobId={number}", change, user="ann", check=False)
    call("scontrol", "suspend", number, user="ann", check=False)
    over(number)
    found = settled(number)
    assert found["user"] == "ann"
    return is_charged(progress(), sum(cpu(attempt) for attempt in found["attempts"]))


def be_somebody_else():
    for line in (["srun", "--uid=bob"], ["srun", "--gid=bob"], ["unshare", "-Ur", "srun"], ["unshare", "-Ur", "srun", "--uid=1002"]):
        done = call(*line, "id", "-u", user="ann", check=False, SLURM_JOB_UID="1002", USER="bob", LOGNAME="bob", SLURM_JOB_USER="bob")
        assert not done.stdout or done.stdout.strip() == call("id", "-u", "ann").stdout.strip(), done
    done = call("sbatch", "--uid=bob", "--wrap=true", user="ann", check=False)
    assert done.returncode != 0, done
    for line in (["jobmeter", "slurm", "task", "--channel=3", "--pid=1", "--uid=1002", "--job=1", "--tasks=1", "--", "x"], ["jobmeter", "slurm", "flush"]):
        assert srun(*line, name="itself").returncode != 0 and srun("unshare", "-Ur", *line, name="itself").returncode != 0


def ask_the_ledger_with_her_own_key():
    """The attempt of a running task of hers: its meter's figures, its end, its lease."""
    attempt = srun("sh", "-c", "echo $JOBMETER_ATTEMPT; burner 0.5", name="asked").stdout.split()
    own = {"JOBMETER_LEDGER": LEDGER, "JOBMETER_KEY": "/etc/jobmeter/keys/ann"}
    number = newest("asked")
    for line in (["account", "limit", "1000"], ["jobs", "correct", number, "--credits=-1"], ["jobs", "end", number], ["key", "create", "x", "--to", "/tmp/own-key"], ["rates", "set", "cpu", "0"], ["--user", "bob", "status"], ["ledger", "verify"]):
        done = call("jobmeter", *line, user="ann", check=False, **own)
        assert done.returncode != 0, done
    return is_charged(float(attempt[1]), seconds("asked"))


ATTACKS = (*IN_A_TASK, is_ended_and_charged("kill_everybody"), is_ended_and_charged("kill_the_front"), is_ended_at_its_limit("stop_the_front"), is_ended_at_its_limit("bomb"), end_with_a_daemon,
           burn_as_another_user_by_a_set_uid_program, burn_within_namespaces, take_sockets_of_others, burn_in_a_task_prolog, burn_in_a_task_epilog, burn_while_slurm_asks_for_the_users_environment, take_over_a_front,
           lose_what_a_front_needs, set_every_variable, be_charged_as_another_job, name_other_gpus, start_tasks_in_every_way, say_more_than_fits, start_many_at_once,
           spend_the_same_credits_at_once, change_a_running_job, be_somebody_else, ask_the_ledger_with_her_own_key, cancel_at_each_moment, kill_srun_at_each_moment, signal_fronts_while_they_start)
TRIED, SUCCEEDED = [], []


def no_harm_is_done(charged_to_bob):
    """Nothing of hers or of her meters is left, the node is as it was, and nobody else has paid."""
    wait_until(10, "no job is left", lambda: not call("squeue", "-h", check=False).stdout)
    wait_until(10, "no meter is left", lambda: not meters())
    wait_until(2, f"no process of hers is left: {left_over('ann')}", lambda: not left_over("ann"))
    wait_until(2, "no group is left", lambda: not left_groups())
    wait_until(10, f"the node is idle, not {node_state()}", lambda: node_state() == "idle")
    assert abs(charged_to("bob") - charged_to_bob) < 0.0001, (charged_to("bob"), charged_to_bob)


def clear_away():
    """What a success has left, lest the next attack is blamed for it. Nothing but this test runs in here."""
    for user in ("ann", "bob"):
        call("scancel", f"--user={user}", check=False)
    call("pkill", "-KILL", "-u", "ann", check=False)


def scene_of(attack):
    def scene():
        charged_to_bob = charged_to("bob")
        TRIED.append(attack.__name__)
        try:
            told = attack()
            no_harm_is_done(charged_to_bob)
            return told
        except BaseException:
            SUCCEEDED.append(attack.__name__)
            clear_away()
            raise
    scene.__name__ = attack.__name__
    return scene


def none_has_succeeded():
    assert not SUCCEEDED, f"{len(TRIED)} tried, {len(SUCCEEDED)} succeeded: {', '.join(SUCCEEDED)}"
    return f"{len(TRIED)} tried, 0 succeeded"


def run(way, *wanted):
    plugin = trackers.PLUGSTACK.read_text()
    shutil.copy(DEPLOY / "slurm/job_submit.lua", "/etc/slurm/job_submit.lua")
    trackers.start(way, JobSubmitPlugins="lua")
    trackers.PLUGSTACK.write_text(plugin)
    shutil.copy(BED / "enemy.py", "/usr/lib/python3/dist-packages")
    build_burner()
    ledger("--user", "ann", "account", "limit", "1000")
    scenes = [scene_of(attack) for attack in ATTACKS if not wanted or attack.__name__ in wanted]
    return run_scenes(way, (*scenes, trackers.the_node_is_well, trackers.the_books_are_right, none_has_succeeded), print_logs=print_logs)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(pathlib.Path(sys.argv[2]), sys.argv[3], lambda: run(*sys.argv[4:])))
    binary, *names = sys.argv[1:]
    ways = [name for name in names if name in trackers.WAYS] or ["linuxproc"]
    wanted = [name for name in names if name not in trackers.WAYS]
    sys.exit(max(outside(HERE, pathlib.Path(binary).resolve(), way, *wanted, namespaces=["--cgroup"] if way == "cgroup2" else []) for way in ways))
