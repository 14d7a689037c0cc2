"""Waiting for a condition, never for a time."""

import time

# A deadline is reached by a failure alone. A machine whose cores are busy with something else takes this much longer.
PATIENCE = 4


def let_pass(seconds):
    """For a moment that a test draws by chance, or time that itself is tested; never for something to happen."""
    time.sleep(seconds)


def wait_until(seconds, what, condition, pause=0.05):
    """The first true answer of `condition`, asked again and again for so long on an idle machine. An OSError counts as "not yet"
    (a file or a port that is not there), and the last one is told in the failure."""
    until = time.monotonic() + seconds * PATIENCE
    last = None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = None
        except OSError as error:
            last = error
        if time.monotonic() > until:
            raise AssertionError(f"after {seconds * PATIENCE} s still not so: {what}" + (f" ({last})" if last else ""))
        let_pass(pause)
