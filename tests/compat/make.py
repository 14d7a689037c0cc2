#!/usr/bin/env python3
"""Makes the fixtures of a version: make.py BINARIES FOLDER. BINARIES is the directory of its build, with its examples
(`cargo build --release --bins --examples`); FOLDER is tests/compat/COMMIT and must not exist yet. As root, with faketime,
PostgreSQL and a cgroup v2 hierarchy. Everything is made by real runs; `cargo test --test compat` then opens each such folder."""

import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile

import history
import left_over
import wire
from sandbox import Cluster, Sandbox, WallClock, busy

# Every key that the settings file knows. Paths are those of whichever directory jobmeter runs in.
SETTINGS = """\
# What `jobmeter --config` takes. Each key is read by a test.
ledger = "ledger.db"
key_file = "reader.key"
user = "sam"
spool_dir = "settings-spool"

[run]
kind = "generation"
interval = "250ms"
hold = "5s"
notice = "SIGTERM@30s"
linger = true
wait_descendants = true
grace = "5s"
quiet = true
cpu_source = "procfs"
exhausted_status = 42
gpus = "none"
gpu_exclusive = true
nvml_library = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
"""


def ledgers(binaries, work, folder, clock):
    """The same history on both databases."""
    receipts = folder / "receipts"
    receipts.mkdir()
    sqlite = Sandbox(binaries, work / "sqlite", clock=clock)
    history.write(sqlite, folder / "sqlite", receipts)
    shutil.copy(sqlite.checkpoint(), folder / "sqlite")
    others = work / "receipts"
    others.mkdir()
    with Cluster(clock) as cluster:
        history.write(Sandbox(binaries, work / "postgres", cluster.create("ledger"), clock), folder / "postgres", others)
        (folder / "postgres/dump.sql").write_text(cluster.dump("ledger"))


def settings(binaries, work, folder):
    """The file, and what this build takes it for."""
    folder.mkdir()
    (folder / "config.toml").write_text(SETTINGS)
    sandbox = Sandbox(binaries, work / "settings")
    for name in ("JOBMETER_LEDGER", "JOBMETER_SPOOL", "JOBMETER_USER"):
        del sandbox.environment[name]
    sandbox.environment["JOBMETER_CONFIG"] = str(folder / "config.toml")
    sandbox.call("account", "limit", "2")
    sandbox.call("run", "--job", "set-1", "--", *busy(0.05))
    sandbox.keep_answers(folder / "answers.jsonl", [["run", "--dry-run", "--", "true"], ["jobs", "show", "set-1"]])


def main(binaries, folder):
    binaries, folder = pathlib.Path(binaries).resolve(), pathlib.Path(folder).resolve()
    folder.mkdir()
    # PostgreSQL's user has to reach the clock.
    with tempfile.TemporaryDirectory(prefix="jobmeter-compat-") as work:
        os.chmod(work, 0o755)
        work = pathlib.Path(work)
        clock = WallClock(work)
        clock.set("2025-03-30T10:00:00")
        ledgers(binaries, work, folder, clock)
        left_over.write_spool(Sandbox(binaries, work / "spool", clock=clock), folder / "spool")
        left_over.write_relay(Sandbox(binaries, work / "relay-state", clock=clock), folder / "relay")
        (folder / "wire").mkdir()
        wire.write_http(binaries, work, folder / "wire")
        wire.write_relay(binaries, work, folder / "wire")
        settings(binaries, work, folder / "settings")
        version = Sandbox(binaries, work / "version").call("--version").stdout.strip()
    about = {"commit": folder.name, "version": version, "kernel": platform.release()}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    # A checkout keeps no modes, and the test copies before it writes.
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    print(f"{folder}: {size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
