"""What attacks have in common: how they start what they start, and what they compare."""

import pathlib
import re

from bed import become, call, cpu, settled
from metering import newest
from harness import wait_until

# Of what was burned, as the kernel counts it.
ERROR_MAX = 0.005
CREDITS_PER_SECOND = 0.00025
PROGRESS = pathlib.Path("/tmp/enemy.progress")
BECOME_ANN = become("ann")


def srun(*line, name="enemy", check=False, limit_s=120, **environment):
    return call("srun", f"--job-name={name}", *line, user="ann", check=check, limit_s=limit_s, **environment)


def seconds(name):
    """What was charged for the newest job of this name."""
    return sum(cpu(attempt) for attempt in settled(newest(name))["attempts"])


def is_charged(burned, charged):
    assert charged >= burned * (1 - ERROR_MAX) - 0.0005, f"{burned:.3f} s were burned, {charged:.3f} s charged"
    return f"{burned:.3f} s burned, {charged:.3f} s charged"


def progress(path=PROGRESS):
    return float(path.read_text() or 0) if path.exists() else 0.0


def burned_by_those(*paths):
    """Once they have stopped to burn."""
    last = [-1]

    def is_steady():
        now = sum(progress(path) for path in paths)
        last[:] = [now, last[0] == now]
        return last[1]
    wait_until(20, "nothing burns any more", is_steady, pause=0.3)
    return last[0]


def enemy(what, *options, **environment):
    """One task that tries it, and what it says."""
    PROGRESS.unlink(missing_ok=True)
    done = srun(*options, "python3", "-m", "enemy", what, name=what, **environment)
    assert "succeeded" not in done.stdout, done.stdout[:2000]
    return done


def tries(what):
    def attack():
        done = enemy(what)
        burned = re.search(r"^burned ([\d.]+)", done.stdout, re.MULTILINE)
        assert burned, done
        return is_charged(float(burned.group(1)), seconds(what))
    attack.__name__ = what
    return attack


def program(name, text):
    for stale in pathlib.Path("/tmp").glob("enemy.progress*"):
        stale.unlink()
    path = pathlib.Path(f"/tmp/{name}.sh")
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path
