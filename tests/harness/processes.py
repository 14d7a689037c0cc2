"""Processes that a script starts, each of which it stops by its pid."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys

from harness.waiting import PATIENCE

# Settings of whoever runs the tests, which would reach what is tested.
FOREIGN = ("JOBMETER", "SLURM", "CUDA", "NVIDIA")
PR_SET_PDEATHSIG = 1


def plain_environment(**more):
    """The environment without what would change how jobmeter behaves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, **{name: str(value) for name, value in more.items()}}


def free_port():
    """A port on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_with_parent():
    """For `preexec_fn`: an interrupted script leaves nothing behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process, seconds=10):
    """SIGTERM, and SIGKILL where that did not end it. The exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Processes:
    """Started processes with a log each, in `folder`; the last one is stopped first."""

    def __init__(self, folder, environment=None):
        self.folder = pathlib.Path(folder)
        self.environment = environment
        self.running = []

    def start(self, *line, name=None, **options):
        path = self.folder / f"{name or pathlib.Path(str(line[0])).name}.log"
        options.setdefault("env", self.environment if self.environment is not None else plain_environment())
        with open(path, "a") as log:
            process = subprocess.Popen(
                [str(word) for word in line], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent, **options)
        process.log = path
        self.running.append(process)
        return process

    def stop_all(self):
        for process in reversed(self.running):
            stop(process)
        self.running = []

    def print_logs(self, characters=1500):
        for path in sorted(self.folder.glob("*.log")):
            print(f"== the end of {path.name}\n{path.read_text(errors='replace')[-characters:]}", file=sys.stderr)


def burn_all_cores():
    """Keeps every core busy with something else; stop each of them."""
    line = [sys.executable, "-c", "while True: pass"]
    return [subprocess.Popen(line, preexec_fn=die_with_parent) for _ in range(os.cpu_count() or 1)]
