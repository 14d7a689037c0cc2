"""What goes wrong on a node while steps run. Each function lets one thing happen, mends it if it does not mend itself, and returns what it was
aimed at: the one job that may be harmed by it, or None where any may."""

import contextlib
import os
import pathlib
import signal

from bed import call, meters, serve, start_slurmd, started
from harness import let_pass, wait_until

SPOOL = pathlib.Path("/var/spool/jobmeter/slurm")
SPOOL_MIB = 24
CONFIG = pathlib.Path("/etc/jobmeter/config.toml")
KEY = pathlib.Path("/etc/jobmeter/slurm.key")
PROGRAM = pathlib.Path("/usr/bin/jobmeter")
# Past the time that the keeper may be trusted without a word, and before it.
LONG_S = 4
SHORT_S = 0.2
# Why a fault did not happen, or only in part.
missed = []


class Metered:
    """One task, and the processes beside it."""

    def __init__(self, guardian, keeper, words):
        self.guardian, self.keeper = guardian, keeper
        self.front = next(int(word.removeprefix("--pid=")) for word in words if word.startswith("--pid="))
        self.step = next(word.removeprefix("label=step=") for word in words if word.startswith("label=step="))

    @property
    def job(self):
        """The name of the first step of a job begins those of all."""
        return self.step.split(".")[0]


def words_of(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def metered():
    """The tasks that have a keeper now."""
    found = []
    pids = set(map(int, meters()))
    for pid in sorted(pids):
        try:
            guardian = parent_of(pid)
            if guardian in pids and pathlib.Path(f"/proc/{pid}").stat().st_uid != 0:
                found.append(Metered(guardian, pid, words_of(pid)))
        except (OSError, StopIteration):
            continue
    return found


def aim(dice):
    """At one of them, if there is any still."""
    found = metered()
    if not found:
        missed.append("nobody is metered")
    return dice.choice(found) if found else None


def hit(number, *pids):
    """At one blow: all are held before the first is signalled."""
    held = []
    for pid in pids:
        try:
            held.append(os.pidfd_open(pid))
        except ProcessLookupError:
            pass
    for file in held:
        try:
            signal.pidfd_send_signal(file, number)
        except ProcessLookupError:
            pass
        os.close(file)
    if len(held) < len(pids):
        missed.append("it had ended")
    return len(held) == len(pids)


def for_a_while(dice):
    let_pass(dice.uniform(SHORT_S, LONG_S))


def the_ledger_is_away(dice):
    started["ledger"].terminate()
    started["ledger"].wait()
    for_a_while(dice)
    serve()


def the_ledger_is_killed(dice):
    started["ledger"].kill()
    started["ledger"].wait()
    serve()


def blow(*roles):
    def kind(dice):
        target = aim(dice)
        if target:
            hit(signal.SIGKILL, *(getattr(target, role) for role in roles))
        return target.job if target else ""
    kind.__name__ = "_and_".join(roles) + ("_is_killed" if len(roles) == 1 else "_are_killed")
    return kind


def stopped(role):
    def kind(dice):
        target = aim(dice)
        if target:
            hit(signal.SIGSTOP, getattr(target, role))
            for_a_while(dice)
            hit(signal.SIGCONT, getattr(target, role))
        return target.job if target else ""
    kind.__name__ = f"a_{role}_is_stopped"
    return kind


def a_slurmstepd_is_killed(dice):
    target = aim(dice)
    try:
        stepd = parent_of(target.front) if target else 0
        # One whose slurmstepd has gone belongs to the first process.
        if stepd > 1 and hit(signal.SIGKILL, stepd):
            # Slurm does not notice, without jobmeter neither: what had been started ends by itself, and srun waits until it is cancelled.
            wait_until(30, "the task ends", lambda: not os.path.exists(f"/proc/{target.front}"))
            call("scancel", f"--jobname={target.job}", check=False)
    except OSError:
        pass
    return target.job if target else ""


def the_spool_is_full(dice):
    filler = SPOOL / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    for_a_while(dice)
    filler.unlink()


def slurmd_is_killed(dice):
    started["slurmd"].kill()
    started["slurmd"].wait()
    for_a_while(dice)
    start_slurmd()


def the_key_is_unreadable(dice):
    KEY.chmod(0)
    for_a_while(dice)
    KEY.chmod(0o600)


def the_config_is_broken(dice):
    whole = CONFIG.read_text()
    CONFIG.write_text(dice.choice(["", "ledger = [", 'ledger = "http://127.0.0.1:1"\n', whole + "nothing = 1\n", whole.replace("key_file", "# key_file")]))
    for_a_while(dice)
    CONFIG.write_text(whole)


def the_program_is_missing(dice):
    away = PROGRAM.with_suffix(".away")
    PROGRAM.rename(away)
    for_a_while(dice)
    away.rename(PROGRAM)


def nothing_is_wrong(_):
    return ""


# At one task, which has to run.
AIMED = (blow("keeper"), blow("guardian"), blow("front"), blow("guardian", "keeper"), blow("front", "keeper"), blow("front", "guardian"), blow("front", "guardian", "keeper"),
         stopped("keeper"), stopped("guardian"), a_slurmstepd_is_killed)
KINDS = (*AIMED, the_ledger_is_away, the_ledger_is_killed, the_spool_is_full, slurmd_is_killed, the_key_is_unreadable, the_config_is_broken, the_program_is_missing, nothing_is_wrong)
