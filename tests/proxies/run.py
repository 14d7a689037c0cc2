#!/usr/bin/env python3
"""The service below a path of a host, behind real proxies: tests/proxies/run.py JOBMETER. Each proxy buffers as it does by default."""

import http.client
import json
import pathlib
import re
import sys
import tempfile
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import LedgerService, free_port, run_scenes, wait_until

JOBMETER = pathlib.Path(sys.argv[1]).resolve()
BASE = "/jobmeter"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location {base}/ {{
            proxy_pass http://{service};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""

HAPROXY = """
global
    log stderr local0
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend web
    bind 127.0.0.1:{port}
    use_backend jobmeter if {{ path_beg {base}/ }}
backend jobmeter
    server ledger {service}
"""


class Proxy:
    """One in front of the service, whose URL below it is `url`."""

    def __init__(self, service, folder, name, settings, *line):
        self.service, self.name, port = service, name, free_port()
        path = folder / f"{name}.conf"
        path.write_text(settings.format(folder=folder, port=port, base=BASE, service=service.address))
        self.process = service.processes.start(name, *line, path, name=name)
        self.port, self.host = port, f"127.0.0.1:{port}"
        self.url = f"http://{self.host}{BASE}"
        wait_until(20, f"{name} passes something on", lambda: self.ask("GET", f"{BASE}/readyz")[0] == 200)

    def ask(self, method, path, body=None, **headers):
        """Status, headers and text of an answer. Nothing it leads to is asked for."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=names)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def sign_in(self):
        """As a browser that reaches the proxy by plain HTTP and says only its origin. The session's cookie."""
        form = urllib.parse.urlencode({"key": self.service.admin_key.read_text().strip(), "next": "/jobs"})
        status, headers, _ = self.ask("POST", f"{BASE}/sign-in", form, Origin=f"http://{self.host}", Content_Type="application/x-www-form-urlencoded")
        assert status == 303 and headers["Location"] == f"{BASE}/jobs", (status, headers.items())
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert f"Path={BASE}" in attributes, headers["Set-Cookie"]
        return cookie


def pages_sign_in_and_stay_below_the_path(proxy):
    status, headers, _ = proxy.ask("GET", f"{BASE}/")
    assert (status, headers["Location"]) == (303, f"{BASE}/jobs"), (status, headers.items())
    status, headers, _ = proxy.ask("GET", f"{BASE}/jobs")
    assert status == 303 and headers["Location"].startswith(f"{BASE}/sign-in?next="), (status, headers.items())
    cookie = proxy.sign_in()
    seen, waiting = set(), [f"{BASE}/jobs", f"{BASE}/usage", f"{BASE}/admin", f"{BASE}/sign-in"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        status, headers, text = proxy.ask("GET", path, Cookie=cookie)
        assert status in (200, 303), (path, status, text[:300])
        if not headers["Content-Type"] or not headers["Content-Type"].startswith("text/html"):
            continue
        links = re.findall(r' (href|src|action|data-live)="([^"#][^"]*)"', text)
        assert links or "/widget/" in path, path
        for kind, link in links:
            assert link.startswith(f"{BASE}/"), f"{path} leads to {link}"
            # Months go on without an end.
            if kind != "action" and "month=" not in link:
                waiting.append(link.replace("&amp;", "&").replace("&#38;", "&"))
    assert f"{BASE}/assets/live.js" in seen and f"{BASE}/assets/style.css" in seen, seen
    status, headers, _ = proxy.ask("POST", f"{BASE}/sign-out", "", Cookie=cookie, Origin=f"http://{proxy.host}")
    assert (status, headers["Location"]) == (303, f"{BASE}/sign-in"), (status, headers.items())
    assert f"Path={BASE}" in headers["Set-Cookie"], headers["Set-Cookie"]
    return f"{len(seen)} places"


def forms_of_other_sites_are_refused(proxy):
    cookie = proxy.sign_in()
    status, _, _ = proxy.ask("POST", f"{BASE}/admin/suspend", "user=ann", Cookie=cookie, Origin="http://elsewhere.example", Content_Type="application/x-www-form-urlencoded")
    assert status == 403, status


def a_job_reports_through_it(proxy):
    name = f"through-{proxy.name}"
    environment = {"JOBMETER_LEDGER": proxy.url, "JOBMETER_USER": "ann"}
    proxy.service.call("run", "-q", "--job", name, "--", "python3", "-c", "sum(range(3000000))", **environment)
    shown = json.loads(proxy.service.call("--json", "jobs", "show", name, **environment).stdout)
    assert shown["state"] == "ended" or shown["attempts"], shown
    assert shown == proxy.service.job(name)
    refused = proxy.service.call("status", check=False, JOBMETER_LEDGER=f"http://{proxy.host}/elsewhere")
    assert refused.returncode != 0, refused


def a_stream_begins_at_once(proxy):
    """The first event comes while the stream stays open, however the proxy buffers."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    try:
        key = proxy.service.admin_key.read_text().strip()
        connection.request("GET", f"{BASE}/api/v1/events?user=ann", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        first = b""
        while b"\n\n" not in first or b"data:" not in first:
            first += answer.read1(1000)
    finally:
        connection.close()


def the_document_says_where_it_is(proxy):
    status, _, text = proxy.ask("GET", f"{BASE}/api/v1/openapi.json")
    assert status == 200 and json.loads(text)["servers"] == [{"url": BASE}], (status, json.loads(text).get("servers"))


def outside_of_the_path_are_health_and_nothing_else(proxy):
    """Not through the proxy: as a probe asks the service itself."""
    host, port = proxy.service.address.rsplit(":", 1)
    for path, expected in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/jobs", 404), ("/api/v1/rates", 404), (f"{BASE}x/jobs", 404)]:
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == expected, (path, answer.status, text)
        assert expected == 200 or BASE in json.loads(text)["detail"], text


SCENES = (
    pages_sign_in_and_stay_below_the_path, forms_of_other_sites_are_refused, a_job_reports_through_it, a_stream_begins_at_once,
    the_document_says_where_it_is, outside_of_the_path_are_health_and_nothing_else,
)


def main():
    with tempfile.TemporaryDirectory(prefix="jobmeter-proxies-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        service = LedgerService(JOBMETER, folder, options=("--base-path", BASE))
        try:
            proxies = [Proxy(service, folder, "nginx", NGINX, "-c"), Proxy(service, folder, "haproxy", HAPROXY, "-f")]
            return max(run_scenes(f"proxies: {proxy.name}", SCENES, proxy, print_logs=service.processes.print_logs) for proxy in proxies)
        finally:
            service.processes.stop_all()


sys.exit(main())
