"""One build of jobmeter in a folder of its own: its calls, its wall clock, a service, a PostgreSQL cluster."""

import contextlib
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Processes, plain_environment, wait_until  # noqa: E402
from harness.processes import die_with_parent  # noqa: E402

# Whatever directory a process runs in. A path that the records of a fixture keep, and that is right wherever the fixture is
# copied to.
HERE_LEDGER = "/proc/self/cwd/ledger.db"
UTC = datetime.timezone.utc
BUSY = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


def busy(seconds):
    """A command that burns so much CPU time."""
    return ["python3", "-c", BUSY.format(seconds)]


class WallClock:
    """The wall clock of the processes that get its environment, by libfaketime. Clocks that are never set go on as they are."""

    def __init__(self, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        assert found, "libfaketime is missing: apt-get install faketime"
        self.file = pathlib.Path(folder) / "clock"
        self.offset = 0
        self.environment = {
            "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1", "NO_FAKE_STAT": "1"}

    def set(self, text):
        """To a time in UTC, such as 2025-03-30T10:00:00."""
        at = datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)
        self.offset = int(at.timestamp() - time.time())
        part = self.file.with_suffix(".part")
        part.write_text(f"{self.offset:+}\n")
        part.rename(self.file)

    def now_s(self):
        return int(time.time()) + self.offset


class Sandbox:
    """Calls of the binaries in `binaries`, from `folder`, with the ledger at `ledger` and a spool beside it."""

    def __init__(self, binaries, folder, ledger=HERE_LEDGER, clock=None):
        self.binaries = pathlib.Path(binaries).resolve()
        self.folder = pathlib.Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jobmeter = self.binaries / "jobmeter"
        self.clock = clock
        self.ledger = ledger
        (self.folder / "config.toml").write_text("")
        self.environment = plain_environment(
            JOBMETER_LEDGER=ledger, JOBMETER_SPOOL=self.folder / "spool", JOBMETER_USER="ann",
            JOBMETER_CONFIG=self.folder / "config.toml", **(clock.environment if clock else {}))

    def start(self, *arguments, program="jobmeter", **options):
        options.setdefault("env", self.environment)
        return subprocess.Popen(
            [str(self.binaries / program), *map(str, arguments)], cwd=self.folder, stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent, **options)

    def call(self, *arguments, status=0, **environment):
        """Runs to its end; its standard output and error. Another exit status than `status` is a failure, None takes each."""
        with self.start(*arguments, env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True) as process:
            out, err = process.communicate()
        # As a shell tells it, where the signal was passed on.
        ended = process.returncode if process.returncode >= 0 else 128 - process.returncode
        assert status in (None, ended), f"{arguments}: {ended} instead of {status}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, ended, out, err)

    def json(self, *arguments, **options):
        return json.loads(self.call("--json", *arguments, **options).stdout)

    def run(self, job, *options, command=None, status=0, user="ann", **environment):
        """A job, without the fake clock, which it would inherit."""
        command = ["env", "-u", "LD_PRELOAD", *(command or busy(0.05))]
        return self.call("--user", user, "run", "--job", job, *options, "--", *command, status=status, **environment)

    def fake_gpu(self):
        """Options and variables of a run with a scripted GPU, which is busy half of the time."""
        library = self.binaries / "examples/libfake_nvml.so"
        assert library.exists(), f"{library} is missing: cargo build --examples"
        script = self.folder / "gpus.json"
        device = {"uuid": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "busy": [{"percent": 50, "pids": [77]}]}
        start_us = (self.clock.now_s() - 30) * 1_000_000
        script.write_text(json.dumps({"start_us": start_us, "clock_us": 987_654_321, "devices": [device]}))
        return ["--gpus", "0", "--gpu-exclusive", "--nvml-library", library], {"FAKE_NVML": str(script)}

    def keep_answers(self, file, lines):
        """What this build prints for programs, one call a line: each number as it was printed."""
        with open(file, "w") as out:
            for line in lines:
                answer = " ".join(part.strip() for part in self.call("--json", *line).stdout.splitlines())
                out.write(f'{{"arguments": {json.dumps(line, ensure_ascii=False)}, "answer": {answer}}}\n')

    def checkpoint(self, name="ledger.db"):
        """Brings the whole ledger into its one file, as it lies in the pages."""
        database = sqlite3.connect(self.folder / name)
        busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        database.close()
        assert busy == 0 and not (self.folder / f"{name}-wal").exists(), f"{name} is in use"
        return self.folder / name

    @contextlib.contextmanager
    def serve(self, database=None, listen="127.0.0.1:0"):
        """`jobmeter serve`, on a port that the kernel gives it where none is said, as a [`Service`]."""
        key = self.folder / "admin-key"
        log = self.folder / "serve.log"
        log.unlink(missing_ok=True)
        # The ledger of its environment is none that it could serve.
        environment = {**self.environment, "JOBMETER_LEDGER": "http://127.0.0.1:1"}
        processes = Processes(self.folder, environment)
        server = processes.start(
            self.jobmeter, "serve", "--db", database or self.ledger, "--listen", listen, "--admin-key-file", key,
            name="serve", cwd=self.folder)
        try:
            wait_until(20, "jobmeter serve says its URL", lambda: server.poll() is not None or '"url"' in log.read_text())
            assert server.poll() is None, f"jobmeter serve ended with {server.returncode}:\n{log.read_text()}"
            # Only the first start on a database makes a key.
            admin = key.read_text().strip() if key.exists() else None
            yield Service(re.search(r'"url":"([^"]*)"', log.read_text()).group(1), admin)
        finally:
            processes.stop_all()


class Service:
    """The HTTP API of a service, asked without jobmeter."""

    def __init__(self, url, admin):
        self.url, self.admin = url, admin

    def ask(self, method, path, body=None, key=None, once=None):
        """Status and body of an answer, whatever the status is."""
        headers = {"Authorization": f"Bearer {key or self.admin}", "Content-Type": "application/json"}
        if once:
            headers["Idempotency-Key"] = once
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, read(answer)
        except urllib.error.HTTPError as error:
            return error.code, read(error)

    def told(self, *request, **options):
        status, answer = self.ask(*request, **options)
        assert status < 300, f"{request}: {status} {answer}"
        return answer


def read(answer):
    text = answer.read().decode()
    return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text


class Cluster:
    """A throw-away PostgreSQL on a socket, whose clock is the fake one where one is given."""

    def __init__(self, clock=None):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        assert found, "PostgreSQL is missing: apt-get install postgresql"
        self.programs = pathlib.Path(found[-1])
        self.clock = clock

    def as_postgres(self, program, *arguments):
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
        # Not in the environment of setpriv: what libfaketime shares belongs to the user who made it.
        clock = [f"{name}={value}" for name, value in self.clock.environment.items()] if self.clock else []
        return [*drop, "env", *clock, str(self.programs / program), *map(str, arguments)]

    def __enter__(self):
        # PostgreSQL's user has to reach it, and the path of a socket may not be long.
        self.folder = pathlib.Path(f"/tmp/jobmeter-compat-{os.getpid()}")
        self.folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        subprocess.run(
            self.as_postgres("initdb", "--no-sync", "--auth=trust", "--username=jobmeter", "--encoding=UTF8", "-D", data),
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder)
        self.server = subprocess.Popen(
            self.as_postgres("postgres", "-c", "listen_addresses=", "-c", "fsync=off", "-D", data, "-k", self.folder),
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=plain_environment(),
            cwd=self.folder, preexec_fn=die_with_parent)
        try:
            wait_until(30, "PostgreSQL answers", lambda: self.sql("SELECT 1").returncode == 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # As `pg_ctl stop -m immediate`: nothing of it is kept.
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()
        shutil.rmtree(self.folder)

    def sql(self, text, database="postgres"):
        line = [self.programs / "psql", "-qtAXh", self.folder, "-U", "jobmeter", database, "-c", text]
        return subprocess.run(line, capture_output=True, text=True, env=plain_environment())

    def create(self, database):
        made = self.sql(f"CREATE DATABASE {database}")
        assert made.returncode == 0, made.stderr
        return f"postgres://jobmeter@{str(self.folder).replace('/', '%2F')}/{database}"

    def dump(self, database):
        """Plain SQL, which any client can send."""
        line = [self.programs / "pg_dump", "-h", self.folder, "-U", "jobmeter", "--no-owner", "--inserts", database]
        text = subprocess.run(line, capture_output=True, text=True, check=True, env=plain_environment()).stdout
        # Commands of psql, which other clients do not know: the newest versions guard their dumps with \restrict.
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("\\", "--", "\n")))


__all__ = ["Cluster", "HERE_LEDGER", "Sandbox", "Service", "WallClock", "busy", "plain_environment", "wait_until"]
