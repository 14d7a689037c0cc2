#!/usr/bin/env python3
"""A PostgreSQL that wants passwords and speaks TLS, and PgBouncer before it: tests/postgres/run.py JOBMETER."""

import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import Processes, free_port, plain_environment, run_scenes, stop, wait_until

JOBMETER = pathlib.Path(sys.argv[1]).resolve()
PROGRAMS = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
PASSWORD = "p w:\\'"
# Who may come how. `plain` and `secret` may come only without and only with TLS.
RULES = """
local all postgres trust
hostssl all secret 127.0.0.1/32 scram-sha-256
hostnossl all plain 127.0.0.1/32 scram-sha-256
host all books 127.0.0.1/32 scram-sha-256
"""
BOUNCER = """
[databases]
* = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
pidfile =
logfile =
"""


def as_postgres(program, *arguments):
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
    return [*drop, str(program), *map(str, arguments)]


class Cluster:
    """One with a certificate for `localhost`, made by an authority of our own, at 127.0.0.1."""

    def __init__(self, folder, own):
        # `own` is for what must belong to who runs jobmeter.
        self.folder, self.own, self.data, self.port = folder, own, folder / "data", free_port()
        self.processes = Processes(folder)
        run = lambda *line: subprocess.run(as_postgres(*line), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        run(PROGRAMS / "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", self.data)
        authority = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        run(*authority, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        run(*authority, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "data/server.key", "-out", "data/server.crt")
        run(*authority, "-subj", "/CN=another", "-keyout", "another.key", "-out", "another.pem")
        self.put(self.data / "pg_hba.conf", RULES)
        self.start("on")
        for user in ("books", "secret", "plain"):
            self.sql(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
            self.sql(f"CREATE DATABASE {user} OWNER {user}")

    def put(self, path, text):
        """For PostgreSQL's user."""
        path.write_text(text)
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def start(self, ssl):
        line = as_postgres(PROGRAMS / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}",
                           "-c", f"ssl={ssl}", "-c", "fsync=off")
        self.server = self.processes.start(*line, name="postgres", cwd=self.folder)
        wait_until(30, "PostgreSQL answers", lambda: self.sql("SELECT 1", check=False).returncode == 0)

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait()

    def sql(self, text, database="postgres", check=True):
        line = [PROGRAMS / "psql", "-qtAX", "-h", self.folder, "-p", str(self.port), "-U", "postgres", database, "-c", text]
        done = subprocess.run(line, capture_output=True, text=True, env=plain_environment())
        assert not check or done.returncode == 0, done.stderr
        return done

    def fresh(self, name):
        """An empty database of the user `books`."""
        self.sql(f"CREATE DATABASE {name} OWNER books")
        return name

    def call(self, ledger, *arguments, password=PASSWORD, **environment):
        more = {"HOME": self.own / "home", "JOBMETER_LEDGER": ledger, "JOBMETER_SPOOL": self.own / "spool", "JOBMETER_USER": "ann"}
        if password is not None:
            more["PGPASSWORD"] = password
        done = subprocess.run([JOBMETER, *map(str, arguments)], env=plain_environment(**more, **environment), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, cwd=self.folder)
        assert PASSWORD not in done.stderr + done.stdout, done
        return done

    def reaches(self, user, host="127.0.0.1", **options):
        """Whether a client with these options can ask, what it says otherwise, and whether it was encrypted."""
        pairs = "".join(f" {name}={value}" for name, value in options.items())
        done = self.call(f"postgres:host={host} port={self.port} user={user} dbname={user}{pairs}", "rates", "show")
        return "" if done.returncode == 0 else done.stderr


def a_mode_encrypts_and_checks_as_much_as_libpq(cluster):
    root, other = cluster.folder / "ca.pem", cluster.folder / "another.pem"
    fits = {
        # (user, host, sslmode, sslrootcert): a part of what is said, or nothing where it works.
        ("plain", "127.0.0.1", "disable", None): "",
        ("secret", "127.0.0.1", "disable", None): "no pg_hba.conf entry",
        ("plain", "127.0.0.1", "allow", None): "",
        ("secret", "127.0.0.1", "allow", None): "",
        ("plain", "127.0.0.1", "prefer", None): "",
        ("secret", "127.0.0.1", "prefer", None): "",
        ("plain", "127.0.0.1", "require", None): "no pg_hba.conf entry",
        ("secret", "127.0.0.1", "require", None): "",
        ("secret", "127.0.0.1", "require", other): "certificate",
        ("secret", "127.0.0.1", "verify-ca", root): "",
        ("secret", "127.0.0.1", "verify-ca", other): "certificate",
        ("secret", "127.0.0.1", "verify-ca", None): "root.crt does not exist",
        ("secret", "127.0.0.1", "verify-full", root): "certificate",
        ("secret", "localhost", "verify-full", root): "",
        ("secret", "localhost", "verify-full", other): "certificate",
        ("secret", "localhost", "verify-full", "system"): "certificate",
        # The server's own certificate is as good as its authority's.
        ("secret", "localhost", "verify-full", cluster.folder / "data/server.crt"): "",
    }
    for (user, host, mode, file), expected in fits.items():
        options = {"sslmode": mode, **({"sslrootcert": file} if file else {})}
        said = cluster.reaches(user, host, **options)
        assert (expected in said) if expected else not said, (user, host, options, said)
    return f"{len(fits)} combinations"


def without_tls_only_a_mode_that_needs_it_fails(cluster):
    cluster.stop()
    cluster.start("off")
    try:
        for mode in ("disable", "allow", "prefer"):
            assert not cluster.reaches("books", sslmode=mode), mode
        for mode in ("require", "verify-ca"):
            said = cluster.reaches("books", sslmode=mode, sslrootcert=cluster.folder / "ca.pem")
            assert "server does not support TLS" in said, (mode, said)
    finally:
        cluster.stop()
        cluster.start("on")


def a_password_comes_from_a_file_and_never_stands_in_a_command_line(cluster):
    pairs = f"postgres:host=127.0.0.1 port={cluster.port} user=books dbname=books"
    url = f"postgres://books@127.0.0.1:{cluster.port}/books"
    file = cluster.own / "passwords"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:{cluster.port}:*:books:{escaped}\n")
    file.chmod(0o600)
    for ledger, environment in ((f"{pairs} passfile={file}", {}), (f"{url}?passfile={file}", {}), (url, {"PGPASSFILE": file})):
        done = cluster.call(ledger, "rates", "show", password=None, **environment)
        assert done.returncode == 0 and not done.stderr, done
    file.chmod(0o644)
    done = cluster.call(url, "rates", "show", password=None, PGPASSFILE=file)
    assert done.returncode == 1 and "chmod 600" in done.stderr, done
    done = cluster.call(url, "rates", "show", password="wrong")
    assert done.returncode == 1 and "password authentication failed" in done.stderr, done
    # It works there, and who does it is told.
    quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    done = cluster.call("unused", "--ledger", f"{pairs} password='{quoted}'", "rates", "show", password=None)
    assert done.returncode == 0 and "warning: everybody on this machine can read the password" in done.stderr, done


def bounced(cluster, mode):
    """PgBouncer in this mode, and its port."""
    own = free_port()
    path = cluster.folder / f"pgbouncer-{mode}.ini"
    cluster.put(path, BOUNCER.format(port=cluster.port, own=own, mode=mode).replace("host=127.0.0.1 port", f"user=books password='{PASSWORD.replace(chr(39), chr(39) * 2)}' host=127.0.0.1 port"))
    process = cluster.processes.start(*as_postgres(shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), path), name=f"pgbouncer-{mode}")
    return process, own


def it_works_behind_a_pooler_in_session_mode(cluster):
    database = cluster.fresh("session")
    process, port = bounced(cluster, "session")
    try:
        ledger = f"postgres://books@127.0.0.1:{port}/{database}?sslmode=disable"
        wait_until(20, "PgBouncer answers", lambda: cluster.call(ledger, "rates", "show").returncode == 0)
        done = cluster.call(ledger, "run", "-q", "--job", "j", "--", "true")
        assert done.returncode == 0, done
        done = cluster.call(ledger, "ledger", "verify")
        assert done.returncode == 0, done
        return done.stdout.strip()
    finally:
        stop(process)


def a_pooler_in_another_mode_is_refused_in_one_sentence(cluster):
    database = cluster.fresh("pooled")
    for mode in ("transaction", "statement"):
        process, port = bounced(cluster, mode)
        try:
            ledger = f"postgres://books@127.0.0.1:{port}/{database}?sslmode=disable"
            last = []

            def refused():
                last[:] = [cluster.call(ledger, "ledger", "verify")]
                return "does not answer" not in last[0].stderr
            wait_until(20, "PgBouncer answers", refused)
            done = last[0]
            assert done.returncode == 1 and "use PgBouncer's pool_mode=session" in done.stderr and len(done.stderr.splitlines()) == 1, done
        finally:
            stop(process)
    tables = cluster.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database).stdout.strip()
    assert tables == "0", f"{tables} tables were made"


def two_services_start_at_once_on_an_empty_database(cluster):
    rounds = 3
    for number in range(rounds):
        database = cluster.fresh(f"empty{number}")
        ledger = f"postgres://books@127.0.0.1:{cluster.port}/{database}"
        environment = plain_environment(PGPASSWORD=PASSWORD)
        key = cluster.own / f"key{number}"
        line = [JOBMETER, "serve", "--db", ledger, "--listen", "127.0.0.1:0", "--admin-key-file", key]
        services = [cluster.processes.start(*line, name=f"serve-{number}-{at}", env=environment) for at in range(2)]
        for service in services:
            wait_until(30, "a service says its URL", lambda: service.poll() is not None or '"url"' in service.log.read_text())
            assert service.poll() is None, service.log.read_text()
        keys = cluster.sql("SELECT count(*) FROM api_key", database).stdout.strip()
        assert keys == "1", f"{keys} admin keys"
        url = json.loads(services[1].log.read_text().splitlines()[0])["url"]
        done = cluster.call(url, "ledger", "verify", JOBMETER_KEY=key)
        assert done.returncode == 0, done
        for service in services:
            assert stop(service, 30) == 0, service.log.read_text()
    return f"{rounds} times"


SCENES = (
    a_mode_encrypts_and_checks_as_much_as_libpq, without_tls_only_a_mode_that_needs_it_fails,
    a_password_comes_from_a_file_and_never_stands_in_a_command_line, it_works_behind_a_pooler_in_session_mode,
    a_pooler_in_another_mode_is_refused_in_one_sentence, two_services_start_at_once_on_an_empty_database,
)


def main():
    # PostgreSQL's user has to reach it, and the path of a socket may not be long.
    with tempfile.TemporaryDirectory(prefix="jobmeter-pg-", dir="/tmp") as name, tempfile.TemporaryDirectory(prefix="jobmeter-pg-own-") as own:
        folder = pathlib.Path(name)
        (pathlib.Path(own) / "home").mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        folder.chmod(0o755)
        cluster = None
        try:
            cluster = Cluster(folder, pathlib.Path(own))
            return run_scenes("postgres", SCENES, cluster, print_logs=cluster.processes.print_logs)
        finally:
            if cluster:
                if cluster.server.poll() is None:
                    cluster.stop()
                cluster.processes.stop_all()


sys.exit(main())
