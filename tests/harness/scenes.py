"""Scenes: the tests of a script, one after the other, each a function with a telling name."""

import os


class Skip(Exception):
    """Cannot run here, for the reason that it says."""


def skip_unless(condition, reason):
    """For what this machine may rightly lack. With REQUIRE_KERNEL=1 nothing may be lacking."""
    if not condition:
        assert os.environ.get("REQUIRE_KERNEL") != "1", f"REQUIRE_KERNEL is set, but: {reason}"
        raise Skip(reason)


def run_scenes(name, scenes, *subject, print_logs=lambda: None):
    """Prints a line for each. All of them run, since each has jobs of its own; the exit status."""
    failed = 0
    for scene in scenes:
        try:
            told = scene(*subject)
            print(f"{name}: {scene.__name__} ... ok{': ' + told if told else ''}", flush=True)
        except Skip as reason:
            print(f"skipped: {name}: {scene.__name__}: {reason}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name}: {scene.__name__} ... FAILED: {type(error).__name__}: {str(error)[:3000]}", flush=True)
    if failed:
        print_logs()
    return 1 if failed else 0
