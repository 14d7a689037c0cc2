"""Attacks by a job's user under the real units: on its meter (attacks.py), and on what root does with the spools of others."""

import hashlib
import json
import pathlib
import re
import time
import uuid

from harness import wait_until

HERE = pathlib.Path(__file__).resolve().parent
MALLORY, ANN = "mallory", "ann"


def add_users(machine):
    for user in (ANN, MALLORY):
        if machine.call("id", user, check=False).returncode:
            machine.call("useradd", "--create-home", user)


def files_of_others(machine):
    """What has been written on this machine alone: the real one below it is in use."""
    found = {}
    for top in ("etc", "usr/local", "root"):
        for path in (machine.directory / "upper" / top).rglob("*"):
            if path.is_file() and not path.is_symlink() and "mallet" not in str(path):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def the_job_cannot_reach_its_meter(machine):
    machine.write("/usr/local/bin/attacks", (HERE / "attacks.py").read_text(), 0o755)
    machine.call("install", "-m", "4755", "/usr/bin/id", "/usr/local/bin/root-id")
    machine.write("/etc/jobmeter/target", "untouched\n")
    # The receipt's folder is the job's own, and there before it starts.
    work = "/var/lib/jobmeter/units/mallet/work"
    machine.call("install", "-d", "-m", "711", "/var/lib/jobmeter/units/mallet")
    machine.call("install", "-d", "-o", MALLORY, "-g", MALLORY, "-m", "700", work, f"{work}/out")
    before = files_of_others(machine)
    machine.job("mallet", "attacks mallet", f"--receipt {work}/out/receipt.json", user=MALLORY)
    machine.ended("mallet", 120)
    said = machine.call("journalctl", "--no-pager", "-o", "cat", "--unit=jobmeter@mallet").stdout
    told = dict(re.findall(r"^attack (\w+): (.*)$", said, re.M))
    lost = {name: how for name, how in told.items() if how != "held"}
    assert not lost and len(told) >= 30, (lost, len(told), said[-2000:])
    burned = float(re.search(r"^burned ([\d.]+)$", said, re.M).group(1))
    attempt = machine.of_job("mallet")
    metered = float(attempt["usage"]["cpu_used_seconds"])
    # Its child that left is not in its own figure.
    assert metered >= burned + 0.29, (metered, burned)
    assert attempt["receipt"]["outcome"]["tamper"] == "none" and attempt["reason"] == "completed", attempt
    assert machine.call("cat", "/etc/jobmeter/target").stdout == "untouched\n"
    assert machine.call("test", "-e", "/etc/receipt.json", check=False).returncode != 0
    after = files_of_others(machine)
    changed = {path for path, sum_ in before.items() ^ after.items()}
    assert not changed, changed
    # Its own process ended it, not the one that the job named to systemd.
    assert machine.shown("jobmeter@mallet", "Result", "ExecMainStatus") == ["success", "0"], machine.logs()
    return f"{len(told)} attacks, 0 succeeded; metered {metered:.3f} s, of which the attacker knows {burned:.3f} s"


def forged(attempt, **changes):
    """A spool file as jobmeter writes it, with whatever its writer likes in it."""
    header = {
        "schema": "jobmeter.spool/1",
        "identity": {"attempt": attempt, "job": "forged", "task": "0", "user": ANN, "kind": "training", "command": ["true"], "host": "x"},
        "ledger": "http://127.0.0.1:7770", "boot_id": changes.pop("boot_id", "another"), "containment": {"tree": {"front": 1, "start": 0}},
        "started_at_us": 0,
    }
    record = changes.pop("record", None)
    header.update(changes)
    text = json.dumps(header).encode() + b"\n"
    text += b" " * (-len(text) % 4096)
    if record is not None:
        told, sum_ = json.dumps(record).encode(), 0xCBF29CE484222325
        for byte in told:
            sum_ = (sum_ ^ byte) * 0x100000001B3 % 2**64
        text += (f"{sum_:016x} ".encode() + told + b"\n").ljust(4096)
    return text


def forged_spools_move_nothing(machine):
    """A folder such as the units of older versions left behind, a user's own, over which the hourly timer runs as root."""
    spool = "/var/lib/jobmeter/jobs/old"
    ann = machine.call("sh", "-c", "setpriv --reuid ann --clear-groups sleep 600 > /dev/null 2>&1 & echo $!").stdout.strip()
    mallory = machine.call("sh", "-c", "setpriv --reuid mallory --clear-groups sleep 601 > /dev/null 2>&1 & echo $!").stdout.strip()
    start = int(machine.call("cat", f"/proc/{ann}/stat").stdout.rsplit(") ", 1)[1].split()[19])
    boot = machine.call("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()
    machine.write("/run/victim.sock", "somebody's socket\n")
    machine.write("/etc/jobmeter/target", "untouched\n")
    # An attempt of ann's that runs, of which mallory has learned the id.
    machine.job("honest", "sh -c 'while :; do sleep 1; done'", user=ANN)
    attempt = machine.started("honest")["identity"]["attempt"]
    day = int(time.time()) // 86400 * 86400
    finish = {"attempt": attempt, "usage": machine.of_job("honest")["usage"], "period": day, "reason": "completed", "receipt": {}}
    record = {"seq": 9, "usage": finish["usage"], "period": finish["period"], "closed": None, "at_us": 0, "finish": finish}
    ids = [str(uuid.uuid4()) for _ in range(5)]
    files = {
        f"{ids[0]}.spool": forged(ids[0], socket="/run/victim.sock"),
        f"{ids[1]}.spool": forged(ids[1], boot_id=boot, containment={"tree": {"front": int(ann), "start": start}}),
        f"{ids[2]}.spool": forged(ids[2], boot_id=boot, containment={"cgroup2": {"path": "/sys/fs/cgroup/init.scope", "inode": 0}}),
        f"{ids[3]}.spool": forged(ids[3], ledger="/var/lib/jobmeter/made.db", record={**record, "finish": {**finish, "attempt": ids[3]}}),
        f"{attempt}.spool": forged(attempt, record=record),
    }
    machine.call("install", "-d", "-o", MALLORY, "-m", "700", spool)
    for name, content in files.items():
        machine.put(f"{spool}/{name}", content)
        machine.call("chown", f"{MALLORY}:", f"{spool}/{name}")
        machine.call("chmod", "600", f"{spool}/{name}")
    machine.call("ln", "-s", "/etc/jobmeter/target", f"{spool}/{ids[4]}.spool")
    machine.call("ln", "-s", "/etc", f"{spool}/acknowledged")
    machine.call("mkfifo", "-m", "666", f"{spool}/pipe.spool")
    machine.call("chown", "-h", f"{MALLORY}:", f"{spool}/acknowledged", f"{spool}/{ids[4]}.spool", f"{spool}/pipe.spool")
    # And one whose folder is a link to root's own.
    machine.call("ln", "-s", "/var/lib/jobmeter/spool", "/var/lib/jobmeter/jobs/linked")
    machine.call("chown", "-h", f"{MALLORY}:", "/var/lib/jobmeter/jobs/linked")
    machine.call("systemctl", "start", "jobmeter-spool.service", check=False)
    said = machine.call("journalctl", "--no-pager", "-o", "cat", "--unit=jobmeter-spool.service").stdout
    assert machine.call("cat", "/run/victim.sock").stdout == "somebody's socket\n", said
    assert machine.call("cat", "/etc/jobmeter/target").stdout == "untouched\n", said
    assert machine.call("kill", "-0", ann, check=False).returncode == 0, "ann's process was killed"
    assert machine.call("test", "-e", "/var/lib/jobmeter/made.db", check=False).returncode != 0, "root made a ledger"
    assert not machine.call("sh", "-c", "ls /etc/*.spool 2>/dev/null", check=False).stdout, "root wrote through a link"
    assert machine.of_job("honest")["state"] == "running", (machine.of_job("honest"), said)
    machine.call("kill", ann, mallory, check=False)
    machine.call("systemctl", "stop", "jobmeter@honest")
    machine.call("rm", "-rf", spool, "/var/lib/jobmeter/jobs/linked")
    return "8 ways, 0 succeeded"


def the_unit_does_as_systemd_says(machine):
    """stop, freeze, thaw, kill, drop-ins."""
    machine.job("asked", "sh -c 'trap \"exit 7\" USR1; while :; do :; done'", user=ANN, drop_in="[Service]\nCPUQuota=50%\n")
    machine.await_burned("asked", 0.5)
    machine.call("systemctl", "freeze", "jobmeter@asked")
    (group,) = machine.shown("jobmeter@asked", "ControlGroup")
    wait_until(10, "it is frozen", lambda: "frozen 1" in machine.call("cat", f"/sys/fs/cgroup{group}/cgroup.events").stdout)
    frozen = machine.burned("asked")
    # What is frozen burns nothing, however long that takes.
    assert machine.ledger("ledger", "verify") and machine.burned("asked") - frozen < 0.05
    machine.call("systemctl", "thaw", "jobmeter@asked")
    machine.await_burned("asked", frozen + 0.3)
    assert machine.shown("jobmeter@asked", "CPUQuotaPerSecUSec") == ["500ms"]
    machine.call("systemctl", "kill", "--kill-who=main", "-s", "USR1", "jobmeter@asked")
    machine.ended("asked")
    assert machine.shown("jobmeter@asked", "ExecMainStatus") == ["7"], machine.logs()
    machine.job("quick", "sleep 100", user=ANN)
    machine.started("quick")
    before = time.monotonic()
    machine.call("systemctl", "stop", "jobmeter@quick")
    took = time.monotonic() - before
    assert machine.of_job("quick")["state"] == "ended" and not machine.processes("quick")
    return f"stopped in {took:.2f} s"


def a_job_without_a_user_is_refused(machine):
    machine.ledger("--user", ANN, "key", "create", "nobodys", "--scope", "report", "--only-user", "--to", "/etc/jobmeter/jobs/nobodys.key")
    machine.write("/etc/jobmeter/jobs/nobodys.conf", "JOBMETER_LEDGER=http://127.0.0.1:7770\nCOMMAND=true\n")
    assert machine.call("systemctl", "start", "jobmeter@nobodys", check=False).returncode != 0
    said = machine.call("journalctl", "--no-pager", "-o", "cat", "--unit=jobmeter@nobodys").stdout
    assert "RUN_AS is not set" in said, said


SCENES = (the_job_cannot_reach_its_meter, forged_spools_move_nothing, the_unit_does_as_systemd_says, a_job_without_a_user_is_refused)
