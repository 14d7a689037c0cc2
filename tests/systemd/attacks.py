#!/usr/bin/python3
"""What a job of jobmeter@.service tries against its meter, its spool and everybody else, as its own user: attacks.py JOB. Prints for
each attack whether it was held, then what CPU time all of it took."""

import array
import ctypes
import fcntl
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

JOB = sys.argv[1]
LIBC = ctypes.CDLL(None, use_errno=True)
STATE = pathlib.Path(f"/var/lib/jobmeter/units/{JOB}")
UNIT = f"jobmeter@{JOB}.service"
# Meters, and what stands for all other programs of this machine.
METERS, OTHERS = [], []
# Before anything is opened here, but for the list itself.
OPENED = {number for number in os.listdir("/proc/self/fd") if int(number) > 2 and os.path.exists(f"/proc/self/fd/{number}")}


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def field(pid, name):
    return next(line.split(":", 1)[1].strip() for line in open(f"/proc/{pid}/status") if line.startswith(name))


def find():
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            name, uid = field(pid, "Name"), int(field(pid, "Uid").split()[0])
            if name.startswith("jobmeter"):
                METERS.append(pid)
            elif uid != os.getuid():
                OTHERS.append(pid)
        except (OSError, StopIteration):
            pass


def refused(action, *arguments):
    """Whether the kernel refuses it."""
    try:
        return action(*arguments) == -1
    except OSError:
        return True


def all_run():
    return all(not field(pid, "State").startswith(("T", "t", "Z")) for pid in METERS)


def to_meters(number):
    return all([refused(os.kill, pid, number) for pid in METERS]) and all_run()


def stop_the_meter(): return to_meters(signal.SIGSTOP)
def kill_the_meter(): return to_meters(signal.SIGKILL)
def terminate_the_meter(): return to_meters(signal.SIGTERM)
def continue_or_wake_the_meter(): return to_meters(signal.SIGCONT) and to_meters(signal.SIGALRM)


def by_pidfd():
    return all([refused(signal.pidfd_send_signal, os.pidfd_open(pid), signal.SIGSTOP) for pid in METERS]) and all_run()


def stop_everybody():
    """All that this user may: the caller itself is left out (kill(2))."""
    refused(os.kill, -1, signal.SIGSTOP)
    return all_run()


def kill_everybody():
    refused(os.kill, -1, signal.SIGKILL)
    return all_run()


def stop_the_meters_group(): return all([refused(os.killpg, os.getpgid(pid), signal.SIGSTOP) for pid in METERS]) and all_run()
def trace_by_attach(): return all([LIBC.ptrace(16, pid, None, None) == -1 for pid in METERS])
def trace_by_seize(): return all([LIBC.ptrace(0x4206, pid, None, None) == -1 for pid in METERS])


def opened(name, mode):
    return all([refused(lambda: open(f"/proc/{pid}/{name}", mode).close()) for pid in METERS])


def read_its_memory(): return opened("mem", "rb")
def write_its_memory(): return opened("mem", "r+b")
def read_its_environment(): return opened("environ", "rb")
def read_its_maps(): return opened("maps", "rb") and opened("auxv", "rb") and opened("stack", "rb")
def list_its_files(): return all([refused(os.listdir, f"/proc/{pid}/fd") for pid in METERS])
def enter_its_root(): return all([refused(os.listdir, f"/proc/{pid}/root/") for pid in METERS])


def copy_its_memory():
    buffer = ctypes.create_string_buffer(64)
    pair = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 64)
    return all([LIBC.process_vm_readv(pid, ctypes.byref(pair), 1, ctypes.byref(pair), 1, 0) == -1 for pid in METERS])


def take_its_descriptors():
    return all([LIBC.syscall(438, os.pidfd_open(pid), number, 0) == -1 for pid in METERS for number in range(32)])


def lower_its_limits():
    return all([refused(lambda: resource.prlimit(pid, which, (1, 1)))
                for pid in METERS for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)])


def slow_it_down():
    return all([refused(os.setpriority, os.PRIO_PROCESS, pid, 19) and refused(os.sched_setaffinity, pid, {0})
                and refused(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
                and LIBC.syscall(251, 1, pid, 3 << 13) == -1 for pid in METERS])


def offer_it_to_the_oom_killer():
    return all([refused(write, f"/proc/{pid}/oom_score_adj", "1000") for pid in METERS])


def hide_from_the_oom_killer(): return refused(write, "/proc/self/oom_score_adj", "-1000")


def groups():
    """The job's own group and all above it, as far as they can be seen."""
    path = pathlib.Path("/sys/fs/cgroup") / open("/proc/self/cgroup").read().rsplit("0::/", 1)[1].strip()
    return [path, *path.parents][: len(path.parents) - 2]


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def leave_its_group():
    own = open("/proc/self/cgroup").read()
    tried = [refused(write, group / "cgroup.procs", "0") for group in groups()[1:]]
    return all(tried) and open("/proc/self/cgroup").read() == own


def make_groups(): return all([refused(os.mkdir, group / "mine") for group in groups()])
def freeze_its_meter(): return all([refused(write, group / "cgroup.freeze", "1") for group in groups()]) and all_run()
def kill_by_the_group(): return all([refused(write, group / "cgroup.kill", "1") for group in groups()]) and all_run()
def lift_its_limits(): return all([refused(write, group / name, "max") for group in groups() for name in ("cpu.max", "memory.max", "pids.max")])
def drop_its_controllers(): return all([refused(write, group / "cgroup.subtree_control", "-cpu") for group in groups()])


def read_or_change_the_spool():
    spool = STATE / "spool"
    return all([refused(os.listdir, spool), refused(write, spool / "x.spool", ""), refused(os.rename, spool, STATE / "gone"),
                refused(os.rmdir, spool), refused(os.symlink, "/etc", STATE / "link")])


def put_another_folder_in_the_place_of_its_own():
    return refused(os.rename, STATE / "work", STATE / "other") and refused(os.rename, STATE, STATE.with_name("other"))


def read_the_key():
    places = [f"/run/credentials/{UNIT}/key", f"/etc/jobmeter/jobs/{JOB}.key", "/var/lib/jobmeter-ledger/admin-key"]
    return all([refused(lambda: open(place).close()) for place in places])


def change_the_settings():
    return all([refused(write, path, "") for path in ("/etc/jobmeter/config.toml", f"/etc/jobmeter/jobs/{JOB}.conf", "/etc/jobmeter/jobs/new.conf")])


def find_secrets_in_the_environment():
    return not {"NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "JOBMETER_KEY", "JOBMETER_SPOOL", "LISTEN_FDS"} & set(os.environ)


def find_open_files(): return not OPENED


def speak_to_systemd_as_the_meter():
    """The unit takes no notifications; attacked.py sees it end with its own process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        refused(line.sendto, f"MAINPID={os.getpid()}\nSTOPPING=1".encode(), "/run/systemd/notify")
    return True


def command(*words):
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, text=True)


def ask_systemd_to_stop_the_unit(): return command("systemctl", "--no-ask-password", "stop", UNIT).returncode != 0 and all_run()
def ask_systemd_to_freeze_the_unit(): return command("systemctl", "--no-ask-password", "freeze", UNIT).returncode != 0 and all_run()
def ask_systemd_to_kill_the_meter(): return command("systemctl", "--no-ask-password", "kill", "-s", "STOP", UNIT).returncode != 0 and all_run()
def start_something_outside(): return command("systemd-run", "--no-ask-password", "true").returncode != 0
def use_the_users_own_manager(): return command("systemd-run", "--user", "--scope", "true").returncode != 0


def become_root():
    none = all([refused(os.setuid, 0), refused(os.setgid, 0), refused(os.setgroups, [0])])
    return none and all(int(field("self", name), 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))


def run_a_set_uid_program():
    return field("self", "NoNewPrivs") == "1" and command("/usr/local/bin/root-id", "-u").stdout.strip() == str(os.getuid())


def make_namespaces():
    flags = (0x10000000, 0x00020000, 0x20000000, 0x02000000, 0x40000000)  # user, mount, pid, cgroup, network
    return all([LIBC.unshare(flag) == -1 for flag in flags])


def make_a_set_uid_file():
    copy = pathlib.Path("copy")
    copy.write_bytes(b"")
    return refused(os.chmod, copy, 0o4755)


def link_what_is_not_its_own():
    """Hard links to others' files, so that a meter that owns them writes there."""
    return all([refused(os.link, path, f"link-{at}") for at, path in enumerate(("/etc/shadow", f"/etc/jobmeter/jobs/{JOB}.key"))])


def type_into_the_terminal():
    def push(path):
        with open(path, "r+b", buffering=0) as file:
            fcntl.ioctl(file, 0x5412, b"x")  # TIOCSTI
    return all([refused(push, path) for path in ("/dev/tty", "/dev/console", "/dev/tty1")])


SOCKET = os.environ.get("JOBMETER_SOCKET", "")


def ask(line, words):
    line.sendall(words.encode() + b"\n")
    return json.loads(line.makefile().readline())


def take_over_the_socket():
    folder = os.path.dirname(SOCKET)
    other = socket.socket(socket.AF_UNIX)
    return all([refused(os.unlink, SOCKET), refused(other.bind, f"{folder}/other.sock"), refused(os.rename, SOCKET, f"{folder}/gone"),
                refused(os.listdir, folder), refused(os.chmod, folder, 0o777)])


def starve_the_other_clients():
    """Two hundred connections, half of which ask without end; one more is answered all the same."""
    crowd = []
    for at in range(200):
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            line.connect(SOCKET)
            line.send(b"left\n" * (at % 2) * 100)
            crowd.append(line)
        except OSError:
            line.close()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(SOCKET)
        answered = "left" in ask(line, "left")
    for other in crowd:
        other.close()
    return answered


def finish_its_own_attempt():
    """The service is asked without a key, and with one that is made up."""
    attempt = os.environ["JOBMETER_ATTEMPT"]
    body = json.dumps({"attempt": attempt, "usage": {}, "period": 0, "reason": "completed", "receipt": None})
    told = []
    for header in ("", "Authorization: Bearer jm_0123456789ab_00\r\n"):
        with socket.create_connection(("127.0.0.1", 7770), timeout=10) as line:
            line.sendall(f"POST /api/v1/attempts/{attempt}/finish HTTP/1.1\r\nHost: x\r\n{header}Content-Type: application/json\r\n"
                         f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
            told.append(line.makefile().readline())
    return all(" 401 " in line for line in told)


def ask_the_ledger_with_jobmeter():
    words = (("jobs", "stop", JOB), ("account", "limit", "none"), ("spool", "flush"), ("key", "list"))
    # Its own spool is another, and empty.
    return all([command("jobmeter", *line).returncode != 0 or line[0] == "spool" for line in words])


def lead_the_receipt_astray():
    """It is written to out/receipt.json: a link takes the folder's place, and one the file's."""
    os.rename("out", "moved")
    os.symlink("/etc", "out")
    os.symlink("/etc/jobmeter/target", "moved/receipt.json")
    return True


def change_other_programs():
    return all([refused(os.kill, pid, signal.SIGSTOP) for pid in OTHERS])


def descend_from_the_meter_no_more():
    """A child that has left its parents burns on, and is metered: attacked.py compares."""
    over, held = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            burn(0.3)
        os._exit(0)
    os.wait()
    os.close(held)
    return os.read(over, 1) == b""


def send_a_descriptor_to_its_socket():
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(SOCKET)
        line.sendmsg([b"left\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 64))])
        return "left" in json.loads(line.makefile().readline())


ATTACKS = [value for name, value in list(globals().items()) if callable(value) and getattr(value, "__module__", "") == "__main__"
           and name not in ("burn", "field", "find", "refused", "all_run", "to_meters", "opened", "groups", "write", "command", "ask")]
# What ends the caller's own helpers comes last.
ATTACKS.sort(key=lambda attack: attack in (stop_everybody, kill_everybody))


def main():
    find()
    for attack in ATTACKS:
        try:
            held = attack()
        except Exception as error:
            held = f"not tried: {type(error).__name__}: {error}"
        print(f"attack {attack.__name__}: {'held' if held is True else held or 'SUCCEEDED'}", flush=True)
        burn(0.02)
    burn(1)
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"burned {own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime:.3f}", flush=True)


main()
