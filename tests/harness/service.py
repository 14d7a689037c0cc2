"""A ledger service of one's own, on a port that the kernel gives it."""

import json
import pathlib
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from harness.processes import Processes, plain_environment, stop
from harness.waiting import wait_until


class _Staying(urllib.request.HTTPRedirectHandler):
    """Where an answer leads to is not asked for."""

    def redirect_request(self, *_):
        return None


class LedgerService:
    """`jobmeter serve` in `folder`, with its administrator's key and more options; `environment` is what its clients need."""

    def __init__(self, jobmeter, folder, address="127.0.0.1:0", options=(), database=None):
        self.jobmeter, self.folder = str(jobmeter), pathlib.Path(folder)
        self.database = database or self.folder / "ledger.db"
        self.admin_key = self.folder / "ledger.db.admin-key"
        self.processes = Processes(self.folder)
        self.address, self.options = address, options
        self.start()

    def start(self):
        """Also again after a stop, on the same port."""
        log = self.folder / "serve.log"
        log.unlink(missing_ok=True)
        self.process = self.processes.start(self.jobmeter, "serve", "--db", self.database, "--admin-key-file", self.admin_key, "--listen", self.address, *self.options, name="serve")
        wait_until(20, "jobmeter serve says its URL", lambda: self.ended() or '"url"' in log.read_text())
        assert self.process.poll() is None, f"jobmeter serve ended with {self.process.returncode}:\n{log.read_text()}"
        self.url = re.search(r'"url":"([^"]*)"', log.read_text()).group(1)
        self.address = self.url.removeprefix("http://").split("/")[0]
        wait_until(20, f"{self.url}/readyz answers", lambda: urllib.request.urlopen(f"{self.url}/readyz", timeout=5))
        self.environment = plain_environment(
            JOBMETER_LEDGER=self.url, JOBMETER_KEY=self.admin_key, JOBMETER_SPOOL=self.folder / "spool")

    def ended(self):
        return self.process.poll() is not None

    def stop(self):
        stop(self.process, 30)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, *arguments, check=True, **environment):
        """One of jobmeter's verbs, as the administrator."""
        line = [self.jobmeter, *map(str, arguments)]
        done = subprocess.run(line, env={**self.environment, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments):
        return json.loads(self.call("--json", *arguments).stdout)

    def job(self, name):
        """What `jobs show` says of it; nothing where there is no such job yet."""
        return json.loads(self.call("--json", "jobs", "show", name, check=False).stdout or "null")

    def session(self, key=None):
        """The cookie of a browser that has signed in with a key, the administrator's where none is given."""
        form = urllib.parse.urlencode({"key": key or self.admin_key.read_text().strip()}).encode()
        asked = urllib.request.Request(f"{self.url}/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        try:
            urllib.request.build_opener(_Staying).open(asked, timeout=20)
        except urllib.error.HTTPError as answer:
            assert answer.code == 303, answer.read()
            return answer.headers["Set-Cookie"].split(";")[0]
        raise AssertionError("the key does not sign in")

    def key(self, name, *options):
        """The path of a new key."""
        path = self.folder / f"{name}.key"
        self.call(*options, "--to", path)
        return path
