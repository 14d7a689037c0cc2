#!/usr/bin/env python3
"""What watchers of one account cost the service: tests/bench/watchers.py JOBMETER [JOBS [WATCHERS [SECONDS]]]. The account has some
jobs that burn all the time. CPU time of the service while nobody watches, while one does, and while many do, and how many events they
get."""

import contextlib
import pathlib
import selectors
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import LedgerService, Processes, wait_until

JOBMETER = sys.argv[1]
JOBS, WATCHERS, SECONDS = (int(given) for given in [*sys.argv[2:], *"10 100 30".split()[len(sys.argv) - 2:]])
# As many streams as a key may have.
STREAMS_OF_KEY = 16
TRICKLE = "import time\nwhile True: sum(range(100_000)); time.sleep(0.05)"


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def stream(address, key):
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"GET /api/v1/events?user=ann HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    return connection


def measure(service, connections):
    """Share of a core that the service uses, events and bytes a second."""
    events = size = 0
    with selectors.DefaultSelector() as ready:
        for connection in connections:
            ready.register(connection, selectors.EVENT_READ)
        # Neither the first events nor how the jobs begin to report more often.
        until = time.monotonic() + 12
        while time.monotonic() < until:
            for found, _ in ready.select(0.1):
                found.fileobj.recv(1 << 20)
        used, began = cpu_seconds(service.process), time.monotonic()
        while time.monotonic() < began + SECONDS:
            for found, _ in ready.select(0.1):
                told = found.fileobj.recv(1 << 20)
                assert told, "a stream has ended"
                size += len(told)
                events += told.count(b"event: account")
        took = time.monotonic() - began
        return (cpu_seconds(service.process) - used) / took, events / took, size / took


def main():
    with tempfile.TemporaryDirectory(prefix="jobmeter-watchers-") as folder, contextlib.ExitStack() as open_streams:
        service = LedgerService(JOBMETER, folder)
        jobs = Processes(folder)
        try:
            keys = [service.key(f"k{number}", "key", "create", f"k{number}", "--scope", "read").read_text().strip()
                    for number in range(-(-WATCHERS // STREAMS_OF_KEY))]
            for number in range(JOBS):
                jobs.start(JOBMETER, "--user", "ann", "run", "-q", "--job", f"job-{number}", "--", sys.executable, "-c", TRICKLE,
                           name=f"job-{number}", env=service.environment)
            wait_until(60, "all of them run", lambda: service.json("--user", "ann", "status")["running"] == JOBS)
            for count in (0, 1, WATCHERS):
                connections = [open_streams.enter_context(stream(service.address, keys[number // STREAMS_OF_KEY])) for number in range(count)]
                share, events, size = measure(service, connections)
                open_streams.pop_all().close()
                print(f"{JOBS} jobs, {count} watchers: {share:.2%} of a core, {events:.1f} events/s, {size / 1000:.1f} kB/s", flush=True)
            print(subprocess.run(["uptime"], capture_output=True, text=True).stdout.strip())
        finally:
            jobs.stop_all()
            service.stop()


main()
