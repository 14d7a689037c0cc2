"""What the scripts of the tests and `tests/run` itself are made of: waiting for a condition, starting and stopping processes by
their pid, a ledger service, scenes, skips, and stages that run side by side."""

from harness.processes import Processes, burn_all_cores, free_port, plain_environment, stop
from harness.scenes import Skip, run_scenes, skip_unless
from harness.service import LedgerService
from harness.waiting import let_pass, wait_until

__all__ = [
    "LedgerService", "Processes", "Skip", "burn_all_cores", "free_port", "let_pass", "plain_environment", "run_scenes", "skip_unless", "stop",
    "wait_until",
]
