"""Heavier proofs, each run by its name."""

import json
import os
import shutil
import tempfile

from harness.stages import OUTPUT, TARGET, Failed, Stage
from stages.cargo import POSTGRES
from stages.prepare import DEBUG

# The version whose files and messages tests/compat keeps.
EARLIER = "2d683a2"
# What decides who pays how much.
MUTATED = "src/domain/**/*.rs"


def mutate(work):
    """Mutations of the domain that none of its own tests notices are named in the log. cargo-mutants works on a copy."""
    if work.call("cargo", "mutants", "--version", check=False):
        work.call("cargo", "install", "--locked", "cargo-mutants", limit_s=3600)
    files = [word for pattern in os.environ.get("MUTATED", MUTATED).split() for word in ("--file", pattern)]
    status = work.call(
        "cargo", "mutants", *files, "--output", OUTPUT, "--no-shuffle", "--baseline", "skip", "--timeout", "60", "--cargo-arg=--locked", "--",
        "--lib", "domain::", check=False, limit_s=24 * 3600)
    # 0: each was caught; 2: some survived; 3: some did not end, which is noticed as well.
    if status not in (0, 2, 3):
        raise Failed(f"cargo mutants ended with {status}")
    found = OUTPUT / "mutants.out"
    counts = {name: (found / f"{name}.txt").read_text().splitlines() for name in ("caught", "timeout", "missed", "unviable")}
    work.say("mutants: " + ", ".join(f"{len(lines)} {name}" for name, lines in counts.items()) + " ... ok")
    for line in counts["missed"]:
        work.say(f"survived ... ok: {line}")


def compare_versions(work):
    """Sidecars and services of the earlier version against those of this one, both built here."""
    source = work.folder / "earlier"
    work.call("git", "worktree", "add", "--detach", source, EARLIER)
    try:
        earlier = TARGET / "earlier"
        work.call("cargo", "build", "--locked", "--bins", "--target-dir", earlier, cwd=source, limit_s=3600)
        work.call("python3", "tests/compat/versions.py", earlier / "debug", DEBUG, limit_s=1800)
    finally:
        work.call("git", "worktree", "remove", "--force", source)


def load(work):
    """Measured on a build as it is shipped; its settings come from the environment, see tests/load/run.py."""
    told = work.capture("cargo", "build", "--locked", "--release", "--bin", "jobmeter", "--bench", "fleet", "--message-format=json-render-diagnostics", limit_s=3600)
    built = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
    (fleet,) = {message["executable"] for message in built if message.get("executable") and message["target"]["name"] == "fleet"}
    work.call("python3", "tests/load/run.py", TARGET / "release/jobmeter", fleet, limit_s=4 * 3600)


def simulate_more(work):
    work.call(work.shared.binaries["sim"], "--nocapture", limit_s=4 * 3600, SEEDS=os.environ.get("SEEDS", "10000"))


def prove_balances(work):
    """SQLite's files are in memory, where the machine has room for them there."""
    memory = tempfile.mkdtemp(prefix="jobmeter-balances-", dir=next(path for path in ("/dev/shm", "/tmp") if os.access(path, os.W_OK)))
    test = ("cargo", "test", "--release", "--locked", "--lib", "--")
    counts = {name: os.environ.get(name, "100000") for name in ("SEQUENCES", "REQUESTS")}
    try:
        work.call(*test, "sqlite::tests::suite::against_model", limit_s=8 * 3600, JOBMETER_SEQUENCES=counts["SEQUENCES"], TMPDIR=memory)
        work.call(*test, "postgres::tests::suite::against_model", limit_s=3600, JOBMETER_SEQUENCES="500")
        work.call(*test, "server::tests::", "--nocapture", limit_s=8 * 3600, REQUESTS=counts["REQUESTS"], TMPDIR=memory)
    finally:
        shutil.rmtree(memory)


def fuzz(work):
    work.call("tests/fuzz/run", os.environ.get("SECONDS_EACH", "60"), limit_s=3600)


STAGES = (
    Stage("mutants", "mutations of the domain that none of its tests notices (cargo-mutants; hours; MUTATED=src/domain/lease.rs for one file)", mutate, cores=2, in_suite=False),
    Stage("upgrade", f"sidecars and services of {EARLIER} against this version", compare_versions, after=("build",), cores=2, in_suite=False),
    Stage("load", "10 000 sidecars, what misbehaves beside them, outages and faults, on both databases (SCENES=crowd,… STORES=sqlite,… for some)", load,
          after=("packages",), cores=2, packages=("postgresql", "util-linux"), kernel=True, in_suite=False),
    Stage("worlds", "the simulation of 10 000 worlds (SEEDS=N for more)", simulate_more, after=("build",), cores=2, targets=("--test", "sim"), in_suite=False),
    Stage("balances", "100 000 sequences of operations beside a model of the balance, and as many requests (SEQUENCES=N REQUESTS=N)", prove_balances,
          after=("packages",), cores=2, packages=POSTGRES, in_suite=False),
    Stage("fuzz", "decoders under a fuzzer, a minute each (SECONDS_EACH=N)", fuzz, cores=2, in_suite=False),
)
