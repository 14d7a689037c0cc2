"""Stages of `tests/run`: what each needs, and how they run side by side."""

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing

from harness.processes import die_with_parent
from harness.scenes import Skip

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# Logs, and what is kept from run to run.
OUTPUT = TARGET / "tests"
# A failed stage's log is printed up to here; the file has all of it.
LINES_SHOWN = 150


class Failed(Exception):
    """A stage did not pass, for the reason that it says; its log has the rest."""


@dataclasses.dataclass
class Stage:
    """One part of the tests."""

    name: str
    about: str
    run: typing.Callable[["Work"], None]
    # Stages that must have passed before, if they run at all.
    after: tuple = ()
    # How many cores it keeps busy: what mostly waits runs beside others.
    cores: float = 1
    # Debian packages, as keys of `machine.PROBES`.
    packages: tuple = ()
    # Packages of PyPI, and the environment that they go to: most share one.
    python: tuple = ()
    environment: str = "shared"
    # Arguments of `cargo test --no-run`.
    targets: tuple = ()
    # Root and a cgroup v2 hierarchy whose groups can be made.
    kernel: bool = False
    # Part of `tests/run` without a name.
    in_suite: bool = True
    # Works for others, and is chosen by them.
    serves: bool = False


class Work:
    """What the function of a stage gets: its log, a folder that goes away, and commands."""

    def __init__(self, stage, shared):
        self.stage, self.shared = stage, shared
        self.path = OUTPUT / f"{stage.name}.log"
        self.log = open(self.path, "w", buffering=1)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"jobmeter-{stage.name}-"))
        self.folder.chmod(0o755)
        self.seconds_of_cpu = 0.0

    def say(self, text):
        self.log.write(text + "\n")

    def call(self, *line, limit_s=900, check=True, output=None, cwd=ROOT, **environment):
        """Runs a command into the log; the exit status. `output` takes its standard output instead."""
        line = [str(word) for word in line]
        self.say("$ " + " ".join(word if len(word) < 200 else word[:200] + "…" for word in line))
        env = {**self.shared.environment, **{name: str(value) for name, value in environment.items()}}
        process = subprocess.Popen(
            line, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output or self.log, stderr=self.log,
            start_new_session=True, preexec_fn=die_with_parent)
        self.shared.groups.add(process.pid)
        is_late = threading.Event()
        timer = threading.Timer(limit_s, lambda: (is_late.set(), end_group(process.pid)))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
            self.shared.groups.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds_of_cpu += usage.ru_utime + usage.ru_stime
        if is_late.is_set():
            raise Failed(f"{line[0]} {line[1] if len(line) > 1 else ''} did not end within {limit_s} s")
        if process.returncode < 0:
            self.say(f"{line[0]} was killed by {signal.Signals(-process.returncode).name}")
        if check and process.returncode != 0:
            raise Failed(f"{line[0]} {line[1] if len(line) > 1 else ''} ended with {process.returncode}")
        return process.returncode

    def capture(self, *line, check=True, **options):
        """The standard output of a command, as text."""
        path = self.folder / "captured"
        with open(path, "w+") as output:
            self.call(*line, check=check, output=output, **options)
        return path.read_text()

    def close(self):
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def end_group(leader):
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


@dataclasses.dataclass
class Result:
    """How a stage ended: passed, failed, skipped, or not run since another failed."""

    state: str
    reason: str = ""
    seconds: float = 0
    seconds_of_cpu: float = 0
    skips: tuple = ()


class Shared:
    """What stages leave for each other: the built test binaries by name, the Python environment, the environment variables."""

    def __init__(self, environment, stages, is_capable):
        self.environment, self.stages, self.is_capable = environment, stages, is_capable
        self.selected = {stage.name for stage in stages}
        self.binaries = {}
        self.missing = {}
        self.groups = set()


def perform(stage, shared, finished):
    work = Work(stage, shared)
    start = time.monotonic()
    try:
        if stage.kernel and not shared.is_capable:
            raise Skip("needs root and a cgroup v2 hierarchy whose groups can be made")
        lacking = [shared.missing[package] for package in stage.packages if package in shared.missing]
        if lacking:
            raise Skip(f"not installed, and only root can: {' '.join(lacking)}")
        stage.run(work)
        result = Result("passed")
    except Skip as reason:
        result = Result("skipped", str(reason))
    except (Failed, AssertionError, OSError, subprocess.SubprocessError) as error:
        result = Result("failed", str(error).splitlines()[0] if str(error) else type(error).__name__)
        work.say(f"{type(error).__name__}: {error}")
    except BaseException as error:
        result = Result("failed", f"{type(error).__name__}: {error}")
    result.seconds, result.seconds_of_cpu = time.monotonic() - start, work.seconds_of_cpu
    work.close()
    text = work.path.read_text(errors="replace")
    result.skips = tuple(sorted({line.strip()[len("skipped: "):] for line in text.splitlines() if line.startswith("skipped: ")}))
    finished(stage, result)


def is_a_summary(line):
    return line.startswith(("test result:", "skipped: ")) or " ... ok" in line and not line.startswith("test ")


def print_end(stage, result):
    seconds = f"{result.seconds:.0f} s"
    print(f"\n== {stage.name}: {result.state}{': ' + result.reason if result.reason else ''} ({seconds})", flush=True)
    text = (OUTPUT / f"{stage.name}.log").read_text(errors="replace")
    if result.state == "failed":
        lines = text.splitlines()
        print("\n".join(lines[-LINES_SHOWN:]))
        print(f"== the whole log of {stage.name}: {OUTPUT / f'{stage.name}.log'}", flush=True)
    elif result.state == "passed" and not stage.serves:
        for line in text.splitlines():
            if is_a_summary(line):
                print(f"   {line}", flush=True)


def run_stages(stages, shared, cores):
    """Each stage as soon as those before it have passed and there are cores for it. The results by name."""
    results, running = {}, {}
    changed = threading.Condition()

    def finished(stage, result):
        with changed:
            results[stage.name] = result
            del running[stage.name]
            print_end(stage, result)
            changed.notify()

    def start_what_can():
        for stage in stages:
            if stage.name in results or stage.name in running:
                continue
            before = [name for name in stage.after if name in shared.selected]
            failed = [name for name in before if name in results and results[name].state in ("failed", "not run")]
            if failed:
                results[stage.name] = Result("not run", f"{failed[0]} did not pass")
                changed.notify()
                continue
            busy = sum(other.cores for other in running.values())
            if all(name in results for name in before) and (not running or busy + stage.cores <= cores):
                running[stage.name] = stage
                threading.Thread(target=perform, args=(stage, shared, finished), daemon=True).start()

    with changed:
        while len(results) < len(stages):
            start_what_can()
            if len(results) < len(stages):
                changed.wait(1)
    return results


def print_table(stages, results, seconds):
    """Minutes of each stage, skips with their reasons, and a last line that counts."""
    print("\n== minutes")
    for stage in stages:
        result = results[stage.name]
        cpu = f"{result.seconds_of_cpu / 60:6.1f} of CPU" if result.seconds_of_cpu else ""
        print(f"{stage.name:14} {result.seconds / 60:6.1f} {cpu:14} {result.state}")
    print(f"{'in all':14} {seconds / 60:6.1f}")
    skips = [f"{stage.name}: {results[stage.name].reason}" for stage in stages if results[stage.name].state == "skipped"]
    skips += [f"{stage.name}: {reason}" for stage in stages for reason in results[stage.name].skips]
    for line in skips:
        print(f"skipped: {line}")
    count = lambda *states: sum(result.state in states for result in results.values())
    for stage in stages:
        if results[stage.name].state in ("failed", "not run"):
            print(f"{results[stage.name].state}: {stage.name}: {results[stage.name].reason}")
    print(f"stages: {count('passed')} passed, {count('failed', 'not run')} failed, {len(skips)} skipped", flush=True)
    return 1 if count("failed", "not run") else 0


def end_all(shared):
    for leader in list(shared.groups):
        end_group(leader)


def install_signals(shared):
    """An interrupted run ends what it started."""
    def leave(number, _):
        end_all(shared)
        print(f"\ninterrupted by {signal.Signals(number).name}", file=sys.stderr)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
