"""Pages that change while somebody uses them."""

import contextlib
import os
import sys
import urllib.error
import urllib.request

from playwright.sync_api import expect
from reader import Reader

from harness import free_port, let_pass, stop, wait_until

# A little each moment, so that there is news each second, and the machine is free for the browser.
TRICKLE = "import threading\nwhile True: sum(range(100_000)); threading.Event().wait(0.05)"
CLICKS = 12
TABS = 7
# Of one session.
STREAMS_MAX = 16
# A proxy in front, as people set it up; one that keeps back what it has until its buffers are full; and one that has no streams.
NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{plain};
        location / {{ proxy_pass {url}; }}
    }}
    server {{
        listen 127.0.0.1:{buffering};
        location / {{ proxy_pass {url}; }}
        location /api/v1/events {{ proxy_pass {url}; proxy_ignore_headers X-Accel-Buffering; }}
    }}
    server {{
        listen 127.0.0.1:{broken};
        location / {{ proxy_pass {url}; }}
        location /api/v1/events {{ return 502; }}
    }}
}}
"""


@contextlib.contextmanager
def burning(service, user, job):
    """A job that burns a little, and a limit of which one sees each bit."""
    service.call("--user", user, "account", "limit", "0.02")
    if user not in service.keys:
        service.keys[user] = service.key(user, "--user", user, "key", "create", user, "--scope", "read", "--only-user").read_text().strip()
    process = service.start_job(user, job, sys.executable, "-c", TRICKLE)
    try:
        wait_until(20, f"{job} runs", lambda: (service.job(job) or {}).get("state") == "running")
        yield process
    finally:
        stop(process)


def bar(page):
    return page.locator("#credits .label")


def moves(page, times=1):
    """What is left becomes less before their eyes."""
    for _ in range(times):
        expect(bar(page)).not_to_have_text(bar(page).inner_text())


def news(service, user, times=2):
    """The books move on, whatever is shown."""
    def charged():
        return service.json("--user", user, "status")["charged"]

    for _ in range(times):
        before = charged()
        wait_until(20, "something is charged", lambda: charged() != before)


def stands_still(page, service, user):
    """Nothing changes before their eyes while the books move on; not even after the time that a page takes to fetch itself."""
    before = page.locator("body").inner_text()
    news(service, user)
    let_pass(2)
    assert page.locator("body").inner_text() == before


def streams_of(service, reader):
    """How many streams the browser has: a session may have 16, and what it leaves of them is counted."""
    session, = (f"{cookie['name']}={cookie['value']}" for cookie in reader.context.cookies())
    asked = urllib.request.Request(f"{service.url}/api/v1/events?user=lea", headers={"Cookie": session})
    with contextlib.ExitStack() as opened:
        for left in range(STREAMS_MAX + 1):
            try:
                opened.enter_context(urllib.request.urlopen(asked, timeout=20))
            except urllib.error.HTTPError as refused:
                assert refused.code == 429, refused
                return STREAMS_MAX - left
    raise AssertionError("a session has any number of streams")


def clicks_work_while_events_come(browser, service):
    reader = Reader(browser, service)
    with burning(service, "lea", "clicked"):
        reader.sign_in("lea")
        page = reader.page
        link = page.get_by_role("link", name="clicked")
        moves(page)
        same = link.element_handle()
        link.focus()
        moves(page, 3)
        assert same.evaluate("node => node.isConnected && node === document.activeElement"), "the link was replaced"
        for _ in range(CLICKS):
            moves(page)
            box = link.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            # As slow as a hand is.
            page.mouse.down()
            let_pass(0.15)
            page.mouse.up()
            page.wait_for_url("**/jobs/clicked?*")
            page.go_back()
            page.wait_for_url("**/jobs")
        # Somebody is about to hit something.
        page.locator("h1").hover()
        page.mouse.down()
        stands_still(page, service, "lea")
        page.mouse.up()
        moves(page)
    reader.nothing_wrong()


def what_is_typed_and_selected_stays(browser, service):
    reader = Reader(browser, service)
    with burning(service, "lea", "typed"):
        reader.sign_in("admin")
        page = reader.page
        page.goto(f"{service.url}/jobs/typed")
        credits = page.locator("main dd").first
        why = page.get_by_label("Why")
        why.fill("wrong data")
        why.evaluate("field => field.setSelectionRange(3, 3)")
        for _ in range(3):
            expect(credits).not_to_have_text(credits.inner_text())
        assert why.evaluate("field => [field.value, field.selectionStart, field === document.activeElement]") == ["wrong data", 3, True]
        page.keyboard.type("ly typed ")
        assert why.input_value() == "wroly typed ng data"
        # What somebody marks is what they copy.
        page.locator("h1").click(click_count=3)
        stands_still(page, service, "lea")
        assert page.evaluate("getSelection().toString().trim()") == "typed"
        page.locator("dt").first.click()
        expect(credits).not_to_have_text(credits.inner_text())
    # The job has ended, and can be stopped no more; what somebody has written down for that is not thrown away.
    expect(page.locator(".state").first).to_have_text("ended")
    assert why.input_value() == "wroly typed ng data"
    reader.nothing_wrong()


def hide(page, is_hidden):
    """Playwright keeps every page visible: the browser's word for it is spoken here."""
    page.evaluate("""hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""", is_hidden)


def a_page_that_nobody_sees_asks_for_nothing(browser, service):
    reader = Reader(browser, service)
    with burning(service, "lea", "hidden"):
        reader.sign_in("lea")
        page = reader.page
        moves(page)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        assert streams_of(service, reader) == 1
        hide(page, True)
        wait_until(10, "the stream has ended", lambda: streams_of(service, reader) == 0)
        # What it had asked for is answered meanwhile.
        let_pass(1)
        before = bar(page).inner_text()
        asked.clear()
        news(service, "lea", 3)
        let_pass(2)
        assert (bar(page).inner_text(), asked) == (before, [])
        hide(page, False)
        moves(page)
    reader.nothing_wrong()


def seven_tabs_load_and_move(browser, service):
    """A browser has six connections to a host over HTTP/1.1."""
    reader = Reader(browser, service)
    with burning(service, "lea", "tabs"):
        reader.sign_in("lea")
        pages = [reader.page, *(reader.context.new_page() for _ in range(TABS - 1))]
        for page in pages[1:]:
            page.goto(f"{service.url}/jobs")
        for page in pages:
            moves(page)
        assert streams_of(service, reader) == 1
    reader.nothing_wrong()


def a_page_without_a_stream_asks(browser, service):
    ports = {name: free_port() for name in ("plain", "buffering", "broken")}
    folder = service.folder / "nginx"
    folder.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user, url=service.url, **ports))
    nginx = service.jobs.start("nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf", name="nginx",
                               env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"})
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    try:
        wait_until(20, "nginx answers", lambda: urllib.request.urlopen(f"{urls['plain']}/readyz", timeout=5))
        with burning(service, "lea", "streamed"):
            events_of(urls["plain"], service.session(service.keys["lea"]))
            for name, url in urls.items():
                reader = Reader(browser, service, url)
                reader.sign_in("lea")
                moves(reader.page, 2)
                reader.context.close()
            # A browser that cannot share a stream.
            reader = Reader(browser, service)
            reader.page.add_init_script("delete window.SharedWorker")
            reader.sign_in("lea")
            moves(reader.page, 2)
            reader.nothing_wrong()
    finally:
        stop(nginx)


def events_of(url, session):
    """A stream gets through nginx as it comes."""
    asked = urllib.request.Request(f"{url}/api/v1/events?user=lea", headers={"Cookie": session})
    count = 0
    with urllib.request.urlopen(asked, timeout=40) as stream:
        while count < 3:
            count += stream.readline().startswith(b"event: account")


SCENES = (clicks_work_while_events_come, what_is_typed_and_selected_stays, a_page_that_nobody_sees_asks_for_nothing,
          seven_tabs_load_and_move, a_page_without_a_stream_asks)
