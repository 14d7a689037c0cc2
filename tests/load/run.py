#!/usr/bin/env python3
"""A service and thousands of sidecars, in every way that it has to stand: tests/load/run.py JOBMETER FLEET. As root.

SCENES (beside,crowd,watched,away,faults), STORES (sqlite,postgres) and SECONDS of each measurement (30) come from the environment, and so
do WHAT misbehaves in `beside` (all of it), the number of SIDECARS of `crowd` (10000), and for how long the service is AWAY (120)."""

import json
import os
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parent)]

from databases import Postgres
from fleet import Usage
from harness import let_pass
from misbehaviours import Misbehaviours
from trial import KINDS, Table, Trial, sidecars_at_most

JOBMETER, FLEET = (pathlib.Path(given).resolve() for given in sys.argv[1:3])
SECONDS = int(os.environ.get("SECONDS_EACH", "30"))
CROWD = sidecars_at_most(int(os.environ.get("SIDECARS", "10000")))
# Of the fleet beside which something happens.
SIDECARS, ACCOUNTS = 1_000, 50
SETTLE_S = 12
TABLE = Table()


def measured(fleet, seconds):
    fleet.mark()
    let_pass(seconds)
    return fleet.mark()


def told(mark):
    return f"p50 {mark['p50_ms']:.1f} ms, p99 {mark['p99_ms']:.1f} ms, most {mark['most_ms']:.0f} ms of {mark['reports']} reports"


def unharmed(mark):
    """No job was frozen or has ended."""
    harm = {"frozen": mark["frozen"], **mark["ended"]} if mark["frozen"] or mark["ended"] else {}
    return not harm, ", ".join(f"{name} {count}" for name, count in harm.items()) or "none"


def beside(kind):
    """1 000 sidecars, and everything that misbehaves."""
    past = {"accounts": 300, "days": 365, "silent": 30_000, "of": "silent"}
    with Trial(JOBMETER, FLEET, kind, TABLE, past=past) as trial:
        fleet = trial.play(SIDECARS, ACCOUNTS)
        let_pass(SETTLE_S)
        before = measured(fleet, SECONDS)
        usage = Usage(trial.service, trial.database)
        with Misbehaviours(trial, ACCOUNTS) as misbehaviours:
            mark = measured(fleet, SECONDS)
        memory = usage.memory("VmHWM")
        TABLE.note(trial.store, "what misbehaved", json.dumps(misbehaviours.counts))
        let_pass(SETTLE_S)
        after = measured(fleet, SECONDS)
        alone = max(before["p99_ms"], after["p99_ms"])
        TABLE.note(trial.store, "reports of 1 000 sidecars alone, before and after", f"{told(before)}; {told(after)}")
        TABLE.add(trial.store, "reports beside all that misbehaves", told(mark), f"p99 ≤ {max(2 * alone, 50):.0f} ms", mark["p99_ms"] <= max(2 * alone, 50))
        is_well, harm = unharmed(mark)
        TABLE.add(trial.store, "jobs frozen or stopped beside it", harm + said(mark), "none", is_well)
        TABLE.add(trial.store, "most memory of the service", f"{memory / 2**20:.0f} MiB", "≤ 300 MiB", memory <= 300 * 2**20)
        trial.check_books(fleet)


def said(mark):
    return f" ({mark['unanswered']})" if mark["unanswered"] else ""


def crowd(kind):
    """10 000 sidecars with a report each 10 s."""
    with Trial(JOBMETER, FLEET, kind, TABLE) as trial:
        empty = Usage(trial.service, trial.database).memory()
        fleet = trial.play(CROWD, CROWD // 20, over_s=CROWD // 150)
        let_pass(SETTLE_S)
        usage = Usage(trial.service, trial.database)
        mark = measured(fleet, SECONDS)
        share, of_database, memory = usage.share(), usage.share_of_database(), usage.memory()
        each = (memory - empty) / CROWD
        TABLE.note(trial.store, f"reports of {CROWD} sidecars", f"{mark['reports'] / mark['seconds']:.0f}/s, {told(mark)}{said(mark)}")
        TABLE.add(trial.store, "CPU of the service", f"{share:.1%} of a core" + (f", and {of_database:.1%} PostgreSQL" if of_database else ""), "≤ 25 %", share <= 0.25)
        TABLE.add(trial.store, "memory for each sidecar", f"{each / 1000:.1f} kB ({memory / 2**20:.0f} MiB, {empty / 2**20:.0f} without)", "≤ 20 kB", each <= 20_000)
        stops = fleet.ask("stop 20")["not_told"]
        mark = fleet.mark()
        TABLE.add(trial.store, "20 stops told", f"p50 {mark['stop_p50_ms']:.0f} ms, most {mark['stop_most_ms']:.0f} ms {stops or ''}", "≤ 1 s",
                  not stops and mark["stop_most_ms"] <= 1_000)
        trial.check_books(fleet)


def watched(kind):
    """100 watchers of one account, all of whose jobs burn."""
    with Trial(JOBMETER, FLEET, kind, TABLE) as trial:
        fleet = trial.play(20, 1, over_s=5)
        shares = []
        for what in ((), ("streams",), (), ("streams",)):
            with Misbehaviours(trial, 1, what) as misbehaviours:
                let_pass(SETTLE_S)
                usage, mark = Usage(trial.service, trial.database), measured(fleet, SECONDS)
                shares.append((usage.share(), mark["reports"] / mark["seconds"]))
        events = misbehaviours.counts.get("streams read", 0) / (SECONDS + SETTLE_S)
        more = (shares[1][0] + shares[3][0] - shares[0][0] - shares[2][0]) / 2
        all_told = ", ".join(f"{share:.2%} at {reports:.0f} reports/s" for share, reports in shares)
        TABLE.add(trial.store, "100 watchers of an account with 20 jobs", f"{more:.2%} of a core ({all_told})", "≤ 2 %", more <= 0.02)
        TABLE.add(trial.store, "events to all of them", f"{events:.0f}/s", "≤ 100/s", events <= 101)
        trial.check_books(fleet)


def away(kind):
    """The service is away, and 1 000 sidecars come back."""
    with Trial(JOBMETER, FLEET, kind, TABLE) as trial:
        # A jobmeter of before has leases of 30 s, and no such setting.
        has_lease = trial.service.call("ledger", "set", "--lease", "3min", check=False).returncode == 0
        outage = int(os.environ.get("AWAY", "120" if has_lease else "20"))
        fleet = trial.play(SIDECARS, ACCOUNTS)
        let_pass(SETTLE_S)
        alone = measured(fleet, SECONDS)
        fleet.mark()
        trial.service.stop()
        let_pass(outage)
        silent = fleet.mark()
        trial.service.start()
        began = fleet.mark()
        let_pass(SECONDS)
        mark = fleet.mark()
        normal = max(2 * alone["p99_ms"], 50)
        late = [second for second, _, p99 in mark["each_second"] if p99 > normal]
        back_s = max(late) + 1 if late else 0
        TABLE.note(trial.store, f"reports of {SIDECARS} sidecars alone", told(alone))
        TABLE.note(trial.store, "reports as they come back, by second", " ".join(f"{reports}:{p99:.0f}" for _, reports, p99 in mark["each_second"]))
        TABLE.add(trial.store, f"p99 back to normal ({normal:.0f} ms) after {outage} s away", f"{back_s} s", "≤ 10 s", back_s <= 10)
        ended = {**silent["ended"], **began["ended"], **mark["ended"]}
        frozen = silent["frozen"] + began["frozen"] + mark["frozen"]
        TABLE.add(trial.store, "jobs lost", f"{ended or 'none'}, {frozen} frozen for a while", "none", not ended)
        trial.check_books(fleet)


def faults(kind):
    """Kill, restart, full disk and fail-over in the middle of it."""
    with Trial(JOBMETER, FLEET, kind, TABLE, small_disk=True) as trial:
        if kind is Postgres:
            trial.database.add_standby()
        fleet = trial.play(SIDECARS, ACCOUNTS)
        let_pass(5)
        fleet.mark()
        for name, fault in faults_of(trial):
            fault()
            let_pass(SECONDS)
            mark = fleet.mark()
            ended = mark["ended"] or "none"
            TABLE.add(trial.store, f"jobs lost after {name}", f"{ended}, {mark['frozen']} frozen for a while; {told(mark)}{said(mark)}", "none", not mark["ended"])
        trial.check_books(fleet)


def faults_of(trial):
    service, database = trial.service, trial.database

    def kill():
        service.kill()
        service.start()

    def restart():
        service.stop()
        service.start()

    def fill():
        trial.disk.fill()
        let_pass(8)
        trial.disk.free()
        if service.ended():
            service.start()

    yield "a kill -9 of the service", kill
    yield "a restart of the service", restart
    if trial.store == "SQLite":
        yield "8 s of a full disk", fill
    else:
        yield "a kill -9 of PostgreSQL", database.restart
        yield "a fail-over to the standby", database.fail_over


SCENES = {scene.__name__: scene for scene in (beside, crowd, watched, away, faults)}


def main():
    for name in os.environ.get("SCENES", ",".join(SCENES)).split(","):
        for store in os.environ.get("STORES", ",".join(KINDS)).split(","):
            print(f"load: {name} on {store}, load of the machine {os.getloadavg()[0]:.1f}", flush=True)
            try:
                SCENES[name](KINDS[store])
            except Exception as error:
                TABLE.add(store, name, f"{type(error).__name__}: {str(error)[:500]}", "goes through", False)
    TABLE.print()
    print(f"load: {TABLE.missed} of {len(TABLE.rows)} figures missed" + ("" if TABLE.missed else " ... ok"))
    return 1 if TABLE.missed else 0


if __name__ == "__main__":
    sys.exit(main())
