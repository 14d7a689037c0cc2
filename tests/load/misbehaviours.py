"""What misbehaves beside a fleet: a process of its own, with a patience that nothing else on the machine has to wait for."""

import json
import os
import pathlib
import subprocess
import sys

from databases import Postgres
from harness import plain_environment
from harness.processes import die_with_parent

STREAMS, STREAMS_OF_KEY, PAGES = 100, 16, 20
LOCKED_S = 600
WHAT = ("reports", "verify", "streams", "locked", "nul", "silent", "invented", "forms", "pages")


def go_last():
    """Its own work is not what is measured."""
    die_with_parent()
    os.nice(19)


class Misbehaviours:
    """While it is entered; `counts` are there afterwards."""

    def __init__(self, trial, accounts, what=None):
        what = os.environ.get("WHAT", ",".join(WHAT)).split(",") if what is None else what
        has_rows = isinstance(trial.database, Postgres)
        # A file has no lock for one account.
        self.what = [kind for kind in what if has_rows or kind != "locked"]
        service, self.trial, self.counts, self.lock = trial.service, trial, {}, None
        key = lambda name, scope: service.key(name, "key", "create", name, "--scope", scope).read_text().strip()
        settings = {
            "address": service.address, "accounts": accounts, "what": self.what, "silent": "silent", "locked": "locked",
            "admin": service.admin_key.read_text().strip(), "report": trial.key.read_text().strip(),
            "read": [key(f"read-{at}-{id(self)}", "read") for at in range(-(-STREAMS // STREAMS_OF_KEY))] if "streams" in what else [],
            "sessions": [service.session() for _ in range(PAGES)] if "pages" in what else [],
        }
        self.path = pathlib.Path(trial.folder / "misbehaviours.json")
        self.path.write_text(json.dumps(settings))

    def __enter__(self):
        if "locked" in self.what:
            self.trial.service.call("--user", "locked", "account", "limit", "5")
            self.lock = self.trial.database.lock_account("locked", LOCKED_S)
        program = pathlib.Path(__file__).with_name("misbehave.py")
        self.process = subprocess.Popen([sys.executable, str(program), str(self.path)], stdout=subprocess.PIPE, text=True, env=plain_environment(), preexec_fn=go_last)
        return self

    def __exit__(self, *_):
        if self.lock:
            self.lock.kill()
            self.lock.wait()
        self.process.terminate()
        told, _ = self.process.communicate(timeout=120)
        self.counts = json.loads(told or "{}")
