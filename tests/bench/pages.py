#!/usr/bin/env python3
"""How fast the pages are with 100 000 jobs and a year of entries: tests/bench/pages.py JOBMETER [JOBS]. Half of the jobs are
one user's. Each page is asked for 40 times over one connection; medians and the slowest."""

import http.client
import json
import pathlib
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

JOBMETER = sys.argv[1]
JOBS = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
CHARGES = 10
ASKED = 40
DAY = 86_400
RATE = 250


def rows_of(template, values):
    """Copies of a row, with other values in some of its columns."""
    row = dict(template)
    row.update(values)
    return tuple(row.values())


def fill(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    last = {table: dict(db.execute(f"SELECT * FROM {table}").fetchone())
            for table in ("account", "period", "job", "attempt", "identity", "receipt")}
    kinds = {row["kind"]: dict(row) for row in db.execute("SELECT * FROM entry")}
    today = last["period"]["start"]
    for table in ("account", "period", "job", "attempt", "identity", "receipt", "usage_day"):
        db.execute(f"DELETE FROM {table}")
    db.execute("DROP TRIGGER entry_no_delete")
    db.execute("DELETE FROM entry")
    db.execute("CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END")
    db.execute("BEGIN")
    chance = random.Random(1)
    numbers, charged = {}, {}

    def insert(table, row):
        db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)

    for at in range(JOBS):
        user = "ann" if at % 2 else f"user-{at % 100}"
        start = today - (JOBS - at) * 364 * DAY // JOBS
        day, start_us = start // DAY * DAY, start * 1_000_000
        job, attempt = f"job-{at}", str(uuid.UUID(int=(0x7 << 76) | (start_us // 1000 << 80) | (0x8 << 60) | at))
        each_us = chance.randrange(1_000_000, 9_000_000)
        cpu_us, credits = CHARGES * each_us, CHARGES * (each_us * RATE // 1000)
        kind = chance.choice(["training", "generation", "python-session"])
        insert("job", rows_of(last["job"], {"id": job, "owner": user, "kind": kind, "name": f"work {at}", "started_us": start_us, "charged": credits}))
        insert("attempt", rows_of(last["attempt"], {
            "id": attempt, "job": job, "owner": user, "period": day, "started_us": start_us, "ended_us": start_us + 60_000_000,
            "cpu_us": cpu_us, "accounted_cpu": credits, "told_cpu_us": cpu_us, "charged_cpu": credits, "ceilings": f"1:{credits}"}))
        identity = json.loads(last["identity"]["body"]) | {"attempt": attempt, "job": job, "user": user, "kind": kind}
        insert("identity", (attempt, json.dumps(identity)))
        insert("receipt", (attempt, last["receipt"]["body"]))
        for step, entry in enumerate([kinds["open"]] + [kinds["charge"]] * CHARGES + [kinds["finish"]]):
            number = numbers[user] = numbers.get(user, 0) + 1
            values = {"owner": user, "number": number, "at_us": start_us + step * 5_000_000, "period": day, "day": day, "job": job, "attempt": attempt}
            if entry["kind"] == "charge":
                amount = credits // CHARGES
                values |= {"amount": amount, "cpu": amount, "cpu_us": each_us}
            insert("entry", rows_of(entry, values))
        charged[user, day] = charged.get((user, day), 0) + credits
    # The account is in a period of today.
    for user in numbers:
        charged.setdefault((user, today), 0)
    for (user, day), credits in charged.items():
        insert("period", rows_of(last["period"], {"owner": user, "start": day, "ends": day + DAY, "credit_limit": None, "charged": credits}))
    for user, number in numbers.items():
        insert("account", rows_of(last["account"], {"owner": user, "entries": number, "credit_limit": None}))
    sums = ", ".join(f"sum({column})" for column in ("amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"))
    db.execute(f"INSERT INTO usage_day SELECT owner, day, {sums} FROM entry WHERE kind = 'charge' GROUP BY owner, day")
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return today


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-pages-"))
    db = directory / "ledger.db"
    subprocess.run([JOBMETER, "--ledger", str(db), "run", "-q", "--", sys.executable, "-c", "sum(range(1000000))"], check=True)
    began = time.monotonic()
    today = fill(db)
    print(f"{JOBS} jobs, {JOBS * (CHARGES + 2)} entries, {db.stat().st_size >> 20} MiB, made in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    print(subprocess.run([JOBMETER, "--ledger", str(db), "ledger", "verify"], capture_output=True, text=True).stdout.split("\n")[0],
          f"({time.monotonic() - began:.1f} s)", flush=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    service = subprocess.Popen([JOBMETER, "serve", "--db", str(db), "--listen", address], stderr=open(directory / "log", "w"))
    try:
        key = pathlib.Path(f"{db}.admin-key")
        while not key.exists():
            time.sleep(0.05)
        time.sleep(1)
        line = http.client.HTTPConnection(address)
        form = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        line.request("POST", "/sign-in", body=f"key={key.read_text().strip()}", headers=form)
        signed_in = line.getresponse()
        signed_in.read()
        cookie = signed_in.headers["Set-Cookie"].split(";")[0]
        month = time.strftime("%Y-%m", time.gmtime(today - 40 * DAY))
        middle = f"job-{JOBS // 2 | 1}"
        for path in (
            "/widget/credits?user=ann", "/jobs", "/jobs?user=ann", "/jobs?user=ann&kind=generation", "/jobs?running=true", "/jobs?user=ann&running=true",
            f"/jobs?user=ann&before={middle}", f"/jobs/{middle}", f"/usage?month={month}&user=ann", f"/usage?month={month}",
            f"/usage.csv?month={month}", f"/usage.focus.csv?month={month}", "/admin?user=ann", "/api/v1/users/ann/credits", "/api/v1/users/ann/usage",
        ):
            took = []
            for _ in range(ASKED):
                began = time.perf_counter()
                line.request("GET", path, headers={"Cookie": cookie})
                answer = line.getresponse()
                body = answer.read()
                took.append((time.perf_counter() - began) * 1000)
                assert answer.status == 200, (path, answer.status, (directory / "log").read_text()[-600:])
            print(f"{path:44} median {statistics.median(took):7.1f} ms, slowest {max(took):7.1f} ms, {len(body)} bytes", flush=True)
    finally:
        service.terminate()
        service.wait()
        subprocess.run(["rm", "-rf", str(directory)])


main()
