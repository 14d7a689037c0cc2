#!/usr/bin/env python3
"""The Debian package under a real systemd: tests/systemd/run.py PACKAGE. As root, where a cgroup v2 group can be made. The
machine of the test is a view of this one, booted in namespaces of its own by bed.sh."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import attacked
from harness import run_scenes, wait_until

PACKAGE = pathlib.Path(sys.argv[1]).resolve()
UNITS = ("jobmeter-ledger.service", "jobmeter@.service", "jobmeter-spool.service", "jobmeter-spool.timer", "jobmeter.slice")
CHILDREN = """
import os, time
for _ in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            until = time.process_time() + 0.01
            while time.process_time() < until: pass
        os._exit(0)
    os.wait()
time.sleep(1.5)
"""


class Machine:
    def __init__(self):
        mount = next(line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2")
        self.group = pathlib.Path(mount) / f"jobmeter-bed-{os.getpid()}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-systemd-", dir="/var/tmp"))
        self.shell = None

    def boot(self):
        self.group.mkdir()
        self.shell = subprocess.Popen([HERE / "bed.sh", self.directory, self.group, PACKAGE], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.init = str(wait_until(60, "systemd runs", lambda: self.find(self.shell.pid)))
        wait_until(60, "systemd is up", lambda: self.call("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"))

    def find(self, pid):
        """systemd, once it is the first process of its namespace: at the end of a line of only children."""
        while pid:
            try:
                if pathlib.Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
                pid = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:1]
                pid = pid and int(pid[0])
            except OSError:
                return None

    def call(self, *command, check=True, env=None):
        enter = ["nsenter", "-t", self.init, "-m", "-p", "-i", "-n", "-u", "-C", "-r", "-w", "--", "env", "-i", f"PATH={os.environ['PATH']}"]
        enter += [f"{name}={value}" for name, value in (env or {}).items()]
        done = subprocess.run(enter + [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done

    def logs(self):
        """What systemd and the units said: not the kernel, which says the most."""
        failed = self.call("systemctl", "list-units", "--failed", "--no-legend", "--plain", check=False).stdout
        own = self.call("journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic", "--unit=jobmeter*", "--unit=init.scope", check=False)
        status = self.call("systemctl", "status", "--no-pager", "--full", "--lines=5", "jobmeter*", check=False).stdout
        return f"== failed units\n{failed}== jobmeter's units\n{status}== their log\n{own.stdout}{own.stderr}"

    def shown(self, unit, *names):
        lines = self.call("systemctl", "show", unit, *[f"--property={name}" for name in names]).stdout.splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return [found[name] for name in names]

    def write(self, path, text, mode=0o644):
        self.put(path, text.encode(), mode)

    def put(self, path, content, mode=0o600):
        subprocess.run(
            ["nsenter", "-t", self.init, "-m", "-r", "--", "sh", "-c", f"umask 077; mkdir -p $(dirname {path}); cat > {path}; chmod {mode:o} {path}"],
            input=content, check=True)

    def power_off(self):
        """As by a pulled plug."""
        if not self.shell:
            return
        (self.group / "cgroup.kill").write_text("1")
        self.shell.wait()
        wait_until(20, "all is dead", lambda: "populated 0" in (self.group / "cgroup.events").read_text())
        for directory, _, _ in os.walk(self.group, topdown=False):
            os.rmdir(directory)

    def remove(self):
        self.power_off()
        shutil.rmtree(self.directory, ignore_errors=True)

    # What follows is about jobmeter.

    def ledger(self, *arguments, check=True):
        env = {"JOBMETER_LEDGER": "http://127.0.0.1:7770", "JOBMETER_KEY": "/var/lib/jobmeter-ledger/admin-key", "HOME": "/root"}
        return self.call("jobmeter", *arguments, check=check, env=env)

    def job(self, name, command, options="", drop_in="", user="ann"):
        if not self.call("test", "-e", f"/etc/jobmeter/jobs/{name}.key", check=False).returncode == 0:
            self.ledger("--user", "ann", "key", "create", name, "--scope", "report", "--only-user", "--to", f"/etc/jobmeter/jobs/{name}.key")
        self.write(f"/etc/jobmeter/jobs/{name}.conf", f"JOBMETER_LEDGER=http://127.0.0.1:7770\nJOBMETER_USER=ann\nRUN_AS={user}\nOPTIONS=--job {name} {options}\nCOMMAND={command}\n")
        if drop_in:
            self.write(f"/etc/systemd/system/jobmeter@{name}.service.d/test.conf", drop_in)
            self.call("systemctl", "daemon-reload")
        self.call("systemctl", "start", f"jobmeter@{name}")

    def of_job(self, name):
        return json.loads(self.ledger("--json", "jobs", "show", name).stdout)["attempts"][-1]

    def started(self, name):
        """The job's attempt, once the ledger knows it."""
        wait_until(30, f"{name} runs", lambda: self.ledger("--json", "jobs", "show", name, check=False).returncode == 0)
        return self.of_job(name)

    def burned(self, name):
        """CPU seconds of the job's unit by its group's own counter, the meter's included."""
        (nanoseconds,) = self.shown(f"jobmeter@{name}", "CPUUsageNSec")
        return int(nanoseconds) / 1e9 if nanoseconds.isdigit() else 0

    def await_burned(self, name, seconds):
        """What it has burned when that is at least so much."""
        return wait_until(60, f"{name} has burned {seconds} s", lambda: (burned := self.burned(name)) >= seconds and burned)

    def ended(self, name, seconds=30):
        return wait_until(seconds, f"{name} ends", lambda: self.shown(f"jobmeter@{name}", "ActiveState")[0] in ("inactive", "failed"))

    def processes(self, name):
        return self.call("sh", "-c", f"cat /sys/fs/cgroup/jobmeter.slice/jobmeter-*/jobmeter@{name}.service/cgroup.procs /sys/fs/cgroup/jobmeter.slice/jobmeter@{name}.service/cgroup.procs 2>/dev/null", check=False).stdout.split()


def units_are_sound(machine):
    told = machine.call("systemd-analyze", "verify", "--man=no", *[f"/usr/lib/systemd/system/{unit}" for unit in UNITS], check=False)
    said = [line for line in told.stderr.splitlines() if "jobmeter" in line and "DelegateSubgroup" not in line]
    assert not said, said
    # Their manual pages are looked for in the package: a minimal system keeps none, and has no man to ask.
    units = "".join(machine.call("cat", f"/usr/lib/systemd/system/{unit}").stdout for unit in UNITS)
    named = {f"{page}.{section}.gz" for page, section in re.findall(r"man:(jobmeter[\w-]*)\((\d)\)", units)}
    contained = subprocess.run(["dpkg-deb", "--contents", PACKAGE], check=True, capture_output=True, text=True).stdout
    lacking = [page for page in named if f"/man1/{page}\n" not in contained]
    assert not lacking, lacking
    table = machine.call("systemd-analyze", "security", "jobmeter-ledger.service").stdout
    exposure = float(re.search(r"Overall exposure level for jobmeter-ledger.service: ([0-9.]+)", table).group(1))
    assert exposure <= 3.0, table
    of_jobs = machine.call("systemd-analyze", "security", "jobmeter@x.service").stdout
    return f"exposure {exposure} (ledger), {re.search(r'level for .*?: ([0-9.]+)', of_jobs).group(1)} (jobs)"


def the_ledger_starts_and_is_watched(machine):
    machine.write("/etc/systemd/system/jobmeter-ledger.service.d/test.conf", "[Service]\nWatchdogSec=2s\n")
    machine.call("systemctl", "daemon-reload")
    machine.call("systemctl", "start", "jobmeter-ledger")
    machine.ledger("status")
    (pid,) = machine.shown("jobmeter-ledger", "MainPID")
    machine.call("kill", "-STOP", pid)
    wait_until(20, "the watchdog starts it again", lambda: machine.shown("jobmeter-ledger", "MainPID", "ActiveState") not in ([pid, "active"], ["0", "active"]) and machine.shown("jobmeter-ledger", "ActiveState") == ["active"])
    assert int(machine.shown("jobmeter-ledger", "NRestarts")[0]) >= 1
    machine.ledger("--user", "ann", "account", "limit", "none")


def a_job_is_metered_exactly(machine):
    machine.write("/usr/local/bin/children", "#!/usr/bin/python3\n" + CHILDREN, 0o755)
    machine.job("exact", "children", drop_in="[Service]\nRemainAfterExit=yes\n")
    wait_until(20, "the job ends", lambda: machine.shown("jobmeter@exact", "SubState") == ["exited"])
    (counted,) = machine.shown("jobmeter@exact", "CPUUsageNSec")
    receipt = machine.of_job("exact")["receipt"]
    metered, own = (float(receipt[part]["cpu_seconds" if part == "meter" else "total_seconds"]) for part in ("cpu", "meter"))
    unit = int(counted) / 1e9
    assert receipt["cpu"]["source"] == "cgroup2" and receipt["outcome"]["degraded"] == [], receipt
    assert 1.0 <= metered <= unit and unit - metered < own + 0.05, (metered, own, unit)
    machine.call("systemctl", "stop", "jobmeter@exact")
    return f"{metered:.3f} s; the unit burned {unit:.3f} s, of which the meter {own:.3f} s"


def exhausted_is_not_tried_again(machine):
    machine.job("short", "sh -c 'while :; do :; done'", "--limit 0.0002", drop_in="[Service]\nRestart=always\nRestartSec=100ms\n")
    machine.ended("short")
    # Five times what systemd waits before it would start it again.
    time.sleep(0.5)
    state = machine.shown("jobmeter@short", "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert state == ["failed", "exit-code", "75", "0"], state
    assert machine.of_job("short")["reason"] == "job_limit"


def a_stop_charges_to_the_end(machine):
    machine.job("stopped", "sh -c 'setsid sh -c \"while :; do :; done\" & while :; do :; done'")
    burned = machine.await_burned("stopped", 1.2)
    machine.call("systemctl", "stop", "jobmeter@stopped")
    attempt = machine.of_job("stopped")
    # The meter's own part of it is some hundredths of a second.
    assert attempt["state"] == "ended" and float(attempt["usage"]["cpu_used_seconds"]) > burned - 0.2, (burned, attempt)
    assert not machine.processes("stopped")


def the_meter_is_killed(machine):
    """Front or keeper: the job dies, and the books have what it burned up to the last second, since systemd kills what is left of
    the meter as well."""
    for name, which in (("front", 0), ("keeper", 1)):
        machine.job(name, "sh -c 'while :; do :; done'")
        burned = machine.await_burned(name, 2)
        (front,) = machine.shown(f"jobmeter@{name}", "MainPID")
        keeper = machine.call("pgrep", "--parent", front, "-x", "jobmeter").stdout.split()[0]
        machine.call("kill", "-KILL", (front, keeper)[which])
        machine.ended(name)
        assert not machine.processes(name)
        machine.call("systemctl", "start", "jobmeter-spool.service")
        attempt = machine.of_job(name)
        # One thread burns no more than a second in an --interval, and a busy machine's meter is a little late.
        assert attempt["reason"] == "meter_lost" and float(attempt["usage"]["cpu_used_seconds"]) >= burned - 1.5, (burned, attempt)


def a_plug_is_pulled(machine):
    """What was on the disk at the last second is settled when the machine is up again."""
    machine.call("systemctl", "enable", "jobmeter-ledger.service", "jobmeter-spool.service", "jobmeter-spool.timer")
    machine.job("cut", "sh -c 'while :; do :; done'")
    before = machine.await_burned("cut", 3)
    assert machine.of_job("cut")["state"] == "running"
    machine.power_off()
    machine.boot()
    wait_until(30, "the spool is settled", lambda: machine.ledger("status", check=False).returncode == 0 and machine.of_job("cut")["state"] == "ended")
    burned = float(machine.of_job("cut")["usage"]["cpu_used_seconds"])
    assert burned >= before - 1.5, (before, burned)
    assert machine.shown("jobmeter-spool.timer", "ActiveState") == ["active"]
    return f"{burned:.3f} s of {before:.3f} s"


def the_spools_have_a_key(machine):
    """What a job leaves behind is told to the service for whichever account it was."""
    machine.ledger("key", "create", "spools", "--to", "/etc/jobmeter/spool.key")
    machine.write("/etc/jobmeter/spool.env", "JOBMETER_LEDGER=http://127.0.0.1:7770\nJOBMETER_KEY=/etc/jobmeter/spool.key\n", 0o600)


def the_books_are_right(machine):
    return machine.ledger("ledger", "verify").stdout.strip()


SCENES = (units_are_sound, the_ledger_starts_and_is_watched, the_spools_have_a_key, a_job_is_metered_exactly, exhausted_is_not_tried_again,
          a_stop_charges_to_the_end, the_meter_is_killed, *attacked.SCENES, a_plug_is_pulled, the_books_are_right)


def main():
    machine = Machine()
    try:
        machine.boot()
        attacked.add_users(machine)
        return run_scenes("systemd", SCENES, machine, print_logs=lambda: print(machine.logs(), file=sys.stderr))
    finally:
        machine.remove()


sys.exit(main())
