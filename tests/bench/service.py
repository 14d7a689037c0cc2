#!/usr/bin/env python3
"""The ledger service beside PostgreSQL's own pgbench, in one run on one machine: a table in Markdown. As root.

pgbench runs the plain way: one transaction a report, on one hot account: SELECT … FOR UPDATE, UPDATE, INSERT.
"""
import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
JOBMETER = os.path.join(ROOT, "target/release/jobmeter")
ROWS = []

PLAIN = """\
BEGIN;
SELECT left_nanocredits FROM plain_account WHERE id = 1 FOR UPDATE;
UPDATE plain_account SET left_nanocredits = left_nanocredits - 250 WHERE id = 1;
INSERT INTO plain_entry (account, amount) VALUES (1, 250);
COMMIT;
"""


def as_postgres(*command):
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command]


class Cluster:
    """Of our own, with its defaults: it syncs."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="jobmeter-bench-", dir="/var/tmp")
        shutil.chown(self.directory, "postgres")
        data = os.path.join(self.directory, "data")
        subprocess.run(as_postgres(f"{PROGRAMS}/initdb", "--auth=trust", "--username=jobmeter", "-D", data),
                       check=True, stdout=subprocess.DEVNULL)
        self.server = subprocess.Popen(
            as_postgres(f"{PROGRAMS}/postgres", "-c", "listen_addresses=", "-c", "max_connections=200", "-D", data, "-k",
                        self.directory), stderr=subprocess.DEVNULL)
        for _ in range(100):
            if self.sql("postgres", "SELECT 1").returncode == 0:
                return self
            time.sleep(0.1)
        sys.exit("bench: PostgreSQL did not start")

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def sql(self, database, text):
        return subprocess.run([f"{PROGRAMS}/psql", "-qh", self.directory, "-U", "jobmeter", database, "-c", text],
                              capture_output=True, text=True)

    def url(self, database):
        self.sql("postgres", f"CREATE DATABASE {database}")
        return f"postgres://jobmeter@{self.directory.replace('/', '%2F')}/{database}"


def row(*cells):
    print("  ", *cells, flush=True)
    ROWS.append(cells)


def plain(cluster, seconds):
    cluster.url("plain")
    cluster.sql("plain", "CREATE TABLE plain_account (id INT PRIMARY KEY, left_nanocredits BIGINT); "
                         "CREATE TABLE plain_entry (account INT, amount BIGINT); INSERT INTO plain_account VALUES (1, 1e15)")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(PLAIN)
        script.flush()
        for clients in (1, 8, 64):
            found = subprocess.run(
                [f"{PROGRAMS}/pgbench", "-nh", cluster.directory, "-U", "jobmeter", "-c", str(clients), "-j", "2", "-T",
                 str(seconds), "-f", script.name, "plain"], capture_output=True, text=True)
            rate = re.search(r"tps = ([0-9.]+)", found.stdout)
            row("a report a transaction, plain", f"pgbench, {clients} clients", f"{float(rate[1]):.0f}/s", "–")


def bench(name, *arguments):
    found = subprocess.run(["cargo", "bench", "-q", "--bench", name, "--", *arguments], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"bench: {name} {arguments}: {found.stdout}{found.stderr}")
    return found.stdout


def load(cluster, seconds):
    for who, reach, options in (
        ("SQLite", "≥ 10 000/s, p99 ≤ 100 ms", []),
        ("PostgreSQL, 1 replica", "≥ 5 000/s", ["--db", cluster.url("one")]),
        ("PostgreSQL, 3 replicas", "≥ 5 000/s", ["--db", cluster.url("three"), "--replicas", "3"]),
    ):
        out = bench("load", "--seconds", str(seconds), *options)
        found = re.search(r": (\d+) reports/s.*p99 (\d+) ms", out)
        peak = re.findall(r"most memory of the service: (.*)", out)
        row("1 000 jobs of one account, a report per request", who, f"{found[1]}/s, p99 {found[2]} ms, {peak[0]}", reach)


def jobs(seconds):
    """What a report costs with few and with many open jobs that all report, in any order."""
    for count in (10, 1_000, 100_000):
        out = bench("load", "--seconds", str(seconds), "--jobs", str(count), "--connections", "1000", "--shuffled")
        found = re.search(r": (\d+) reports/s, (\d+) µs CPU.*p99 (\d+) ms", out)
        peak = re.search(r"most memory of the service: (.*)", out)
        row(f"{count} open jobs that all report, in any order", "SQLite",
            f"{found[1]}/s, {found[2]} µs CPU of the service each, p99 {found[3]} ms, {peak[1]}",
            "cost within a factor of 1.5; ≤ 200 MiB")


def posting(cluster):
    for who, reach, options in (("SQLite", "≥ 100 000/s", []), ("PostgreSQL", "≥ 50 000/s", ["--db", cluster.url("posting")])):
        out = bench("posting", *options)
        rate, entries = re.search(r"(\d+) reports/s", out), re.search(r"(\d+) entries, (\d+) problems", out)
        row("groups of 500 handed to the store, 1 000 jobs of one account", who,
            f"{rate[1]}/s, {entries[1]} entries, {entries[2]} problems", reach)


def hosts(seconds):
    """64 real jobs of one user on four "hosts" (a spool directory each): 5 credits at a price that two CPUs can burn."""
    directory = tempfile.mkdtemp(prefix="jobmeter-bench-")
    burn = os.path.join(directory, "burn")
    subprocess.run(["cc", "-O1", "-pthread", "-o", burn, os.path.join(ROOT, "tests/bench/burn.c")], check=True)
    db = os.path.join(directory, "l.db")
    serve = subprocess.Popen([JOBMETER, "serve", "--db", db, "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    url = json.loads(serve.stderr.readline())["url"]
    environment = dict(os.environ, JOBMETER_LEDGER=url, JOBMETER_KEY=f"{db}.admin-key", JOBMETER_USER="crowd")
    call = lambda *words: subprocess.run([JOBMETER, *words], env=environment, capture_output=True, text=True, check=True).stdout
    price = 5 / (2 * seconds)
    call("rates", "set", "--cpu-per-second", f"{price:.6f}")
    jobs = []
    for at in range(64):
        own = dict(environment, JOBMETER_SPOOL=f"{directory}/host-{at % 4}")
        jobs.append(subprocess.Popen([JOBMETER, "run", "-q", "--hold", "5min", "--", burn, "1"], env=own, stderr=subprocess.DEVNULL))
    ended = [job.wait() for job in jobs]
    account = json.loads(call("--json", "status"))
    charged, limit = float(account["current"]), float(account["limit"])
    row("64 jobs of one user on 4 hosts over HTTP, 5 credits", f"all ended with 75: {all(status == 75 for status in ended)}",
        f"overspent 0: {charged <= limit}, unburned {(limit - charged) / limit:.3%}, {call('ledger', 'verify').strip()}", "0, ≤ 0.5 %")
    serve.terminate()
    serve.wait()
    shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement of load (10)")
    parser.add_argument("--only", default="plain,load,jobs,posting,hosts", help="of these (all)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: root is needed, to start PostgreSQL as its user")
    subprocess.run(["cargo", "build", "-q", "--release"], cwd=ROOT, check=True)
    wanted = arguments.only.split(",")
    with Cluster() as cluster:
        if "plain" in wanted:
            plain(cluster, arguments.seconds)
        if "load" in wanted:
            load(cluster, arguments.seconds)
        if "jobs" in wanted:
            jobs(arguments.seconds)
        if "posting" in wanted:
            posting(cluster)
    if "hosts" in wanted:
        hosts(max(arguments.seconds * 12, 60))
    print("| what | who | measured | to reach |\n|---|---|---|---|")
    for cells in ROWS:
        print("| " + " | ".join(cells) + " |")


main()
