#!/usr/bin/env python3
"""The rules and the dashboard of deploy/observability against a real Prometheus that scrapes a real service: run.py JOBMETER.
Needs Debian's prometheus."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import LedgerService, Processes, free_port, run_scenes, wait_until

JOBMETER = str(pathlib.Path(sys.argv[1]).resolve())
OURS = HERE.parent.parent / "deploy/observability"


def get(url):
    return urllib.request.urlopen(url, timeout=20).read().decode()


class Monitoring:
    """A ledger service with a job that burns, and a Prometheus that scrapes it each second."""

    def __init__(self, folder):
        self.service = LedgerService(JOBMETER, folder)
        self.processes = Processes(folder, self.service.environment)
        self.key = self.service.key("prometheus", "key", "create", "prometheus", "--scope", "read")
        config = (OURS / "prometheus.yml").read_text()
        for ours, here in (("127.0.0.1:7770", self.service.address), ("15s", "1s"), ("jobmeter.rules.yml", OURS / "jobmeter.rules.yml"),
                           ("/etc/prometheus/jobmeter.key", self.key)):
            config = config.replace(ours, str(here))
        (folder / "prometheus.yml").write_text(config)
        subprocess.run(["promtool", "check", "config", folder / "prometheus.yml"], check=True, capture_output=True)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self.processes.start("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}")
        self.service.call("--user", "ann", "account", "limit", "5")
        self.service.call("--user", "ann", "run", "-q", "--", "true")
        self.processes.start(JOBMETER, "--user", "ann", "run", "-q", "--", "sh", "-c", "while :; do :; done", name="job")
        self.panels = {panel["title"]: [target["expr"] for target in panel["targets"]]
                       for panel in json.loads((OURS / "dashboard.json").read_text())["panels"]}

    def ask(self, expression):
        told = json.loads(get(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        assert told["status"] == "success", told
        return told["data"]["result"]

    def stop(self):
        self.processes.stop_all()
        self.service.stop()


def promtool_finds_the_rules_right(_):
    for line in (["check", "rules", "jobmeter.rules.yml"], ["test", "rules", "rules_test.yml"]):
        subprocess.run(["promtool", *line], cwd=OURS, check=True, capture_output=True)


def what_burns_is_scraped(monitoring):
    ask = monitoring.ask
    wait_until(30, "what burns is scraped", lambda: ask("jobmeter_account_burn_credits_per_second > 0") and ask("jobmeter_account_zero_seconds > 0"))
    # One thread burns at most A, 0.00025 credits a second.
    burn = float(wait_until(10, "a figure", lambda: ask("jobmeter_account_burn_credits_per_second"))[0]["value"][1])
    assert 0 < burn < 0.0006, burn
    return f"{burn:.6f} credits a second are burning"


def each_metric_of_rules_and_dashboard_exists(monitoring):
    rules = (OURS / "jobmeter.rules.yml").read_text()
    names = sorted(set(re.findall(r"jobmeter_\w+", rules + json.dumps(monitoring.panels))))
    url = f"{monitoring.service.url}/metrics"
    # A figure of which there is nothing yet is told by its help alone.
    known = get(urllib.request.Request(url, headers={"Authorization": f"Bearer {monitoring.key.read_text().strip()}"}))
    missing = [name for name in names if not monitoring.ask(name) and f"# HELP {re.sub('_(total|bucket)$', '', name)} " not in known]
    assert not missing, missing
    assert "ann" not in get(url), "accounts are told to somebody without a key"
    return f"{len(names)} metrics"


def each_panel_answers(monitoring):
    # A rate is there after a second scrape.
    def empty():
        return [title for title, expressions in monitoring.panels.items() if not any([monitoring.ask(expression) for expression in expressions])]

    wait_until(20, "every panel has something", lambda: not empty())
    return f"{len(monitoring.panels)} panels"


def no_rule_fires(monitoring):
    loaded = json.loads(get(f"{monitoring.url}/api/v1/rules"))["data"]["groups"][0]["rules"]
    wrong = [rule["name"] for rule in loaded if rule["health"] == "err"]
    firing = [rule["name"] for rule in loaded if rule["state"] == "firing"]
    assert not wrong and not firing, (wrong, firing)
    return f"{len(loaded)} rules"


SCENES = (promtool_finds_the_rules_right, what_burns_is_scraped, each_metric_of_rules_and_dashboard_exists, each_panel_answers, no_rule_fires)


def main():
    with tempfile.TemporaryDirectory(prefix="jobmeter-observability-") as folder:
        monitoring = Monitoring(pathlib.Path(folder))
        try:
            return run_scenes("observability", SCENES, monitoring, print_logs=monitoring.processes.print_logs)
        finally:
            monitoring.stop()


sys.exit(main())
