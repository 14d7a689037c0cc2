#!/usr/bin/env python3
"""Two builds beside each other: versions.py OLD NEW, each a directory with jobmeter, jobmeter-wrapper and jobmeter-nvml. As root.

Sidecars, services, relays, wrappers, ledgers and spools of the one meet those of the other. Each case works, to the last
nanocredit, or is refused in one sentence that says what to update. A line for each."""

import contextlib
import decimal
import json
import os
import pathlib
import signal
import sys
import tempfile

import left_over
from sandbox import Cluster, Sandbox, busy, wait_until

from harness import Skip, run_scenes, skip_unless

UPDATES = ("use a newer jobmeter", "use a wrapper of the same jobmeter", "update ")


class Refused(Exception):
    """In one sentence that says what to update."""


class Pair:
    """Both builds; the names say which one does what."""

    def __init__(self, old, new, folder):
        self.binaries = {"old": old, "new": new}
        self.folder = folder
        self.count = 0

    def fresh(self):
        """A folder of its own for each case."""
        self.count += 1
        return self.folder / f"case-{self.count}"

    def sandbox(self, which, folder, ledger="ledger.db"):
        return Sandbox(self.binaries[which], folder, ledger)


def exact(text):
    return json.loads(text, parse_float=decimal.Decimal)


def refuse(what, text):
    """Whoever is refused reads one sentence, and at most a cause and a hint behind it."""
    lines = text.strip().splitlines()
    first, rest = lines[0], lines[1:]
    sentence = first.removeprefix("jobmeter: error: ")
    is_one = first != sentence and ". " not in sentence and all(line.startswith(("  caused by: ", "  hint: ")) for line in rest)
    assert is_one and any(word in sentence for word in UPDATES), f"{what}: not one sentence that says what to update:\n{text}"
    raise Refused(sentence)


def ask(sandbox, *arguments):
    """What it prints for programs."""
    called = sandbox.call("--json", *arguments, status=None)
    if called.returncode != 0:
        refuse(arguments, called.stderr)
    return exact(called.stdout)


def run(sandbox, job, *options, status=0, **more):
    """A job that ends with this status, if jobmeter starts it."""
    called = sandbox.run(job, *options, status=None, **more)
    if called.returncode == 125:
        refuse(job, called.stderr)
    assert called.returncode == status, f"{job}: {called.returncode}\n{called.stderr}"


def charged_exactly(sandbox, job, receipt):
    """The receipt is in the books to the nanocredit, and so is the job."""
    total = exact(receipt.read_text())["credits"]["total"]
    shown = ask(sandbox, "jobs", "show", job)
    entries = ask(sandbox, "--user", shown["user"], "account", "show", "--entries", "10000")["entries"]
    of_job = sum(entry["amount"] for entry in entries if entry["job"] == job and entry["kind"] in ("charge", "correct"))
    assert total == of_job == shown["charged"]["cpu"] > 0, (total, of_job, shown["charged"])
    return total


def verified(sandbox):
    found = ask(sandbox, "ledger", "verify")
    assert not found["problems"], found


def told(case, pair):
    try:
        return f"works: {case(pair)}"
    except Refused as sentence:
        return f"refused: {sentence}"


def both_ways(case):
    """A scene for each direction."""
    scenes = []
    for one, other in (("old", "new"), ("new", "old")):
        def scene(pair, one=one, other=other):
            return told(lambda pair: case(pair, one, other), pair)
        scene.__name__ = case.__name__.replace("one", one, 1).replace("another", other, 1)
        scenes.append(scene)
    return scenes


def one_run_before_another_service(pair, one, other):
    folder = pair.fresh()
    server = pair.sandbox(other, folder / "server")
    with server.serve() as service:
        client = pair.sandbox(one, folder / "client", service.url)
        client.environment["JOBMETER_KEY"] = service.admin
        ask(client, "--user", "poor", "account", "limit", "0.0004")
        ask(client, "--user", "broke", "account", "limit", "0")
        receipt = client.folder / "receipt.json"
        run(client, "long-1", "--receipt", receipt, command=busy(1))
        total = charged_exactly(client, "long-1", receipt)
        run(client, "poor-1", "--receipt", receipt, command=busy(60), status=75, user="poor")
        assert charged_exactly(client, "poor-1", receipt) <= decimal.Decimal("0.0004")
        run(client, "never-1", status=75, user="broke")
        assert ask(client, "tokens", "long-1", "1200", "--key", "t-1")["charged"] == decimal.Decimal("0.006")
        assert ask(client, "tokens", "long-1", "1200", "--key", "t-1")["again"]
        run(client, "gpu-1", command=["sh", "-c", "exit 3"], status=3)
        verified(client)
        return f"{total} credits in receipt and entries"


def one_relay_with_another_wrapper(pair, one, other):
    folder = pair.fresh()
    relaying, wrapping = pair.sandbox(one, folder), pair.sandbox(other, folder)
    socket = relaying.folder / "relay.sock"
    relay = left_over.relay_of(relaying, socket)
    log = relaying.folder / "wrapper.log"
    with open(log, "w") as out:
        wrapper = left_over.wrapper_of(wrapping, socket, busy(1), out)
    status = wrapper.wait()
    relay.send_signal(signal.SIGTERM)
    assert relay.wait() == 0, (relaying.folder / "relay.log").read_text()
    if status == 125:
        refuse("the wrapper", log.read_text())
    assert status == 0, log.read_text()
    job = ask(relaying, "jobs", "show", "pod-1")
    receipt = job["attempts"][0]["receipt"]
    assert job["state"] == "ended" and receipt["credits"]["total"] == job["charged"]["total"] > 0, job
    verified(relaying)
    return f"{job['charged']['total']} credits"


def a_ledger_that_one_has_opened_opened_by_another(pair, one, other):
    """And a third time by the first: nothing that either of them wrote keeps the other from going on."""
    folder = pair.fresh()
    first, second = pair.sandbox(one, folder), pair.sandbox(other, folder)
    receipt = folder / "receipt.json"
    ask(first, "account", "grant", "1", "--why", "prize", "--key", "g-1")
    run(first, "first-1", "--receipt", receipt)
    verified(second)
    assert ask(second, "account", "grant", "1", "--why", "prize", "--key", "g-1")["again"]
    charged_exactly(second, "first-1", receipt)
    run(second, "second-1", "--receipt", receipt)
    total = charged_exactly(first, "second-1", receipt)
    verified(first)
    return f"{total} credits of the second's job in the books of the first"


def a_spool_of_one_settled_by_another(pair, one, other):
    folder = pair.fresh()
    path = left_over.killed(pair.sandbox(one, folder), "killed-1")
    burned = decimal.Decimal(str(left_over.newest(path)["usage"]["cpu_used_seconds"]))
    second = pair.sandbox(other, folder)
    second.environment["JOBMETER_SPOOL"] = str(path.parent)
    flushed = ask(second, "spool", "flush")
    assert len(flushed["settled"]) == 1 and not flushed["kept"], flushed
    job = ask(second, "jobs", "show", "killed-1")
    assert job["attempts"][0]["reason"] == "meter_lost" and job["virtual"]["cpu_seconds"] == burned, (burned, job)
    verified(second)
    return f"{burned} s as recorded"


def a_job_that_outlives_its_one_service_and_goes_on_with_another(pair, one, other):
    """The service is replaced under it, on the same database and address."""
    folder = pair.fresh()
    first = pair.sandbox(one, folder / "server")
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(first.serve())
        address = service.url.removeprefix("http://")
        client = pair.sandbox(one, folder / "client", service.url)
        client.environment["JOBMETER_KEY"] = service.admin
        receipt = client.folder / "receipt.json"
        job = client.start("run", "--job", "long-1", "--receipt", receipt, "--quiet", "--", *busy(6))
        wait_until(20, "long-1 runs", lambda: client.call("jobs", "show", "long-1", status=None).returncode == 0)
        stack.close()
        assert job.poll() is None, "it had ended before the service was replaced"
        second = pair.sandbox(other, folder / "server")
        with second.serve(listen=address):
            assert job.wait() == 0, job.returncode
            total = charged_exactly(client, "long-1", receipt)
            verified(client)
            return f"{total} credits"


def replicas_of_both_on_one_database(pair):
    skip_unless(any(pathlib.Path("/").glob("usr/lib/postgresql/*/bin/initdb")), "PostgreSQL is not installed")
    folder = pair.fresh()
    with Cluster() as cluster, contextlib.ExitStack() as stack:
        database = cluster.create("shared")
        clients = {}
        for which in ("old", "new"):
            service = stack.enter_context(pair.sandbox(which, folder / f"{which}-server").serve(database))
            clients[which] = pair.sandbox(which, folder / f"{which}-client", service.url)
            # The first one makes the key.
            clients[which].environment["JOBMETER_KEY"] = clients.get("key") or service.admin
            clients.setdefault("key", service.admin)
        jobs = []
        for which in ("old", "new"):
            for number in range(4):
                job, client = f"{which}-{number}", clients[which]
                jobs.append((job, client, client.folder / f"{job}.json"))
        running = [client.start("run", "--job", job, "--receipt", receipt, "--quiet", "--", *busy(0.5)) for job, client, receipt in jobs]
        assert [process.wait() for process in running] == [0] * len(jobs)
        # What went through the one is asked of the other.
        totals = [charged_exactly(clients["new" if job.startswith("old") else "old"], job, receipt) for job, _, receipt in jobs]
        verified(clients["old"])
        verified(clients["new"])
        return f"works: {len(jobs)} jobs of one account, {sum(totals)} credits"


def each_command_of_the_old_one_with_the_new_ones_settings(pair):
    """A settings file that the new one takes is taken by the old one, or it says which key it does not know."""
    folder = pair.fresh()
    names = [path.parent for path in pathlib.Path(__file__).parent.glob("*/settings/config.toml")]
    newest = (max(names) / "config.toml").read_text()
    found = {}
    for which in ("old", "new"):
        sandbox = pair.sandbox(which, folder / which)
        (sandbox.folder / "config.toml").write_text(newest)
        called = sandbox.call("run", "--dry-run", "--", "true", status=None)
        found[which] = "takes it" if called.returncode == 0 else called.stderr.strip()
        assert called.returncode == 0 or "unknown field" in called.stderr, called
    return f"the old one: {found['old']}; the new one: {found['new']}"


def scenes():
    cases = (one_run_before_another_service, one_relay_with_another_wrapper, a_ledger_that_one_has_opened_opened_by_another,
             a_spool_of_one_settled_by_another, a_job_that_outlives_its_one_service_and_goes_on_with_another)
    found = [scene for case in cases for scene in both_ways(case)]
    return [*found, replicas_of_both_on_one_database, each_command_of_the_old_one_with_the_new_ones_settings]


def main(old, new):
    for directory in (old, new):
        for name in ("jobmeter", "jobmeter-wrapper", "jobmeter-nvml"):
            assert (pathlib.Path(directory) / name).exists(), f"{directory}/{name} is missing"
    if os.geteuid() != 0:
        raise Skip("only root makes PID namespaces and other users")
    with tempfile.TemporaryDirectory(prefix="jobmeter-versions-") as folder:
        os.chmod(folder, 0o755)
        return run_scenes("versions", scenes(), Pair(old, new, pathlib.Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except Skip as reason:
        print(f"skipped: versions: {reason}")
