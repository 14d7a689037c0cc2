#!/usr/bin/env python3
"""jobmeter under a real Slurm on this machine, and under cron, GNU parallel and what Airflow's BashOperator does:
tests/slurm/run.py JOBMETER. As root; needs slurm-wlm, munge, parallel and cron of Debian. All of it lives in a directory and on
ports of its own."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import LedgerService, Processes, free_port, plain_environment, run_scenes, wait_until

JOBMETER = pathlib.Path(sys.argv[1]).resolve()
DEPLOY = HERE.parent.parent / "deploy"
# Of this run alone, so that whatever runs under it may be ended. Its number, too: what Debian gives next, 1000, is also the user of
# containers that another stage runs meanwhile.
USER, UID = f"jobmeter-slurm-{os.getpid()}", 100_000 + os.getpid()
PLAIN = plain_environment()
SPIN = "#!/bin/sh\nexec python3 -c 'import time\nuntil = time.process_time() + '$1'\nwhile time.process_time() < until: pass'\n"


class Cluster:
    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-slurm-", dir="/var/tmp"))
        self.directory.chmod(0o755)
        self.service = None
        subprocess.run(["useradd", "--uid", str(UID), "--user-group", "--create-home", "--no-log-init", "--shell", "/bin/sh", USER], check=True, capture_output=True)
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        shutil.copy(JOBMETER, self.bin / "jobmeter")
        (self.bin / "spin").write_text(SPIN)
        (self.bin / "spin").chmod(0o755)
        self.path = f"{self.bin}:{os.environ['PATH']}"
        self.processes = Processes(self.directory, plain_environment(PATH=self.path))

    def start(self, *line):
        return self.processes.start(*line)

    def serve(self):
        folder = self.directory / "ledger"
        folder.mkdir(mode=0o755)
        self.service = LedgerService(JOBMETER, folder)
        key = self.service.key("node", "key", "create", "node")
        key.chmod(0o644)
        self.config = self.directory / "config.toml"
        self.config.write_text(f'ledger = "{self.service.url}"\nkey_file = "{key}"\n')
        self.ledger("--user", USER, "account", "limit", "1")

    def ledger(self, *arguments):
        return self.service.call(*arguments).stdout

    def job(self, name):
        return self.service.job(name)

    def slurm(self):
        munge = self.directory / "munge"
        munge.mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        sock = munge / "socket"
        self.start("munged", "--foreground", "--force", f"--socket={sock}", f"--key-file={key}", f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")
        wait_until(20, "munge answers", sock.exists)
        host = socket.gethostname().split(".")[0]
        self.conf = self.directory / "slurm.conf"
        self.conf.write_text(
            f"""ClusterName=jobmeter
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={sock},cred_expire=10
CredType=cred/munge
StateSaveLocation={self.directory}/state
SlurmdSpoolDir={self.directory}/slurmd
SlurmctldPidFile={self.directory}/slurmctld.pid
SlurmdPidFile={self.directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
JobSubmitPlugins=lua
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=5
MinJobAge=600
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
""")
        shutil.copy(DEPLOY / "slurm/job_submit.lua", self.directory / "job_submit.lua")
        (self.directory / "slurmd").mkdir(mode=0o755)
        self.start("slurmctld", "-D", "-f", self.conf)
        self.start("slurmd", "-D", "-f", self.conf)
        wait_until(30, "the node is idle", lambda: "idle" in self.call("sinfo", "-h", "-o", "%T", check=False).stdout)

    def call(self, *line, check=True, **environment):
        env = dict(PLAIN, SLURM_CONF=str(self.conf), PATH=self.path, JOBMETER_CONFIG=str(self.config), HOME=f"/home/{USER}", USER=USER, LOGNAME=USER, **environment)
        done = subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *map(str, line)], env=env,
                              cwd=f"/home/{USER}", capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert not check or done.returncode == 0, (line, done.returncode, done.stdout, done.stderr)
        return done

    def batch(self, text, *options):
        path = pathlib.Path(f"/home/{USER}/job.sh")
        path.write_text(text)
        path.chmod(0o755)
        return self.call("sbatch", "--parsable", *options, path).stdout.strip()

    def shown(self, job):
        fields = self.call("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def ended(self, job, seconds=40):
        return wait_until(seconds, f"job {job} ends", lambda: (lambda shown: shown["JobState"] not in ("RUNNING", "PENDING", "COMPLETING", "CONFIGURING") and shown)(self.shown(job)))

    def pids(self):
        """Of all that runs as the test's user."""
        return list(map(int, subprocess.run(["pgrep", "-u", USER], capture_output=True, text=True).stdout.split()))

    def command_lines(self):
        return subprocess.run(["pgrep", "-u", USER, "-a"], capture_output=True, text=True).stdout

    def burned(self, word):
        """CPU seconds of the user's processes that run and have this word in their command line, by the kernel."""
        ticks = 0
        for pid in self.pids():
            try:
                if word in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                    ticks += sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def await_burned(self, seconds):
        """Until jobs that have no end have burned so much together."""
        return wait_until(60, f"a job has burned {seconds} s", lambda: (burned := self.burned("process_time() + 600")) >= seconds and burned)

    def remove(self):
        self.processes.stop_all()
        if self.service:
            self.service.stop()
        # A daemon that ends leaves its jobs to the next one. They are the test's if they work in its directory or as its user.
        for step in subprocess.run(["pgrep", "slurmstepd"], capture_output=True, text=True).stdout.split():
            try:
                if pathlib.Path(f"/proc/{step}/cwd").resolve().is_relative_to(self.directory):
                    os.kill(int(step), signal.SIGKILL)
            except OSError:
                pass
        wait_until(10, f"nothing of {USER} runs any more", self.end_users_processes)
        subprocess.run(["userdel", "--remove", USER], capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def end_users_processes(self):
        left = self.pids()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left


def cpu(attempt):
    return float(attempt["usage"]["cpu_used_seconds"])


def an_srun_is_metered(cluster):
    cluster.call("srun", "--job-name=plain", "jobmeter", "run", "-q", "--job", "plain", "--", "spin", "1")
    (attempt,) = cluster.job("plain")["attempts"]
    assert cluster.job("plain")["user"] == USER and 1.0 <= cpu(attempt) < 1.3, attempt
    refused = cluster.call("srun", "spin", "1", check=False)
    return f"{cpu(attempt):.3f} s by {attempt['receipt']['cpu']['source']}; an unmetered srun is {'refused' if refused.returncode else 'let through by this Slurm'}"


def a_batch_script_is_metered_without_a_word(cluster):
    job = cluster.batch("#!/bin/bash\n#SBATCH --job-name=silent\nspin 1 & spin 1 & wait\n")
    assert cluster.ended(job)["JobState"] == "COMPLETED"
    found = cluster.job(job)
    assert found["user"] == USER and 2.0 <= cpu(found["attempts"][0]) < 2.5, found
    # Any interpreter, with its one argument as it stands.
    job = cluster.batch("#!/usr/bin/python3 -u\nimport os, sys, time\nos.execlp('spin', 'spin', '0.3') if '-u' in sys.orig_argv else 1\n")
    assert cluster.ended(job)["JobState"] == "COMPLETED"
    assert 0.3 <= cpu(cluster.job(job)["attempts"][0]) < 0.6
    job = cluster.batch("#!/usr/bin/env -S sh -c 'spin 0.2; exit 9'\n")
    assert cluster.ended(job)["ExitCode"] == "9:0"
    assert 0.2 <= cpu(cluster.job(job)["attempts"][0]) < 0.5


def a_job_that_a_job_submits_is_metered(cluster):
    """It inherits the environment of the one that is metered, and of an array."""
    job = cluster.batch("#!/bin/sh\nsbatch --parsable --output=/dev/null --wrap 'spin 0.3' > submitted\n", "--array=7")
    wait_until(40, "it ends", lambda: not cluster.call("squeue", "-h", "-j", job, check=False).stdout.strip())
    submitted = pathlib.Path(f"/home/{USER}/submitted").read_text().strip()
    assert cluster.ended(submitted)["JobState"] == "COMPLETED"
    assert 0.3 <= cpu(cluster.job(submitted)["attempts"][0]) < 0.6 and len(cluster.job(job)["attempts"]) == 1, cluster.job(job)


def four_tasks_are_one_job(cluster):
    job = cluster.batch("#!/bin/sh\nsrun --overlap jobmeter run -q -- spin 0.5\n", "--ntasks=4")
    assert cluster.ended(job)["JobState"] == "COMPLETED"
    found = cluster.job(job)
    tasks = sorted({attempt["identity"]["task"] for attempt in found["attempts"]})
    assert tasks == ["0", "1", "2", "3"] and len(found["attempts"]) == 5, (tasks, len(found["attempts"]))
    assert 2.0 <= sum(map(cpu, found["attempts"])) < 3, found


def an_array_is_one_job(cluster):
    job = cluster.batch("#!/bin/sh\nspin 0.3\n", "--array=3-5")
    wait_until(40, "the array ends", lambda: not cluster.call("squeue", "-h", "-j", job, check=False).stdout.strip())
    found = cluster.job(job)
    assert sorted(attempt["identity"]["task"] for attempt in found["attempts"]) == ["3", "4", "5"], found
    assert all(0.3 <= cpu(attempt) < 0.6 for attempt in found["attempts"])


def exhausted_is_failed_with_75(cluster):
    left = json.loads(cluster.ledger("--user", USER, "--json", "status"))["left"]
    cluster.ledger("--user", USER, "account", "adjust", f"{0.003 - left:.9f}", "--why", "a test")
    job = cluster.batch("#!/bin/sh\n(setsid spin 600 &); spin 600\n")
    shown = cluster.ended(job)
    assert (shown["JobState"], shown["ExitCode"]) == ("FAILED", "75:0"), shown
    assert cluster.job(job)["attempts"][0]["reason"] == "credits_exhausted"
    assert "spin" not in cluster.command_lines(), cluster.command_lines()
    again = cluster.batch("#!/bin/sh\nspin 1\n")
    assert cluster.ended(again)["ExitCode"] == "75:0" and cluster.job(again)["attempts"] == []
    cluster.ledger("--user", USER, "account", "grant", "1", "--why", "a test")


def a_cancelled_job_is_charged_to_its_end(cluster):
    job = cluster.batch("#!/bin/sh\nspin 600 & spin 600\n")
    burned = cluster.await_burned(1.5)
    cluster.call("scancel", job)
    assert cluster.ended(job)["JobState"] == "CANCELLED"
    found = wait_until(20, "the books are closed", lambda: (lambda found: found["state"] == "ended" and found)(cluster.job(job)))
    (attempt,) = found["attempts"]
    assert cpu(attempt) >= burned - 0.1, (burned, attempt)
    wait_until(10, "no process is left", lambda: "600" not in cluster.command_lines())
    return f"{cpu(attempt):.3f} s of at least {burned:.2f} s, {attempt['reason']}"


def a_requeued_job_is_the_same_job(cluster):
    job = cluster.batch("#!/bin/sh\nif [ ! -e again ]; then touch again; spin 600; fi; spin 0.5\n", "--requeue")
    burned = cluster.await_burned(1)
    cluster.call("scontrol", "requeue", job)
    assert cluster.ended(job, 180)["JobState"] == "COMPLETED"
    found = cluster.job(job)
    assert len(found["attempts"]) == 2 and cpu(found["attempts"][0]) >= burned - 0.2 and 0.5 <= cpu(found["attempts"][1]) < 1, (burned, found)


def cron_starts_a_job(cluster):
    """As cron does it: a shell, two variables, and nothing else."""
    line = f"{cluster.bin}/jobmeter run --quiet --name nightly --job nightly -- {cluster.bin}/spin 0.2"
    env = {"HOME": f"/home/{USER}", "LOGNAME": USER, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "JOBMETER_CONFIG": str(cluster.config)}
    subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "/bin/sh", "-c", line], env=env, cwd="/", check=True, stdin=subprocess.DEVNULL)
    assert cluster.job("nightly")["user"] == USER and cluster.job("nightly")["name"] == "nightly"


def parallel_makes_tasks(cluster):
    cluster.call("parallel", "--jobs", "2", "jobmeter", "run", "--quiet", "--job", "sweep", "--task", "{#}", "--", "spin", "{}", ":::", "0.1", "0.2", "0.3")
    found = cluster.job("sweep")
    assert sorted(attempt["identity"]["task"] for attempt in found["attempts"]) == ["1", "2", "3"], found


def airflow_runs_it(cluster):
    """What BashOperator does with its bash_command, rendered."""
    cluster.call("bash", "-c", "jobmeter run --job 'scheduled__2026-11-26T00:00:00+00:00' --task 'train' -- spin 0.1")
    found = cluster.job("scheduled__2026-11-26T00:00:00+00:00")
    assert found["attempts"][0]["identity"]["task"] == "train"


def the_books_are_right(cluster):
    return cluster.ledger("ledger", "verify").strip()


SCENES = (an_srun_is_metered, a_batch_script_is_metered_without_a_word, a_job_that_a_job_submits_is_metered, four_tasks_are_one_job,
          an_array_is_one_job, exhausted_is_failed_with_75, a_cancelled_job_is_charged_to_its_end, a_requeued_job_is_the_same_job,
          cron_starts_a_job, parallel_makes_tasks, airflow_runs_it, the_books_are_right)


def main():
    cluster = Cluster()
    try:
        cluster.serve()
        cluster.slurm()
        return run_scenes("slurm", SCENES, cluster, print_logs=cluster.processes.print_logs)
    except BaseException:
        cluster.processes.print_logs()
        raise
    finally:
        cluster.remove()


sys.exit(main())
