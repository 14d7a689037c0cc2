"""The service as its clients use it, and the three workloads."""

import csv
import re

from harness import LedgerService
from harness.stages import Failed, Stage
from stages.prepare import JOBMETER, python

SESSION = 'x = 6\nx * 7\n\n1 / 0\n\n"on"\n'


def run_workloads(work):
    """A training, a generation and a chat session with a Python sandbox."""
    model, rows = work.folder / "model.json", work.folder / "rows.csv"
    own = {"JOBMETER_LEDGER": work.folder / "ledger.db", "JOBMETER_SPOOL": work.folder / "spool"}
    work.call(JOBMETER, "run", "--kind", "training", "--", "python3", "tests/workloads/train.py", "--starts", "2", "--model", model, **own)
    with open(rows, "w") as output:
        work.call(JOBMETER, "run", "--kind", "generation", "--", "python3", "tests/workloads/generate.py", model, "--rows", "2000", output=output, **own)
    count = len(list(csv.reader(open(rows)))) - 1
    assert count == 2000, f"generate.py wrote {count} rows of 2000"
    (work.folder / "session").write_text(SESSION)
    line = f"{JOBMETER} run -q --kind python-session -- python3 tests/workloads/session.py < {work.folder / 'session'} 2>/dev/null"
    said = work.capture("sh", "-c", line, **own)
    assert said == "42\n'on'\n", f"session.py said {said!r}"
    work.call(JOBMETER, "jobs", "list", **own)
    work.call(JOBMETER, "ledger", "verify", **own)


def fuzz_api(work):
    """The service against its OpenAPI document. Not DELETE, which would revoke the key that asks. A stream of events is read until
    the timeout."""
    service = LedgerService(JOBMETER, work.folder)
    try:
        # From the folder, since it leaves its caches where it runs.
        work.call(python().with_name("schemathesis"), "run", f"{service.url}/api/v1/openapi.json", "--header",
                  f"Authorization: Bearer {service.admin_key.read_text().strip()}", "--no-color", "--checks", "not_a_server_error",
                  "--exclude-method", "DELETE", "--request-timeout", "3", "--phases", "fuzzing,stateful", "--max-examples", "50", cwd=work.folder)
        work.say(f"api: {service.call('ledger', 'verify').stdout.strip()} ... ok")
    finally:
        service.stop()


def browse(work):
    work.call(python(), "tests/browser/run.py", JOBMETER, limit_s=1200)


def ask_as_the_platform(work):
    """The platform's own client, as it is on PyPI."""
    service = LedgerService(JOBMETER, work.folder)
    try:
        key = service.key("ann", "--user", "ann", "key", "create", "ann", "--scope", "read", "--only-user")
        work.call(python(), "-W", "ignore", "tests/browser/platform_client.py", service.url, key)
    finally:
        service.stop()


def check_focus(work):
    """The report for cost tools. The newest validator on PyPI knows FOCUS up to 1.0, whose columns 1.2 has all kept; it asks for five
    of them by names that they had before 1.0. A unit test counts those of 1.2. It finds its list of currencies only from its own
    place."""
    known = ["InvoiceIssuer_Required", "Provider_Required", "Publisher_Required", "ResourceID_Required", "SkuPriceId_Nullable"]
    service = LedgerService(JOBMETER, work.folder)
    try:
        service.call("--user", "ann", "run", "-q", "--job", "costs", "--", "python3", "-c", "sum(range(3000000))")
        service.call("tokens", "costs", "1234")
        report = work.folder / "focus.csv"
        with open(report, "w") as output:
            work.call("curl", "-fsS", "--cookie", service.session(), f"{service.url}/usage.focus.csv", output=output)
    finally:
        service.stop()
    charges = len(list(csv.reader(open(report)))) - 1
    assert charges == 2, f"{charges} charges in the report instead of two"
    program = python("focus").with_name("focus-validator")
    (packages,) = program.parents[1].glob("lib/python3*/site-packages")
    told = work.capture(program, "--data-file", report, "--validate-version", "1.0", cwd=packages, check=False)
    failed = sorted(re.findall(r"^([A-Za-z_]*) failed:$", told, re.MULTILINE))
    if failed != known:
        work.say(told)
        raise Failed(f"focus-validator found {failed}, and not only the five columns that it knows by older names")
    work.say(f"focus: {charges} charges are as FOCUS wants them ... ok")


def watch(work):
    work.call("python3", "tests/observability/run.py", JOBMETER, limit_s=300)


def pass_through_proxies(work):
    work.call("python3", "tests/proxies/run.py", JOBMETER, limit_s=300)


def ask_postgres(work):
    work.call("python3", "tests/postgres/run.py", JOBMETER, limit_s=300)


BUILT = ("build", "packages", "python")
STAGES = (
    Stage("api", "the service against its OpenAPI document (schemathesis)", fuzz_api, after=BUILT, python=("schemathesis==4.32.5",), cores=0.3),
    Stage("browser", "the pages in Chromium, with axe and the keyboard", browse, after=BUILT, packages=("chromium", "nginx"),
          python=("playwright==1.65.2", "axe-playwright-python==0.1.8"), cores=0.8),
    Stage("platform", "the platform's own client (mostlyai)", ask_as_the_platform, after=BUILT, python=("mostlyai==4.8.0",), cores=0.5),
    Stage("focus", "the report for cost tools (focus-validator)", check_focus, after=BUILT, packages=("curl",),
          python=("focus-validator==1.0.0", "multimethod<2"), environment="focus"),
    Stage("observability", "rules and dashboard with a real Prometheus", watch, after=("build", "packages"), packages=("prometheus",), cores=0.5),
    Stage("postgres", "TLS, passwords and poolers of a real PostgreSQL", ask_postgres, after=("build", "packages"),
          packages=("postgresql", "pgbouncer", "openssl", "util-linux"), cores=0.5),
    Stage("proxies", "the service below a path behind nginx and HAProxy", pass_through_proxies, after=("build", "packages"),
          packages=("nginx", "haproxy", "curl"), cores=0.3),
    Stage("workloads", "a training, a generation and a Python session, metered", run_workloads, after=("build",)),
)
