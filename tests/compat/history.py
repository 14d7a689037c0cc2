"""A rich ledger: three days at the end of a month in the lives of some accounts, the same on SQLite and on PostgreSQL."""

import json
import subprocess
import uuid

from sandbox import busy, wait_until

H200 = {"model": "NVIDIA H200", "busy_seconds": 4.5, "allocated_seconds": 10}
SLICE = {"model": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "busy_seconds": 2.25, "allocated_seconds": 8}
USERS = ["ann", "bob", "cat", "dan", "eve", "fay", "Zoë O'Hara"]
LAST_DAY = "2025-04-01"


class Sidecar:
    """An attempt that speaks the protocol by itself, so that its figures are known to the last digit."""

    def __init__(self, service, key, job, user, **more):
        self.service, self.key, self.attempt = service, key, str(uuid.uuid7() if hasattr(uuid, "uuid7") else uuid.uuid4())
        self.resources = {"cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6_000, **more.pop("resources", {})}
        identity = {
            "attempt": self.attempt, "job": job, "task": "0", "user": user, "kind": "training", "name": None, "labels": {},
            "command": ["./train", "--epochs", "3"], "host": "node-7", **more}
        self.lease = self.tell("PUT", "", {"identity": identity, "resources": self.resources})["opened"]["lease"]
        self.seq = 0

    def tell(self, method, what, body):
        return self.service.told(method, f"/api/v1/attempts/{self.attempt}{what}", body, key=self.key)

    def report(self, usage):
        self.seq += 1
        answer = self.tell("PUT", "/usage", {
            "attempt": self.attempt, "seq": self.seq, "usage": usage, "period": self.lease["period"],
            "ceiling_version": self.lease["version"], "ceiling": self.lease["ceiling"], "resources": self.resources})
        self.lease = answer["decision"].get("lease", self.lease)
        return answer

    def finish(self, usage, reason="completed"):
        return self.tell("POST", "/finish", {
            "attempt": self.attempt, "usage": usage, "period": self.lease["period"], "reason": reason, "receipt": {}})


def usage(cpu, gpus=None, tokens=0):
    return {"cpu_used_seconds": cpu, "cpu_allocated_seconds": 2 * cpu, "gpus": gpus or {}, "tokens": tokens}


def first_day(sandbox, receipts):
    """Limits, grants, corrections, jobs of every end, tokens."""
    sandbox.clock.set("2025-03-30T10:00:00")
    for user, line in [
        ("bob", ["2", "--why", "intern"]), ("cat", ["40", "--period", "month"]), ("dan", ["0"]), ("eve", ["none"]),
        ("fay", ["0.0003"]),
    ]:
        sandbox.call("--user", user, "account", "limit", *line)
    for user, line in [
        ("ann", ["grant", "10", "--why", "prize", "--expires-in", "30 days"]),
        ("ann", ["grant", "1.5", "--why", "short", "--expires-in", "20h", "--key", "g-1"]),
        ("bob", ["grant", "0.5", "--why", "for ever"]),
        ("bob", ["adjust", "-0.25", "--why", "mistake"]),
        ("cat", ["adjust", "1.000000001", "--why", "given back", "--key", "a-1"]),
        ("cat", ["adjust", "1.000000001", "--why", "given back", "--key", "a-1"]),
    ]:
        sandbox.call("--user", user, "account", *line)

    def receipt(name):
        return ["--receipt", receipts / f"{name}.json"]

    labels = ["--label", "team=search", "--label", "model=llm-7b", "--name", "Nightly training"]
    sandbox.run("train-1", *labels, *receipt("completed"), command=busy(0.3))
    sandbox.run("train-2", "--task", "0")
    sandbox.run("train-2", "--task", "1", *receipt("failed"), command=["sh", "-c", "exit 3"], status=3)
    sandbox.run("train-2", "--task", "1")
    sandbox.run("chat-1", "--kind", "python-session", *receipt("signalled"), command=["sh", "-c", "kill -9 $$"], status=137,
                user="eve")
    sandbox.run("gen-1", "--kind", "generation", "--limit", "0.0001", *receipt("job_limit"), command=busy(60), status=75, user="bob")
    sandbox.run("poor-1", *receipt("credits_exhausted"), command=busy(60), status=75, user="fay")
    sandbox.run("never-1", *receipt("refused"), status=75, user="dan")
    sandbox.run("lost-1", *receipt("not_found"), command=["/nowhere/train"], status=127)
    options, environment = sandbox.fake_gpu()
    sandbox.run("gpu-0", *options, *receipt("gpu"), command=["sleep", "1.5"], user="eve", **environment)
    tokens(sandbox)


def tokens(sandbox):
    sandbox.call("tokens", "train-1", "1200", "--key", "turn-1")
    sandbox.call("tokens", "train-1", "1200", "--key", "turn-1")
    sandbox.call("tokens", "train-1", "1300", "--key", "turn-1", status=1)
    reserved = sandbox.json("tokens", "train-1", "8000", "--reserve", "--for", "5m", "--key", "turn-2")["reserved"]["reservation"]
    sandbox.call("tokens", "train-1", "3000", "--settle", reserved, "--key", "turn-2-end")
    # Nobody settles it: its time is over, and its credits go back.
    sandbox.call("tokens", "train-1", "5000", "--reserve", "--for", "1m", "--key", "turn-3")
    sandbox.call("--user", "fay", "tokens", "poor-1", "9000000", "--reserve", "--key", "turn-4", status=75)


def stopped_by_an_operator(sandbox, receipts):
    process = sandbox.start(
        "--user", "cat", "run", "--job", "stop-1", "--receipt", receipts / "operator_stop.json", "--quiet", "--", "sleep", "60",
        stderr=subprocess.DEVNULL)
    wait_until(20, "stop-1 runs", lambda: sandbox.call("jobs", "show", "stop-1", status=None).returncode == 0)
    sandbox.call("jobs", "stop", "stop-1", "--why", "wrong data")
    # Whatever the status of a stop is: the receipt and the books say what happened.
    process.wait()


def over_midnight(sandbox):
    """One attempt that two periods pay."""
    sandbox.clock.set("2025-03-30T23:59:57")
    sandbox.run("night-1", "--label", "team=search", command=busy(5))


def second_day(sandbox, database):
    """New prices, weights of GPUs, keys, devices, and an attempt that an operator settles."""
    sandbox.clock.set("2025-03-31T11:00:00")
    sandbox.call("rates", "set", "--cpu-per-second", "0.0003", "--gpu-model", "*MIG 1g.*=0.14", "--gpu-model", "*H200*=3")
    keys = {}
    with sandbox.serve(database) as service:
        keys["admin"] = service.admin
        for name, body in [
            ("node-7", {"scope": "report"}), ("reader", {"scope": "read"}), ("ann only", {"scope": "read", "user": "ann"}),
            ("revoked", {"scope": "report"}),
        ]:
            keys[name] = service.told("POST", "/api/v1/keys", {"name": name, "user": None, **body})["key"]
        service.told("DELETE", f"/api/v1/keys/{keys['revoked'].split('_')[1]}")
        models = {"gpu_models": {"NVIDIA H200": 1, SLICE["model"]: 1}}
        devices = {"GPU-8932f937-d72c-4106-c12f-20bd9faed9f6": H200, "MIG-41b3b1e4": SLICE}
        gpu = Sidecar(service, keys["node-7"], "gpu-1", "eve", resources=models, labels={"gpu": "yes"})
        gpu.report(usage(1.5))
        gpu.report(usage(3.25, devices))
        gpu.finish(usage(4.125, devices, 1_000))
        failed = Sidecar(service, keys["node-7"], "gpu-1", "eve", task="1", resources=models)
        failed.finish(usage(0.5), "oom")
        Sidecar(service, keys["node-7"], "silent-1", "bob").report(usage(2))
        settled = Sidecar(service, keys["node-7"], "silent-2", "Zoë O'Hara", name="Größe 7", kind="generation")
        settled.report(usage(1.25))
    sandbox.clock.set("2025-03-31T11:02:00")
    sandbox.call("ledger", "settle", settled.attempt, "--cpu-seconds", "1.5", "--why", "node-7 burned down")
    return keys


def restored(sandbox, is_file):
    """An epoch: the ledger was put back, and settles for half a minute."""
    if is_file:
        copy = sandbox.folder / "copy.db"
        sandbox.call("ledger", "backup", copy)
        sandbox.run("between-1")
        sandbox.call("ledger", "restore", copy, "--why", "a drill")
    else:
        sandbox.call("ledger", "restore", "--why", "a drill")


def last_day(sandbox, database, key):
    sandbox.clock.set(f"{LAST_DAY}T09:00:00")
    sandbox.call("--user", "bob", "account", "limit", "3", "--why", "from now on")
    sandbox.run("april-1", "--label", "team=search", command=busy(0.2))
    sandbox.call("--user", "cat", "account", "limit", "7", "--period", "month", "--why", "from May on")
    with sandbox.serve(database) as service:
        # Its lease is held when the fixture is taken.
        held = Sidecar(service, key, "open-1", "ann")
        held.report(usage(0.75))


def questions(sandbox):
    """All that can be asked of the ledger."""
    jobs = sandbox.json("jobs", "list", "--all", "--count", "1000")["jobs"]
    lines = [["--user", user, *line] for user in USERS for line in (
        ["status"], ["account", "show", "--entries", "10000"], ["usage"], ["usage", "--month", "2025-03"],
        ["usage", "--from", "2025-03-31", "--to", "2025-04-02"], ["jobs", "list", "--count", "1000"])]
    lines += [["jobs", "show", job["job"]] for job in jobs]
    lines += [["jobs", "list", "--all", "--count", "1000"], ["rates", "show"], ["key", "list"], ["ledger", "verify"],
              ["usage", "--all"], ["usage", "--all", "--month", "2025-03"]]
    return lines


def write(sandbox, folder, receipts):
    """Lives through it in the ledger of the sandbox, and keeps beside it what its build says of it."""
    database = sandbox.ledger
    is_file = not database.startswith("postgres")
    first_day(sandbox, receipts)
    stopped_by_an_operator(sandbox, receipts)
    over_midnight(sandbox)
    keys = second_day(sandbox, database)
    restored(sandbox, is_file)
    last_day(sandbox, database, keys["node-7"])
    # The lease of the last attempt is over, and its credits are held still.
    sandbox.clock.set(f"{LAST_DAY}T09:10:00")
    folder.mkdir(parents=True, exist_ok=True)
    sandbox.keep_answers(folder / "answers.jsonl", questions(sandbox))
    (folder / "keys.json").write_text(json.dumps(keys, indent=1) + "\n")

