"""A service on a database, with a fleet beside it, and what has to be true of its books in the end."""

import json
import pathlib
import resource
import shutil
import subprocess
import tempfile

from databases import Postgres, SmallDisk, Sqlite
from fleet import Fleet
from harness import LedgerService, plain_environment

# Descriptors of a service and of a fleet beside their connections.
OTHERS = 500
DISK_MEGABYTES = 400


class Table:
    """What was measured, and whether it reaches what it has to."""

    def __init__(self):
        self.rows, self.missed = [], 0

    def add(self, store, what, measured, reach, is_reached):
        self.missed += not is_reached
        self.rows.append((store, what, measured, reach, "yes" if is_reached else "MISSED"))
        # The runner shows such lines of a stage that has passed.
        print("load:", *self.rows[-1][:4], "... ok" if is_reached else "MISSED", sep=" | ", flush=True)

    def note(self, store, what, measured):
        self.rows.append((store, what, measured, "", ""))
        print("load:", store, what, measured, sep=" | ", flush=True)

    def print(self):
        print("| store | what | measured | reach | |\n|---|---|---|---|---|")
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


class Trial:
    """`kind` is a database; on a `small_disk` it can be filled up."""

    def __init__(self, jobmeter, program, kind, table, small_disk=False, past=None):
        self.program, self.table = program, table
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-load-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.disk = SmallDisk(self.folder / "disk", DISK_MEGABYTES) if small_disk else None
        try:
            place = self.folder / ("disk" if small_disk else "database")
            place.mkdir(exist_ok=True)
            self.database = kind(place)
            self.store = self.database.name
            if past:
                self.fill(**past)
            own = self.folder / "service"
            own.mkdir()
            self.service = LedgerService(jobmeter, own, database=self.database.location)
            self.key = self.service.key("nodes", "key", "create", "nodes", "--scope", "report")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if service := getattr(self, "service", None):
            service.stop()
        if database := getattr(self, "database", None):
            database.stop()
        if self.disk:
            self.disk.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, **options):
        line = [self.program, "fill", "--db", self.database.location, *(word for name, value in options.items() for word in (f"--{name}", value))]
        subprocess.run([str(word) for word in line], check=True, env=plain_environment())

    def play(self, sidecars, accounts, **options):
        return Fleet(self.program, self.service, self.key, sidecars, accounts, **options)

    def check_books(self, fleet):
        """All sidecars end: what each account has burned is what it was told, and what stands in the books, which hold together."""
        told = fleet.finish()
        wrong = [] if told["all"] else ["not all sidecars could say their last word"]
        burned = 0
        for account, sums in sorted(told["accounts"].items()):
            burned += sums["burned"]
            if sums["burned"] != sums["charged"] + sums["overshoot"]:
                wrong.append(f"{account} burned {sums['burned']}, and was told {sums['charged']} + {sums['overshoot']}")
            charged = nanocredits(self.service.call("--json", "--user", account, "status").stdout)
            if charged != sums["charged"]:
                wrong.append(f"{account} was told {sums['charged']}, and the books say {charged}")
        # Past the service, which verifies only when nobody else wants the machine.
        verified = self.service.call("ledger", "verify", check=False, JOBMETER_LEDGER=str(self.database.location))
        if verified.returncode:
            wrong.append(f"verify: {verified.stdout}{verified.stderr}")
        measured = f"{burned / 1e9:.4f} credits of {len(told['accounts'])} accounts, {verified.stdout.strip()}"
        self.table.add(self.store, "burned, acknowledged, in the books", "; ".join([measured, *wrong[:5]]), "the same", not wrong)
        return told


def sidecars_at_most(wanted):
    """Each has two connections; a machine may let a process have too few descriptors for them, even of root."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + OTHERS
    if most < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
            return wanted
        except ValueError:
            pass
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(wanted, (most - OTHERS) // 2)


def nanocredits(status):
    """What an account was charged, exactly."""
    charged = json.loads(status, parse_float=str, parse_int=str)["charged"]
    whole, _, fraction = charged.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


KINDS = {"sqlite": Sqlite, "postgres": Postgres}
