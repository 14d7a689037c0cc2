"""The databases that the load test runs on: a file, and a PostgreSQL with a synchronous standby."""

import glob
import os
import pathlib
import shutil
import signal
import subprocess

from harness import Processes, plain_environment, wait_until
from harness.processes import die_with_parent

PROGRAMS = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])


class SmallDisk:
    """A file system of its own, which can be filled up."""

    def __init__(self, folder, megabytes):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", self.folder], check=True)

    def fill(self):
        self.rest = self.folder / "rest"
        with open(self.rest, "wb", buffering=0) as rest:
            try:
                while True:
                    rest.write(b"\0" * (1 << 16))
            except OSError:
                pass

    def free(self):
        self.rest.unlink()

    def unmount(self):
        subprocess.run(["umount", "-l", self.folder], check=True)


class Sqlite:
    name = "SQLite"

    def __init__(self, folder):
        self.location = pathlib.Path(folder) / "ledger.db"

    def cpu_seconds(self):
        return 0.0

    def stop(self):
        pass


class Server:
    """One PostgreSQL, whose socket is in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        self.processes = Processes(folder)

    def start(self, **settings):
        settings = {"listen_addresses": "", "max_connections": 100, **settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        line = as_postgres(PROGRAMS / "postgres", "-D", self.data, "-k", self.folder, *options)
        self.process = self.processes.start(*line, name="postgres", cwd=self.folder)
        wait_until(60, "PostgreSQL answers", lambda: self.sql("SELECT 1", check=False).returncode == 0)

    def sql(self, text, database="postgres", check=True):
        line = [PROGRAMS / "psql", "-qtAX", "-h", self.folder, "-U", "postgres", database, "-c", text]
        done = subprocess.run(line, capture_output=True, text=True, env=plain_environment())
        assert not check or done.returncode == 0, done.stderr
        return done

    def pids(self):
        """Of all its processes, the first of which started the others."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def kill(self):
        """At once, with all its processes."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


def as_postgres(program, *arguments):
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
    return [*map(str, (*drop, program, *arguments))]


def run_as_postgres(*line):
    subprocess.run(as_postgres(*line), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


class Postgres:
    name = "PostgreSQL"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.first = Server(self.made("first"))
        run_as_postgres(PROGRAMS / "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", self.first.data)
        self.first.start()
        self.first.sql("CREATE DATABASE books")
        self.now = self.first
        # Whoever moves a service's address to another server does no more than this.
        self.address = self.folder / "now"
        self.address.symlink_to(self.first.folder)
        self.location = f"postgres:host={self.address} user=postgres dbname=books"

    def made(self, name):
        folder = self.folder / name
        folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        return folder

    def add_standby(self):
        """No commit is acknowledged before it is on both."""
        self.second = Server(self.made("second"))
        run_as_postgres(PROGRAMS / "pg_basebackup", "-h", self.first.folder, "-U", "postgres", "-D", self.second.data, "-R", "-X", "stream")
        self.second.start()
        self.first.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.first.sql("SELECT pg_reload_conf()")
        wait_until(30, "the standby is synchronous", lambda: "sync" in self.first.sql("SELECT sync_state FROM pg_stat_replication").stdout)

    def restart(self):
        self.now.kill()
        self.now.start()

    def fail_over(self):
        self.first.kill()
        self.second.sql("ALTER SYSTEM RESET synchronous_standby_names", check=False)
        run_as_postgres(PROGRAMS / "pg_ctl", "promote", "-D", self.second.data, "-w")
        self.second.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.second.sql("SELECT pg_reload_conf()")
        moved = self.folder / "moved"
        moved.symlink_to(self.second.folder)
        moved.rename(self.address)
        self.now = self.second

    def lock_account(self, owner, seconds):
        """A process that holds the row of an account for so long."""
        text = f"SET client_connection_check_interval = 500; BEGIN; SELECT 1 FROM account WHERE owner = '{owner}' FOR UPDATE; SELECT pg_sleep({seconds}); ROLLBACK"
        line = [PROGRAMS / "psql", "-qtAX", "-h", self.now.folder, "-U", "postgres", "books", "-c", text]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def cpu_seconds(self):
        """Of those of its processes that run."""
        return sum(cpu_seconds_of(pid) for pid in self.now.pids())

    def stop(self):
        for server in (self.first, getattr(self, "second", None)):
            if server:
                server.stop()


def cpu_seconds_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
