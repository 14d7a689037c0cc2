"""What a jobmeter that was killed leaves behind: spool files of every kind, and the state of a relay."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess

from sandbox import Sandbox, busy, plain_environment, wait_until

UNIFIED = next((line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2"), None)
LATER = "2025-04-03T12:00:00"


def spool_of(sandbox, job):
    """One for each job: the next jobmeter with the same one would settle what is left over in it."""
    return sandbox.folder / "spools" / job


def environment_of(sandbox, job):
    return {**sandbox.environment, "JOBMETER_SPOOL": str(spool_of(sandbox, job))}


def header_of(path):
    return json.loads(path.read_bytes().split(b"\n", 1)[0])


def records_of(path):
    """Those of its slots that are written: see src/runner/spool.rs."""
    lines = [line.strip(b" \0") for line in path.read_bytes().split(b"\n")[1:]]
    return [json.loads(line[17:]) for line in lines if line[16:17] == b" "]


def newest(path):
    return max(records_of(path), key=lambda record: record["seq"], default=None)


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def supervisor_of(front, jobmeter):
    """The second process of a `jobmeter run`: the child that runs the same program."""
    def same(pid):
        return os.readlink(f"/proc/{pid}/exe") == str(jobmeter)
    return next(pid for pid in children(front) if same(pid))


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if os.path.exists(f"/proc/{pid}") else "Z"


def kill_both(front, jobmeter):
    """Both at once: each of the two would end the job and settle it if it saw the other one die. The first process learns at
    once that the second one was stopped, and has to stand still before."""
    pids = [front.pid, supervisor_of(front.pid, jobmeter)]
    for step in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, step)
        wait_until(5, "both stand still", lambda: all(state_of(pid) in "TZ" for pid in pids), pause=0)
    front.wait()


def remove(group):
    """Once nobody is in it any more, also no dead process that waits to be reaped; what is below it first."""
    def gone():
        below = [path for path in group.rglob("*") if path.is_dir()]
        for path in [*reversed(below), group]:
            if path.exists():
                path.rmdir()
        return True
    wait_until(10, f"{group} can be removed", gone)


def remove_group_of(attempt):
    """Where a group could be made for it."""
    if UNIFIED:
        remove(pathlib.Path(UNIFIED) / f"jobmeter-{attempt}")


def end_job(containment):
    """Nothing may remain that a test would have to kill."""
    (kind, what), = containment.items()
    if kind in ("cgroup2", "attached"):
        group = pathlib.Path(what["path"])
        (group / "cgroup.kill").write_text("1")
        remove(group)
    elif kind == "cgroup1":
        groups = [pathlib.Path(path) for path in [what["freezer"], *what["others"]]]

        def emptied():
            processes = (groups[0] / "cgroup.procs").read_text().split()
            for pid in processes:
                os.kill(int(pid), signal.SIGKILL)
            return not processes
        wait_until(10, f"{groups[0]} is empty", emptied)
        for group in groups:
            remove(group)
    # Of a tree the kernel ends the command with its front.


def killed(sandbox, job, *options, ready=lambda record: record["usage"]["cpu_used_seconds"] > 0.2, verb="run", target=None, **more):
    """A job whose meter is killed as soon as its newest record is `ready`. Its spool file."""
    command = ["--", "env", "-u", "LD_PRELOAD", *busy(600)] if verb == "run" else []
    with open(sandbox.folder / f"{job}.log", "w") as log:
        front = sandbox.start(verb, *(target or []), "--job", job, "--interval", "100ms", *options, *command, stderr=log,
                              env={**environment_of(sandbox, job), **more})

    def file():
        assert front.poll() is None, f"{job} ended: {(sandbox.folder / f'{job}.log').read_text()}"
        return next((path for path in spool_of(sandbox, job).glob("*.spool") if newest(path) and ready(newest(path))), None)
    path = wait_until(30, f"{job} has a record that will do", file, pause=0.01)
    kill_both(front, sandbox.jobmeter)
    end_job(header_of(path)["containment"])
    return path


class Locked:
    """A ledger that takes nothing, since another process holds it."""

    def __init__(self, sandbox):
        self.path = sandbox.folder / "ledger.db"

    def __enter__(self):
        self.database = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        self.database.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_):
        self.database.execute("ROLLBACK")
        self.database.close()


def never_opened(sandbox):
    """Killed while it waited for its first lease: nothing was started under it."""
    with Locked(sandbox):
        front = sandbox.start("run", "--job", "unopened-1", "--", "true", env=environment_of(sandbox, "unopened-1"))
        made = wait_until(20, "unopened-1 has a spool file", lambda: list(spool_of(sandbox, "unopened-1").glob("*.spool")))
        wait_until(20, "unopened-1 has both processes", lambda: children(front.pid))
        kill_both(front, sandbox.jobmeter)
    end_job(header_of(made.pop())["containment"])


def not_taken(sandbox):
    """It ended by itself while the ledger took nothing: its last word is in the file."""
    front = sandbox.start(
        "run", "--job", "untaken-1", "--interval", "100ms", "--", "env", "-u", "LD_PRELOAD", *busy(0.5),
        env=environment_of(sandbox, "untaken-1"))
    made = wait_until(20, "untaken-1 has a record", lambda: [
        path for path in spool_of(sandbox, "untaken-1").glob("*.spool")
        if newest(path) and newest(path)["usage"]["cpu_used_seconds"] > 0.1])
    with Locked(sandbox):
        wait_until(20, "untaken-1 has ended", lambda: newest(made[0])["finish"])
        kill_both(front, sandbox.jobmeter)
    end_job(header_of(made[0])["containment"])


def over_midnight(sandbox):
    """Killed in the first second of a day whose beginning the ledger was not told."""
    sandbox.clock.set("2025-03-30T23:59:57")
    started = sandbox.clock.now_s()
    lock = Locked(sandbox)

    def ready(record):
        # In time for the ledger to have leased for the day that comes.
        if sandbox.clock.now_s() >= started + 2 and not hasattr(lock, "database"):
            lock.__enter__()
        return record["closed"] is not None
    killed(sandbox, "midnight-1", ready=ready)
    lock.__exit__()


def attached(sandbox):
    """A group that something else made."""
    group = pathlib.Path(UNIFIED) / f"compat-{os.getpid()}"
    group.mkdir()
    process = subprocess.Popen(
        busy(600), preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())), stdin=subprocess.DEVNULL)
    killed(sandbox, "attached-1", verb="attach", target=["--cgroup", group])
    process.wait()


def gpu(sandbox):
    """With what its device did: its records have more room."""
    def ready(record):
        return any(gpu["busy_seconds"] > 0 for gpu in record["usage"].get("gpus", {}).values())
    options, environment = sandbox.fake_gpu()
    killed(sandbox, "gpu-1", *options, ready=ready, **environment)


def write_spool(sandbox, folder):
    """A spool with all of these, the ledger that it belongs to, and what this build makes of a copy of both."""
    sandbox.clock.set("2025-03-30T10:00:00")
    sandbox.run("acknowledged-1", "--label", "team=search")
    killed(sandbox, "cgroup2-1", "--label", "team=search", "--name", "Nightly", "--limit", "2")
    killed(sandbox, "procfs-1", "--cpu-source", "procfs")
    killed(sandbox, "cgroup1-1", "--cpu-source", "cgroup1")
    attached(sandbox)
    gpu(sandbox)
    never_opened(sandbox)
    not_taken(sandbox)
    over_midnight(sandbox)
    sandbox.checkpoint()
    folder.mkdir(parents=True)
    shutil.copy(sandbox.folder / "ledger.db", folder)
    shutil.copytree(sandbox.folder / "spool", folder / "spool")
    for path in sandbox.folder.glob("spools/*/*.spool"):
        shutil.copy(path, folder / "spool")
    sandbox.clock.set(LATER)
    copy = Sandbox(sandbox.binaries, sandbox.folder / "copy", clock=sandbox.clock)
    shutil.copy(folder / "ledger.db", copy.folder)
    shutil.copytree(folder / "spool", copy.folder / "spool")
    copy.keep_answers(folder / "listed.jsonl", [["spool", "list"]])
    flushed = copy.json("spool", "flush")
    assert not flushed["kept"], flushed
    copy.keep_answers(folder / "answers.jsonl", [
        *(["jobs", "show", job["job"]] for job in copy.json("jobs", "list", "--count", "100")["jobs"]), ["ledger", "verify"]])


def relay_of(sandbox, socket, *options):
    log = open(sandbox.folder / "relay.log", "a")
    relay = sandbox.start(
        "--user", "ann", "--spool-dir", sandbox.folder / "state", "relay", "--job", "pod-1", "--task", "2", "--name", "a pod",
        "--kind", "generation", "--socket", socket, *options, stderr=log)
    wait_until(20, "the relay listens", socket.exists)
    return relay


def wrapper_of(sandbox, socket, command, log):
    """In a PID namespace of its own, whose first process it has to be."""
    line = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sandbox.binaries / "jobmeter-wrapper", "--relay", socket,
            "--termination-log", sandbox.folder / "termination-log", "--", *command]
    return subprocess.Popen([str(word) for word in line], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plain_environment())


def write_relay(sandbox, folder):
    """The state of a relay that was killed together with its wrapper."""
    sandbox.clock.set("2025-03-30T10:00:00")
    socket = sandbox.folder / "relay.sock"
    relay = relay_of(sandbox, socket)
    with open(sandbox.folder / "wrapper.log", "w") as log:
        wrapper = wrapper_of(sandbox, socket, busy(600), log)
    state = sandbox.folder / "state"

    def burned():
        assert wrapper.poll() is None, (sandbox.folder / "wrapper.log").read_text()
        return [path for path in state.glob("*.spool") if newest(path) and newest(path)["usage"]["cpu_used_seconds"] > 0.5]
    wait_until(30, "the relay has kept a reading", burned)
    for process in (relay, wrapper):
        process.kill()
        process.wait()
    attempt = json.loads((state / "session.json").read_text())["attempt"]
    remove_group_of(attempt)
    pathlib.Path(f"/run/jobmeter/{attempt}.sock").unlink(missing_ok=True)
    sandbox.checkpoint()
    folder.mkdir(parents=True)
    shutil.copy(sandbox.folder / "ledger.db", folder)
    shutil.copytree(state, folder / "state")
    sandbox.clock.set(LATER)
    copy = Sandbox(sandbox.binaries, sandbox.folder / "copy", clock=sandbox.clock)
    shutil.copy(folder / "ledger.db", copy.folder)
    shutil.copytree(folder / "state", copy.folder / "state")
    again = relay_of(copy, copy.folder / "relay.sock", "--lost-after", "100ms")
    wait_until(20, "the relay has settled it", lambda: copy.json("jobs", "show", "pod-1")["state"] == "ended")
    again.terminate()
    assert again.wait() == 0, (copy.folder / "relay.log").read_text()
    copy.keep_answers(folder / "answers.jsonl", [["jobs", "show", "pod-1"], ["ledger", "verify"]])
