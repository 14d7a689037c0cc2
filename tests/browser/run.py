#!/usr/bin/env python3
"""The pages as people use them, in Debian's Chromium: tests/browser/run.py JOBMETER. Needs playwright and
axe-playwright-python (tests/run makes an environment that has them)."""

import csv
import decimal
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import live
from playwright.sync_api import expect, sync_playwright
from reader import BURN, JOBMETER, PATIENCE_MS, Reader, Service

from harness import run_scenes, wait_until


def a_job_burns_to_zero_before_their_eyes(browser, service):
    service.call("--user", "ann", "account", "limit", "0.002")
    reader = Reader(browser, service)
    reader.page.goto(service.url)
    reader.accessible()
    reader.page.get_by_label("Key").fill("jm_nonsense")
    reader.page.get_by_role("button", name="Sign in").click()
    expect(reader.page.get_by_role("alert")).to_be_visible()
    # The browser itself calls the refusal an error.
    reader.wrong.clear()
    reader.sign_in("ann")
    expect(reader.page.locator("#credits .label")).to_have_text("0.002 of 0.002 credits left")
    reader.accessible()
    job = service.start_job("ann", "burner", sys.executable, "-c", BURN)
    page = reader.page
    expect(page.locator("td .state.running")).to_be_visible()
    expect(page.locator("#credits .label")).not_to_have_text("0.002 of 0.002 credits left")
    page.locator("#credits .credits").hover()
    expect(page.get_by_role("tooltip")).to_be_visible()
    reader.accessible()
    assert job.wait(timeout=60) == 75
    expect(page.locator("#credits .credits.red")).to_contain_text("Used up")
    page.get_by_role("link", name="burner").click()
    expect(page.locator("main")).to_contain_text("It was stopped: the account's credits were used up.")
    expect(page.get_by_role("heading", name="Training status")).to_be_visible()
    reader.accessible()
    charged = json.loads(service.call("--json", "jobs", "show", "burner").stdout)["charged"]["total"]
    expect(page.locator("main")).to_contain_text(f"{charged:.9f}"[:8])
    reader.nothing_wrong()


def the_report_is_what_the_ledger_says(browser, service):
    service.call("--user", "ann", "account", "limit", "5")
    service.call("--user", "ann", "tokens", "burner", "1234", "--key", "turn-1")
    reader = Reader(browser, service, color_scheme="dark", viewport={"width": 390, "height": 800})
    reader.sign_in("ann")
    page = reader.page
    page.get_by_role("link", name="Usage", exact=True).click()
    expect(page.locator("tfoot")).to_contain_text("1234")
    reader.accessible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(pathlib.Path(download.value.path()).read_text())))
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    days = json.loads(pathlib.Path(download.value.path()).read_text(), parse_float=str)
    month = json.loads(service.call("--user", "ann", "--json", "usage").stdout, parse_float=str)[-1]
    assert [row["user"] for row in rows] == ["ann"]
    assert [row["credits"] for row in rows] == [month["totalCredits"]] == [day["totalCredits"] for day in days], (rows, month)
    with page.expect_download() as download:
        page.get_by_role("link", name="FOCUS").click()
    skus = list(csv.DictReader(io.StringIO(pathlib.Path(download.value.path()).read_text())))
    costs = sum(decimal.Decimal(sku["BilledCost"]) for sku in skus)
    assert {sku["SkuId"] for sku in skus} == {"cpu", "tokens"} and costs == decimal.Decimal(month["totalCredits"]), skus
    page.get_by_role("link", name="Month before").click()
    expect(page.locator("main")).to_contain_text("Nothing was used in this month.")
    reader.nothing_wrong()
    # All accounts together, for who may see them, and each of them in the file.
    service.call("--user", "dave", "run", "-q", "--job", "other", "--", sys.executable, "-c", "sum(range(3000000))")
    reader = Reader(browser, service)
    reader.sign_in("admin")
    page = reader.page
    page.get_by_role("link", name="Usage", exact=True).click()
    expect(page.get_by_role("row", name="ann")).to_be_visible()
    reader.accessible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(pathlib.Path(download.value.path()).read_text())))
    assert [row["user"] for row in rows] == ["ann", "dave"], rows
    all_days = json.loads(service.call("--json", "usage", "--all", "--month", rows[0]["day"][:7]).stdout, parse_float=decimal.Decimal)
    assert sum(decimal.Decimal(row["credits"]) for row in rows) == sum(day["totalCredits"] for day in all_days), (rows, all_days)
    reader.nothing_wrong()


def nobody_sees_anothers(browser, service):
    reader = Reader(browser, service)
    reader.sign_in("bob")
    expect(reader.page.locator("main")).to_contain_text("There is no such job yet.")
    for path in ("/jobs/burner", "/usage?user=ann", "/jobs?user=ann", "/jobs/burn"):
        answer = reader.page.goto(service.url + path)
        assert answer.status == 404, (path, answer.status)
        expect(reader.page.get_by_role("heading", name="There is no such thing.")).to_be_visible()
        assert "credits_exhausted" not in reader.page.content()
    # A cookie alone changes nothing: neither by the API nor by a form of another site.
    for path, body in (("/api/v1/users/bob/limit", '{"limit":9}'), ("/jobs/burner/stop", "why=x")):
        made = urllib.request.Request(service.url + path, data=body.encode(), method="PUT" if "api" in path else "POST")
        made.add_header("Cookie", service.session())
        made.add_header("Origin", "https://elsewhere.example")
        try:
            urllib.request.urlopen(made)
            raise AssertionError(path)
        except urllib.error.HTTPError as error:
            assert error.code in (401, 403), (path, error.code)
    reader.page.goto(service.url + "/jobs")
    reader.page.get_by_role("button", name="Sign out").click()
    reader.page.wait_for_url("**/sign-in")
    reader.page.goto(service.url + "/usage")
    assert "/sign-in?next=" in reader.page.url


def a_page_whose_session_has_ended_leads_to_the_sign_in(browser, service):
    reader = Reader(browser, service)
    reader.sign_in("ann")
    page = reader.page
    cookie, = reader.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("jobmeter-session", True, "Lax"), cookie
    assert service.keys["ann"] not in json.dumps(cookie)
    # A link from another site keeps it; a form of another site does not send it.
    page.goto(f"data:text/html,<a href='{service.url}/usage'>Usage</a>")
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage")).to_be_visible()
    # Elsewhere, with the same session; the page itself does nothing.
    ended = urllib.request.Request(service.url + "/sign-out", data=b"", headers={"Sec-Fetch-Site": "same-origin"})
    ended.add_header("Cookie", f"{cookie['name']}={cookie['value']}")
    urllib.request.urlopen(ended)
    page.wait_for_url("**/sign-in?next=*", timeout=PATIENCE_MS)


def an_administrator_stops_a_job(browser, service):
    reader = Reader(browser, service)
    reader.sign_in("admin")
    job = service.start_job("ann", "endless", "sleep", "600")
    page = reader.page
    expect(page.locator("#credits")).to_contain_text("all accounts")
    page.goto(f"{service.url}/jobs?user=ann&running=true")
    expect(page.locator("#credits")).to_contain_text("credits left")
    link = page.get_by_role("link", name="endless")
    wait_until(20, "the job is in the list", lambda: page.reload() and link.count())
    link.click()
    reader.accessible()
    page.get_by_label("Why").fill("wrong data")
    page.get_by_role("button", name="Stop this job").click()
    assert job.wait(timeout=30) == 137
    page.reload()
    expect(page.locator("main")).to_contain_text("It was stopped by an operator.")
    reader.nothing_wrong()


def an_administrator_changes_an_account(browser, service):
    reader = Reader(browser, service)
    reader.sign_in("admin")
    page = reader.page
    page.get_by_role("link", name="Administration").click()
    reader.accessible()
    page.get_by_role("textbox", name="User").first.fill("carol")
    page.get_by_role("button", name="Show").click()
    for name, amount in (("Limit, or none", "2.5"), ("Extra credits", "1.5"), ("Give back", "-0.25")):
        form = page.get_by_role("form", name=name)
        form.get_by_label(name).fill(amount)
        form.get_by_label("Why").fill("agreed")
        form.get_by_label("I am sure").check()
        form.get_by_role("button").click()
        expect(page.get_by_text("It stands in the entries")).to_be_visible()
    reader.accessible()
    account = json.loads(service.call("--user", "carol", "--json", "status").stdout)
    assert (account["allowance"], account["limit"], account["left"]) == (2.5, 4.0, 3.75), account
    for name, button in (("Suspend", "Suspend the account"), ("Resume", "Resume the account")):
        form = page.get_by_role("form", name=name)
        form.get_by_label("Why").fill("agreed")
        form.get_by_label("I am sure").check()
        form.get_by_role("button", name=button).click()
        expect(page.get_by_text("It stands in the entries")).to_be_visible()
        reader.accessible()
        account = json.loads(service.call("--user", "carol", "--json", "status").stdout)
        assert account["suspended"] == (name == "Suspend"), account
    # A key is told once, and works; the next page does not know it any more.
    form = page.get_by_role("form", name="New key")
    form.get_by_label("Name").fill("node-7")
    form.get_by_label("Scope").select_option("report")
    form.get_by_label("I am sure").check()
    form.get_by_role("button").click()
    reader.accessible()
    made = page.get_by_label("Key").input_value()
    path = service.folder / "node-7.key"
    path.write_text(made)
    path.chmod(0o600)
    subprocess.run([JOBMETER, "--user", "carol", "run", "-q", "--", "true"], env=dict(service.environment, JOBMETER_KEY=str(path)), check=True)
    page.get_by_role("link", name="Back to administration").click()
    assert made not in page.content()
    # A rate card that was changed meanwhile is not overwritten unseen.
    other = reader.context.new_page()
    other.goto(service.url + "/admin")
    for tab, price, told in ((page, "0.0005", "A new rate card counts"), (other, "0.0009", "is at version")):
        form = tab.get_by_role("form", name="New rate card")
        form.get_by_label("A, per virtual CPU second").fill(price)
        form.get_by_label("I am sure").check()
        form.get_by_role("button").click()
        expect(tab.locator("main")).to_contain_text(told)
    rates = json.loads(service.call("--json", "rates", "show").stdout, parse_float=str)
    assert rates[0]["rates"]["cpu_per_second"] == "0.000500000", rates[0]
    page.get_by_role("row", name="bob").get_by_label("I am sure").check()
    page.get_by_role("button", name="Revoke bob").click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    reader.nothing_wrong()
    other = Reader(browser, service)
    other.sign_in("ann")
    assert other.page.goto(service.url + "/admin").status == 403
    expect(other.page.get_by_role("heading", name="This key may not do that.")).to_be_visible()
    answer = other.context.request.post(
        service.url + "/admin/grant",
        form={"user": "ann", "amount": "5", "why": "x", "key": "k", "sure": "yes"},
        headers={"Origin": service.url},
    )
    assert answer.status == 403, answer.status


def the_books_are_right(browser, service):
    return service.call("ledger", "verify").stdout.strip()


SCENES = (a_job_burns_to_zero_before_their_eyes, the_report_is_what_the_ledger_says, nobody_sees_anothers,
          a_page_whose_session_has_ended_leads_to_the_sign_in, an_administrator_stops_a_job, an_administrator_changes_an_account, *live.SCENES, the_books_are_right)


def main():
    expect.set_options(timeout=PATIENCE_MS)
    with tempfile.TemporaryDirectory(prefix="jobmeter-browser-") as folder:
        service = Service(folder)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                status = run_scenes("browser", SCENES, browser, service, print_logs=service.processes.print_logs)
                browser.close()
                return status
        finally:
            service.jobs.stop_all()
            service.stop()


sys.exit(main())
