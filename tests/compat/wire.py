"""What a build says on its wires: sidecars and verbs to the service, a job to its socket, a wrapper to its relay."""

import http.client
import http.server
import json
import socket
import subprocess
import threading
import uuid

from left_over import relay_of, wrapper_of
from sandbox import Sandbox, busy, wait_until

# Headers that belong to one connection, or say which key it is.
HOP = {"host", "authorization", "x-mostly-api-key", "content-length", "transfer-encoding", "connection", "date", "x-request-id"}
ASK = """\
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["JOBMETER_SOCKET"])
answers = line.makefile()
reservation = ""
for ask in json.loads(sys.argv[2]):
    ask = ask.replace("RESERVATION", reservation)
    line.sendall(ask.encode() + b"\\n")
    answer = answers.readline().strip()
    reservation = json.loads(answer).get("reservation", reservation)
    with open(sys.argv[1], "a") as out:
        out.write('{"ask": %s, "answer": %s}\\n' % (json.dumps(ask), answer))
"""
ASKS = ["left", "charge 1200 turn-1", "charge 1200 turn-1", "charge 1300 turn-1", "reserve 8000 60 turn-2", "settle RESERVATION 300 end-2",
        "reserve 900000000 60 turn-3", "left", "nonsense"]


class Recorder:
    """A proxy before a service: each question and its answer on a line, in the order of the answers."""

    def __init__(self, service, file):
        self.service, self.lock = service, threading.Lock()
        self.file = open(file, "w")
        # Keys are told apart by their names.
        self.names = {service.admin: "admin"}
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def pass_on(self):
                recorder.pass_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = pass_on

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.file.close()

    def pass_on(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.service.url.removeprefix("http://"), timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        upstream.request(request.command, request.path, body or None, headers)
        answer = upstream.getresponse()
        text = answer.read()
        self.keep(request, body, answer, text)
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def keep(self, request, body, answer, text):
        bearer = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        key = request.headers.get("X-MOSTLY-API-KEY") or bearer
        if request.path == "/api/v1/keys" and request.command == "POST" and answer.status < 300:
            self.names[json.loads(text)["key"]] = json.loads(body)["name"]
        is_json = "json" in answer.headers.get("Content-Type", "")
        kept = [
            ("as", json.dumps(self.names.get(key))), ("by", json.dumps("x-mostly-api-key" if key != bearer else "authorization")),
            ("method", json.dumps(request.command)), ("path", json.dumps(request.path)),
            ("headers", headers_of(request.headers)), ("body", as_json(body, bool(body))), ("status", str(answer.status)),
            ("answer_headers", headers_of(answer.headers)), ("answer", as_json(text, is_json))]
        with self.lock:
            self.file.write("{" + ", ".join(f'"{name}": {value}' for name, value in kept) + "}\n")


def headers_of(headers):
    return json.dumps({name.lower(): value for name, value in headers.items() if name.lower() not in HOP})


def as_json(text, is_json):
    """JSON as it was sent, so that numbers keep their digits; anything else as a string."""
    try:
        if not text:
            return "null"
        if is_json:
            json.loads(text)
            return text.decode()
    except ValueError:
        pass
    return json.dumps(text.decode())


class Client:
    """Calls with one of the keys, through the recorder."""

    def __init__(self, sandbox, key):
        self.sandbox, self.key = sandbox, key

    def call(self, *arguments, status=0):
        return self.sandbox.call(*arguments, status=status, JOBMETER_KEY=self.key)

    def json(self, *arguments):
        return json.loads(self.call("--json", *arguments).stdout)

    def run(self, job, user, *options, command, status=0):
        self.call("--user", user, "run", "--job", job, *options, "--", *command, status=status)


def accounts(admin):
    for user, line in [
        ("ann", ["limit", "5", "--why", "all have it"]), ("poor", ["limit", "0.0008"]), ("broke", ["limit", "0"]),
        ("cat", ["limit", "none", "--period", "month"]), ("ann", ["grant", "1", "--why", "prize", "--key", "g-1"]),
        ("ann", ["grant", "0.5", "--why", "short", "--expires-in", "1 day", "--key", "g-2"]),
        ("ann", ["adjust", "-0.25", "--why", "mistake", "--key", "a-1"]), ("ann", ["adjust", "-0.25", "--why", "mistake", "--key", "a-1"]),
    ]:
        admin.call("--user", user, "account", *line)
    admin.call("rates", "set", "--cpu-per-second", "0.0003", "--gpu-model", "*H200*=3")


def runs(node, admin):
    node.run("train-1", "ann", "--label", "team=search", "--name", "Nightly", command=busy(0.3))
    node.run("train-2", "ann", "--task", "1", command=["sh", "-c", "exit 3"], status=3)
    node.run("gen-1", "ann", "--kind", "generation", "--limit", "0.0002", command=busy(60), status=75)
    node.run("poor-1", "poor", command=busy(60), status=75)
    node.run("never-1", "broke", command=["true"], status=75)
    process = node.sandbox.start(
        "--user", "cat", "run", "--job", "stop-1", "--interval", "100ms", "--quiet", "--", *busy(60),
        env={**node.sandbox.environment, "JOBMETER_KEY": node.key}, stderr=subprocess.DEVNULL)
    wait_until(20, "stop-1 runs", lambda: admin.call("jobs", "show", "stop-1", status=None).returncode == 0, pause=0.5)
    admin.call("--json", "jobs", "list", "--running", "--all")
    admin.call("jobs", "stop", "stop-1", "--why", "wrong data")
    process.wait()


def tokens(node):
    node.call("tokens", "train-1", "1200", "--key", "turn-1")
    node.call("tokens", "train-1", "1200", "--key", "turn-1")
    node.call("tokens", "train-1", "1300", "--key", "turn-1", status=1)
    reserved = node.json("tokens", "train-1", "8000", "--reserve", "--for", "5m", "--key", "turn-2")["reserved"]["reservation"]
    node.call("tokens", "train-1", "3000", "--settle", reserved, "--key", "end-2")
    node.call("tokens", "train-1", "900000000", "--reserve", "--key", "turn-3", status=75)


def reads(admin):
    for line in [
        ["status"], ["account", "show", "--entries", "100"], ["usage"], ["usage", "--from", "2026-01-01", "--to", "2036-01-01"],
        ["usage", "--all"], ["jobs", "list", "--all"], ["jobs", "list", "--kind", "generation", "--count", "1"],
        ["jobs", "show", "train-1"], ["jobs", "show", "gen-1"], ["rates", "show"], ["key", "list"], ["ledger", "verify"],
    ]:
        admin.call("--json", *line)


def refusals(service, admin, node, reader):
    """As a program asks that gets it wrong."""
    unknown = str(uuid.UUID(int=7))
    report = {"attempt": unknown, "seq": 1, "usage": {"cpu_used_seconds": 1, "cpu_allocated_seconds": 1}, "period": 0,
              "ceiling_version": 1, "resources": {"cpus_ppm": 1_000_000, "gpus": 0, "stop_us": 6_000}}
    service.ask("GET", "/api/v1/rates", key="jm_0_0")
    service.ask("PUT", f"/api/v1/attempts/{unknown}/usage", report, key=node)
    service.ask("PUT", f"/api/v1/attempts/{unknown}/usage", {**report, "unheard_of": 1}, key=node)
    service.ask("POST", "/api/v1/users/ann/grants", {"amount": 1, "why": "x"}, key=reader, once="r-1")
    service.ask("POST", "/api/v1/users/ann/grants", {"amount": 1, "why": "x"}, key=admin)
    service.ask("POST", f"/api/v1/attempts/{unknown}/settle", {"usage": None, "why": "x"}, key=admin)
    service.ask("GET", "/api/v1/jobs/no-such-job", key=reader)
    for path in ("/api/v1/jobs/stop-1/stopped", "/api/v1/users/ann/entries?count=3", "/api/v1/usage?each=true&by=month", "/healthz",
                 "/readyz", "/metrics"):
        service.ask("GET", path, key=reader)


def write_http(binaries, work, folder):
    """Everything that a client of the service says, and what the service answers."""
    server = Sandbox(binaries, work / "server", ledger="ledger.db")
    with server.serve("ledger.db") as service:
        recorder = Recorder(service, folder / "http.jsonl")
        sandbox = Sandbox(binaries, work / "client", ledger=recorder.url)
        admin = Client(sandbox, service.admin)
        keys = {name: admin.json("key", "create", name, *options)["key"] for name, options in [
            ("node-7", ["--scope", "report"]), ("reader", ["--scope", "read"]),
            ("ann only", ["--scope", "read", "--only-user", "--user", "ann"])]}
        node = Client(sandbox, keys["node-7"])
        accounts(admin)
        runs(node, admin)
        tokens(node)
        asks = json.dumps(ASKS)
        node.run("socket-1", "ann", command=["python3", "-c", ASK, str(folder / "socket.jsonl"), asks])
        reads(admin)
        through = type(service)(recorder.url, service.admin)
        refusals(through, service.admin, keys["node-7"], keys["reader"])
        admin.call("key", "revoke", keys["reader"].split("_")[1])
        recorder.close()
        # By their ids entries say who it was.
        ids = {name: key.split("_")[1] for name, key in {"admin": service.admin, **keys}.items()}
        (folder / "key-ids.json").write_text(json.dumps(ids) + "\n")
        (folder / "openapi.json").write_text(json.dumps(service.told("GET", "/api/v1/openapi.json"), sort_keys=True) + "\n")


class RelayRecorder:
    """A socket before that of a relay: each line that passes, and on which connection."""

    def __init__(self, path, relay, file):
        self.relay, self.file, self.lock = relay, open(file, "w"), threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        for number in range(1_000):
            wrapper, _ = self.listener.accept()
            relay = socket.socket(socket.AF_UNIX)
            relay.connect(str(self.relay))
            for name, source, target in (("wrapper", wrapper, relay), ("relay", relay, wrapper)):
                threading.Thread(target=self.pump, args=(number, name, source, target), daemon=True).start()

    def pump(self, number, name, source, target):
        for line in source.makefile("rb"):
            with self.lock:
                self.file.write(f'{{"connection": {number}, "from": "{name}", "message": {line.decode().strip()}}}\n')
                self.file.flush()
            target.sendall(line)
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The other end has gone first.


def write_relay(binaries, work, folder):
    """A pod's job from its wrapper's first word to its last."""
    sandbox = Sandbox(binaries, work / "relay")
    direct, recorded = sandbox.folder / "direct.sock", sandbox.folder / "relay.sock"
    relay = relay_of(sandbox, direct)
    recorder = RelayRecorder(recorded, direct, folder / "relay.jsonl")
    command = ["python3", "-c", ASK + "\n" + busy(1.2)[2], "/dev/null", json.dumps(["left", "charge 1200 turn-1"])]
    with open(sandbox.folder / "wrapper.log", "w") as log:
        wrapper = wrapper_of(sandbox, recorded, command, log)
    assert wrapper.wait() == 0, (sandbox.folder / "wrapper.log").read_text()
    relay.terminate()
    assert relay.wait() == 0, (sandbox.folder / "relay.log").read_text()
    recorder.listener.close()
