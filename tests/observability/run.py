#!/usr/bin/env python3
"""The rules and the dashboard of deploy/observability against a real Prometheus that scrapes a real service: run.py JOBMETER.
Needs Debian's prometheus."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

JOBMETER = str(pathlib.Path(sys.argv[1]).resolve())
OURS = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy/observability"
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("JOBMETER")}


def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def within(seconds, what, condition):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            found = condition()
            if found:
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="jobmeter-observability-"))
    started = []
    try:
        for line in (["check", "rules", "jobmeter.rules.yml"], ["test", "rules", "rules_test.yml"]):
            subprocess.run(["promtool", *line], cwd=OURS, check=True, capture_output=True)
            print(f"observability: promtool {' '.join(line)} ... ok", flush=True)
        service, prometheus = address(), address()
        db = directory / "ledger.db"
        start = lambda *line, **more: started.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **{"env": PLAIN, **more}))
        start(JOBMETER, "serve", "--db", str(db), "--listen", service)
        get = lambda url: urllib.request.urlopen(url, timeout=5).read().decode()
        within(20, "the service is ready", lambda: get(f"http://{service}/readyz"))
        config = (OURS / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:7770", service).replace("15s", "1s").replace("jobmeter.rules.yml", str(OURS / "jobmeter.rules.yml"))
        key = directory / "prometheus.key"
        config = config.replace("/etc/prometheus/jobmeter.key", str(key))
        (directory / "prometheus.yml").write_text(config)
        env = dict(PLAIN, JOBMETER_LEDGER=f"http://{service}", JOBMETER_KEY=f"{db}.admin-key", JOBMETER_SPOOL=str(directory / "spool"))
        run = lambda *line: subprocess.run([JOBMETER, *line], env=env, check=True, capture_output=True)
        run("key", "create", "prometheus", "--scope", "read", "--to", str(key))
        subprocess.run(["promtool", "check", "config", str(directory / "prometheus.yml")], check=True, capture_output=True)
        start("prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", f"--web.listen-address={prometheus}")
        run("--user", "ann", "account", "limit", "5")
        run("--user", "ann", "run", "-q", "--", "true")
        start(JOBMETER, "--user", "ann", "run", "-q", "--", "sh", "-c", "while :; do :; done", env=env)

        def ask(expression):
            told = json.loads(get(f"http://{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
            assert told["status"] == "success", told
            return told["data"]["result"]

        within(30, "what burns is scraped", lambda: ask("jobmeter_account_burn_credits_per_second > 0") and ask("jobmeter_account_zero_seconds > 0"))
        burn = float(ask("jobmeter_account_burn_credits_per_second")[0]["value"][1])
        assert 0.0001 < burn < 0.0006, burn
        dashboard = json.loads((OURS / "dashboard.json").read_text())
        panels = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]}
        rules = (OURS / "jobmeter.rules.yml").read_text()
        names = sorted(set(re.findall(r"jobmeter_\w+", rules + json.dumps(panels))))
        # A figure of which there is nothing yet is told by its help alone.
        known = get(urllib.request.Request(f"http://{service}/metrics", headers={"Authorization": f"Bearer {key.read_text().strip()}"}))
        # Nobody is told of accounts without a key.
        assert "ann" not in get(f"http://{service}/metrics")
        missing = [name for name in names if not ask(name) and f"# HELP {re.sub('_(total|bucket)$', '', name)} " not in known]
        assert not missing, missing
        print(f"observability: {len(names)} metrics exist ... ok", flush=True)
        # A rate is there after a second scrape.
        empty = lambda: [title for title, expressions in panels.items() if not any([ask(expression) for expression in expressions])]
        within(20, "every panel has something", lambda: not empty())
        print(f"observability: {len(panels)} panels answer ... ok: {burn:.6f} credits a second are burning", flush=True)
        loaded = json.loads(get(f"http://{prometheus}/api/v1/rules"))["data"]["groups"][0]["rules"]
        wrong = [rule["name"] for rule in loaded if rule["health"] == "err"]
        firing = [rule["name"] for rule in loaded if rule["state"] == "firing"]
        assert not wrong and not firing, (wrong, firing)
        print(f"observability: {len(loaded)} rules are loaded, none fires ... ok", flush=True)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        shutil.rmtree(directory, ignore_errors=True)


main()
