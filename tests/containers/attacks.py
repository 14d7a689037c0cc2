"""What a workload tries against its meter, from within the container: attacks.py all | NAME. Prints for each attack whether it
failed, as it should. The deadly ones are run alone: they may end the job, and must not outlive that."""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
import uuid

LIBC = ctypes.CDLL(None, use_errno=True)
RELAY = "/run/jobmeter/relay.sock"


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def status(pid, field):
    with open(f"/proc/{pid}/status") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith(field))


def keeper():
    """The first process has two children: this one, and the meter's other half."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            if status(name, "PPid") == "1" and status(name, "Name").startswith("jobmeter"):
                return int(name)
    raise AssertionError("there is no keeper")


def refused(action):
    """Whether the kernel refuses it."""
    try:
        return action() == -1
    except OSError:
        return True


def runs():
    return not status(1, "State").startswith(("T", "Z")) and not status(keeper(), "State").startswith(("T", "Z"))


def kill_the_first_process():
    os.kill(1, signal.SIGKILL)
    time.sleep(0.1)
    return runs()


def stop_the_first_process():
    os.kill(1, signal.SIGSTOP)
    time.sleep(0.1)
    return runs()


def terminate_the_first_process():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV):
        signal.signal(number, signal.SIG_IGN)
        os.kill(1, number)
    time.sleep(0.1)
    return runs()


def trace_the_first_process():
    return LIBC.ptrace(16, 1, None, None) == -1


def trace_the_keeper():
    return LIBC.ptrace(16, keeper(), None, None) == -1


def read_their_memory():
    return all(refused(lambda: open(f"/proc/{pid}/mem", "rb").read(1) and 0) for pid in (1, keeper()))


def read_their_environment():
    return all(refused(lambda: open(f"/proc/{pid}/environ", "rb").read(1) and 0) for pid in (1, keeper()))


def steal_a_descriptor():
    found = []
    for pid in (1, keeper()):
        pidfd = os.pidfd_open(pid)
        found += [LIBC.syscall(438, pidfd, number, 0) for number in range(3, 32)]
        found += [0 for _ in os.listdir(f"/proc/{pid}/fd")] if not refused(lambda: os.listdir(f"/proc/{pid}/fd") and 0) else []
    return all(number == -1 for number in found)


def say(*lines):
    """What the relay answers to these, the last of them."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(RELAY)
        answers, told = line.makefile(), ""
        for one in lines:
            try:
                line.sendall((json.dumps(one) + "\n").encode())
                told = answers.readline()
            except OSError:
                # It has said no, and closed.
                break
        return told


def begin_a_session():
    secret = "jm_" + "0" * 12 + "_" + "0" * 64
    return "refused" in say({"begin": {"version": 1, "nonce": "n", "secret": secret}})


def guess_the_session():
    return "refused" in say({"resume": {"version": 1, "nonce": "n", "session": str(uuid.uuid4())}})


def prove_by_nothing():
    return "welcome" not in say({"resume": {"version": 1, "nonce": "n", "session": str(uuid.UUID(int=0))}}, {"prove": {"proof": "0" * 64}})


def ask_without_a_proof():
    finish = {"attempt": os.environ["JOBMETER_ATTEMPT"], "usage": {"cpu_used_seconds": 0, "cpu_allocated_seconds": 0, "tokens": 0},
              "period": 0, "reason": "completed", "receipt": {}}
    return say({"ask": {"finish": finish}}) == ""


def put_another_socket_in_its_place():
    return refused(lambda: os.unlink(RELAY) or 0) and refused(lambda: os.rename("/run/jobmeter", "/run/other") or 0)


def change_the_wrapper():
    return refused(lambda: open("/jobmeter/jobmeter-wrapper", "r+b") and 0) and refused(lambda: os.unlink("/jobmeter/jobmeter-wrapper") or 0)


def leave_the_group():
    return refused(lambda: open("/sys/fs/cgroup/cgroup.procs", "w") and 0) and refused(lambda: os.mkdir("/sys/fs/cgroup/away") or 0)


def find_the_key():
    return not os.path.exists("/etc/jobmeter/key") and not any("jm_" in value or "KEY" in name for name, value in os.environ.items())


def become_somebody():
    return refused(lambda: os.setuid(65532) or 0) and refused(lambda: os.setuid(0) or 0)


def flood_the_relay():
    """Each of them waits for nothing; the wrapper has its connection already."""
    lines = []
    for _ in range(200):
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            line.connect(RELAY)
        except OSError:
            break
        lines.append(line)
    time.sleep(0.5)
    for line in lines:
        line.close()
    return runs()


def forge_the_message():
    """The test looks at what stands there in the end."""
    with open("/dev/termination-log", "w") as file:
        file.write('{"reason": "paid"}')
    return True


def kill_everything():
    # This process goes on, and with it a child in a session of its own, unless the first process ends them.
    if os.fork() == 0:
        os.setsid()
    os.kill(-1, signal.SIGKILL)


def kill_the_keeper():
    os.kill(keeper(), signal.SIGKILL)


def stop_the_keeper():
    os.kill(keeper(), signal.SIGSTOP)


def starve_the_meter():
    """Limits of a process of the same user may be set; no descriptor and no memory is left to it then."""
    for pid in (1, keeper()):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_AS, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))


QUIET = (
    kill_the_first_process, stop_the_first_process, terminate_the_first_process, trace_the_first_process, trace_the_keeper,
    read_their_memory, read_their_environment, steal_a_descriptor, begin_a_session, guess_the_session, prove_by_nothing,
    ask_without_a_proof, put_another_socket_in_its_place, change_the_wrapper, leave_the_group, find_the_key, become_somebody,
    flood_the_relay, forge_the_message,
)

if sys.argv[1] == "all":
    for attack in QUIET:
        print(f"attack {attack.__name__}: {'failed' if attack() else 'succeeded'}", flush=True)
    burn(0.5)
else:
    burn(1.5)
    # Longer than an --interval, so that the meter has written that down.
    time.sleep(2)
    globals()[sys.argv[1]]()
    # A job that nobody meters any more would go on here.
    burn(5)
    print("still alive", flush=True)
