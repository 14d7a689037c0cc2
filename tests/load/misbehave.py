#!/usr/bin/env python3
"""All that misbehaves beside a fleet, at once, until SIGTERM: tests/load/misbehave.py SETTINGS, a file of JSON with the `address` of the
service, its keys (`admin`, `report`, and several to `read`), sessions, and `what` misbehaves. At the end it prints how often each did."""

import asyncio
import collections
import datetime
import json
import pathlib
import random
import signal
import sys
import uuid

SETTINGS = json.loads(pathlib.Path(sys.argv[1]).read_text())
HOST, PORT = SETTINGS["address"].split(":")
COUNTS = collections.Counter()
STREAMS_OF_KEY = 16


async def ask(method, path, body=b"", key=None, wait_s=60, **headers):
    """Status and length of the answer, over a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    try:
        writer.write(head(method, path, key, len(body), **headers) + body)
        async with asyncio.timeout(wait_s):
            first = await reader.readline()
            length = len(first)
            while chunk := await reader.read(1 << 16):
                length += len(chunk)
        return int(first.split()[1] if first else 0), length
    finally:
        writer.close()


def head(method, path, key, length, **headers):
    more = {"host": SETTINGS["address"], "connection": "close", "content-length": str(length), **headers}
    if key:
        more["authorization"] = f"Bearer {key}"
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


async def over_and_over(name, act, pause_s):
    while True:
        try:
            COUNTS[f"{name} {await act()}"] += 1
        except (OSError, asyncio.TimeoutError, ValueError, IndexError) as error:
            COUNTS[f"{name} {type(error).__name__}"] += 1
        await asyncio.sleep(pause_s)


async def abandoned_report():
    """A year of all accounts, day by day, of which nobody waits for the end."""
    to = datetime.date.today() + datetime.timedelta(days=1)
    path = f"/api/v1/usage?each=true&by=day&from={to - datetime.timedelta(days=366)}&to={to}"
    try:
        status, _ = await ask("GET", path, key=SETTINGS["admin"], wait_s=1)
        return status
    except asyncio.TimeoutError:
        return "abandoned"


async def verify():
    return (await ask("GET", "/api/v1/ledger/verify", key=SETTINGS["admin"]))[0]


async def stream(at):
    """Ends where the service ends it."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    try:
        writer.write(head("GET", f"/api/v1/events?user=load-{at % SETTINGS['accounts']}", SETTINGS["read"][at // STREAMS_OF_KEY], 0))
        status = (await reader.readline()).split()[1].decode()
        while await reader.read(1 << 16):
            COUNTS["streams read"] += 1
        return status
    finally:
        writer.close()


def opening(job, user):
    attempt = str(uuid.UUID(int=(0x7000 << 64) | random.getrandbits(128) & ~(0xF000 << 64)))
    identity = {"attempt": attempt, "job": job, "task": "0", "user": user, "kind": "training", "command": ["burn"], "host": "load"}
    body = {"identity": identity, "resources": {"cpus_ppm": 1_000_000, "gpus": 0, "stop_us": 7_000}}
    return attempt, json.dumps(body).encode()


async def open_attempt(job, user):
    attempt, body = opening(job, user)
    return (await ask("PUT", f"/api/v1/attempts/{attempt}", body, key=SETTINGS["report"], wait_s=15, content_type="application/json"))[0]


async def nul():
    return await open_attempt("a\0b", "nul")


async def into_the_silent():
    """An account with attempts that have fallen silent meanwhile, which are marked when it is touched."""
    return await open_attempt(f"after-{random.getrandbits(32)}", SETTINGS["silent"])


async def into_the_locked():
    return await open_attempt(f"locked-{random.getrandbits(32)}", SETTINGS["locked"])


async def invented():
    word = "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=12))
    return (await ask(word, f"/{word}/{random.getrandbits(64)}"))[0]


async def slow_form():
    """A form that says it is long, and comes a byte a second."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    try:
        writer.write(head("POST", "/sign-in", None, 1_000_000, content_type="application/x-www-form-urlencoded"))
        while not reader.at_eof():
            writer.write(b"k")
            await writer.drain()
            try:
                async with asyncio.timeout(1):
                    return (await reader.readline()).split()[1].decode()
            except asyncio.TimeoutError:
                pass
        return "hung up"
    finally:
        writer.close()


async def page(at):
    """A page of an account with its stream, which also asks for itself anew each 10 s."""
    cookie, user = SETTINGS["sessions"][at], f"load-{at % SETTINGS['accounts']}"
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    try:
        writer.write(head("GET", f"/api/v1/events?user={user}", None, 0, cookie=cookie, sec_fetch_dest="empty"))
        while True:
            COUNTS[f"pages {(await ask('GET', f'/jobs?user={user}', cookie=cookie))[0]}"] += 1
            for asset in ("style.css", "live.js", "stream.js"):
                await ask("GET", f"/assets/{asset}", cookie=cookie)
            try:
                async with asyncio.timeout(10):
                    while await reader.read(1 << 16):
                        pass
                return "ended"
            except asyncio.TimeoutError:
                pass
    finally:
        writer.close()


# How many of each, what each does, and after which pause again.
KINDS = {
    "reports": (16, lambda _: abandoned_report, 0.5),
    "verify": (4, lambda _: verify, 0.1),
    "streams": (100, lambda at: lambda: stream(at), 1),
    "locked": (4, lambda _: into_the_locked, 0.5),
    "nul": (4, lambda _: nul, 0.2),
    "silent": (1, lambda _: into_the_silent, 1),
    "invented": (8, lambda _: invented, 0.1),
    "forms": (200, lambda _: slow_form, 1),
    "pages": (20, lambda at: lambda: page(at), 1),
}


async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    tasks = [
        asyncio.create_task(over_and_over(name, act(at), pause_s))
        for name in SETTINGS["what"] for count, act, pause_s in [KINDS[name]] for at in range(count)]
    await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(dict(sorted(COUNTS.items()))))


asyncio.run(main())
