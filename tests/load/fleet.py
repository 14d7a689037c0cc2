"""The fleet of sidecars, one process, and what is read of the service while it plays."""

import json
import os
import pathlib
import subprocess
import time

from databases import cpu_seconds_of
from harness import plain_environment
from harness.processes import die_with_parent


def go_first():
    """What is measured is the service, and not how late the machine lets the measuring process run."""
    die_with_parent()
    os.nice(-5)


class Fleet:
    """`sidecars` that run, spread over `accounts` named load-0, load-1, …"""

    def __init__(self, program, service, key, sidecars, accounts, over_s=15):
        options = {"address": service.address, "key-file": key, "admin-key-file": service.admin_key, "sidecars": sidecars, "accounts": accounts, "over": over_s}
        line = [program, "play", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain_environment(), preexec_fn=go_first)
        self.began = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, f"the fleet has ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def mark(self):
        return self.ask("mark")

    def finish(self):
        """What each account has burned and was charged. Its process ends."""
        told = self.ask("finish")
        told["mark"] = self.mark()
        self.end()
        return told

    def end(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


class Usage:
    """What a service uses of the machine, from now on."""

    def __init__(self, service, database):
        self.pid, self.database = service.process.pid, database
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.began, self.cpu, self.cpu_of_database = time.monotonic(), cpu_seconds_of(self.pid), database.cpu_seconds()

    def share(self):
        """Of a core."""
        return (cpu_seconds_of(self.pid) - self.cpu) / (time.monotonic() - self.began)

    def share_of_database(self):
        return (self.database.cpu_seconds() - self.cpu_of_database) / (time.monotonic() - self.began)

    def memory(self, name="VmRSS"):
        """In bytes; `VmHWM` is the most since this was made."""
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
