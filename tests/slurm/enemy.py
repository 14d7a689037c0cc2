"""What a task does against its meter, as the job's user: python3 -m enemy WHAT. It says "succeeded: ..." for each thing that should not work,
and last what it burned, as the kernel counts it."""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
PROGRESS = "/tmp/enemy.progress"
PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH = 16, 0x4206, 17
PIDFD_OPEN, PIDFD_GETFD, IOPRIO_SET = 434, 438, 251


def succeeded(what):
    print(f"succeeded: {what}", flush=True)


def processes(is_wanted):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and is_wanted((entry / "cmdline").read_bytes().split(b"\0"), (entry / "comm").read_text().strip(), entry.stat().st_uid):
                found.append(int(entry.name))
    return found


def meters():
    return processes(lambda words, *_: words[:3] == [b"jobmeter", b"slurm", b"task"])


def fronts():
    """With their witnesses, which share their memory."""
    return processes(lambda words, *_: words[:3] == [b"jobmeter", b"slurm", b"front"])


def slurmstepds():
    return processes(lambda words, *_: words[0].startswith(b"slurmstepd"))


def burn(seconds, path=PROGRESS):
    """It writes down what it has burned so far, since it may be killed."""
    start, file = time.process_time(), os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    while (now := time.process_time()) - start < seconds:
        os.pwrite(file, b"%012.6f" % now, 0)


def works(what, attempt, *arguments):
    with contextlib.suppress(OSError):
        attempt(*arguments)
        succeeded(what)


def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def trace(how, pid):
    if libc.ptrace(how, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    libc.ptrace(PTRACE_DETACH, pid, None, None)


def take_descriptor(pid, number):
    held = os.pidfd_open(pid)
    try:
        taken = libc.syscall(PIDFD_GETFD, held, number, 0)
        if taken < 0:
            raise OSError(ctypes.get_errno(), "refused")
    finally:
        os.close(held)


def copy_memory(pid):
    vector = (ctypes.c_uint64 * 2)(0x1000, 8)
    mine = ctypes.create_string_buffer(8)
    own = (ctypes.c_uint64 * 2)(ctypes.addressof(mine), 8)
    # EFAULT: it was let in, and nothing is there.
    if libc.process_vm_readv(pid, own, 1, vector, 1, 0) < 0 and ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), "refused")


def signal_the_meters():
    for pid in meters() + slurmstepds():
        # Within a session everybody may send SIGCONT (kill(2)), and a task is in slurmstepd's.
        go_on = [signal.SIGCONT] if os.getsid(pid) != os.getsid(0) else []
        for number in (0, signal.SIGSTOP, *go_on, signal.SIGTERM, signal.SIGKILL, signal.SIGRTMIN + 1):
            works(f"signal {int(number)} to {pid}", os.kill, pid, number)
        works(f"signal by pidfd to {pid}", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGSTOP))
        works(f"signal to the group of {pid}", os.killpg, os.getpgid(pid), signal.SIGSTOP)


def trace_what_is_jobmeters():
    """The front has the same user, and forbids it."""
    for pid in meters() + fronts() + slurmstepds():
        for how in (PTRACE_ATTACH, PTRACE_SEIZE):
            works(f"ptrace {how} of {pid}", trace, how, pid)
        for name in ("mem", "environ", "maps", "auxv", "syscall", "stack", "io"):
            works(f"read /proc/{pid}/{name}", lambda: open(f"/proc/{pid}/{name}", "rb").read(0 if name == "mem" else 1))
        works(f"write /proc/{pid}/mem", lambda: open(f"/proc/{pid}/mem", "wb"))
        works(f"list /proc/{pid}/fd", os.listdir, f"/proc/{pid}/fd")
        works(f"enter /proc/{pid}/root", os.listdir, f"/proc/{pid}/root/")
        works(f"memory of {pid}", copy_memory, pid)
        for number in range(3, 12):
            works(f"descriptor {number} of {pid}", take_descriptor, pid, number)
        works(f"oom_score_adj of {pid}", lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"))


def starve_the_meters():
    """Of the front what any process of the same user may do is done too: it must change nothing."""
    def limit(pid):
        import resource
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_AS, (0, 0))
    changes = {"prlimit": limit, "nice": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19), "idle": lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
               "affinity": lambda pid: os.sched_setaffinity(pid, {0}), "ioprio": lambda pid: call(IOPRIO_SET, 1, pid, 3 << 13)}
    for name, change in changes.items():
        for pid in meters() + slurmstepds():
            works(f"{name} of {pid}", change, pid)
        for pid in fronts():
            with contextlib.suppress(OSError):
                change(pid)


def leave_the_groups():
    """Into each group of each hierarchy, and each change to those of jobmeter's."""
    is_v2 = lambda folder: os.path.exists(os.path.join(folder, "cgroup.controllers"))
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        for name in ("cgroup.procs", "cgroup.threads", "tasks"):
            works(f"a move by {folder}/{name}", lambda: pathlib.Path(folder, name).write_text("0") if os.path.exists(f"{folder}/{name}") else call(-1))
        if "jobmeter-" not in folder and not is_v2(folder):
            continue
        for name, value in (("cgroup.freeze", "1"), ("cgroup.kill", "1"), ("freezer.state", "FROZEN"), ("cgroup.max.descendants", "0"), ("cgroup.type", "threaded"), ("cpuacct.usage", "0"), ("cgroup.subtree_control", "-cpu")):
            works(f"{folder}/{name}", lambda: pathlib.Path(folder, name).write_text(value) if os.path.exists(f"{folder}/{name}") else call(-1))
        works(f"a group below {folder}", os.mkdir, f"{folder}/own")
        works(f"chmod of {folder}", os.chmod, folder, 0o777)
        works(f"chown of {folder}", os.chown, folder, os.getuid(), -1)
        if "jobmeter-" in folder:
            works(f"removal of {folder}", os.rmdir, folder)


def leave_the_groups_as_root_of_a_namespace():
    for options in ("-Ur", "-UrC", "-UrCm", "-UrCmpf"):
        mount = "mount -t cgroup2 none /mnt 2>/dev/null && echo 0 > /mnt/cgroup.procs && echo succeeded: moved by an own mount;" if "m" in options else ""
        code = f"{mount} python3 -m enemy groups_within; true"
        subprocess.run(["unshare", options, "sh", "-c", code], check=False, stderr=subprocess.DEVNULL)


def stop_everybody():
    """kill(-1, SIGSTOP) spares who calls it. It burns on meanwhile."""
    os.setsid() if os.getpid() != os.getsid(0) else None
    os.kill(-1, signal.SIGSTOP)
    burn(1.5)
    os.kill(-1, signal.SIGCONT)


def kill_everybody():
    with contextlib.suppress(OSError):
        os.setsid()
    os.kill(-1, signal.SIGKILL)
    burn(60)


def kill_the_front():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for pid in fronts():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            burn(60)
        os._exit(0)
    signal.pause()


def stop_the_front():
    """And what asks whom a signal reaches: then it burns to its end."""
    for pid in fronts():
        os.kill(pid, signal.SIGSTOP)
    burn(600)


def end_with_a_daemon():
    for name in ("one", "two"):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                burn(600, f"{PROGRESS}.{name}")
            os._exit(0)
        os.wait()


def look_at_descriptors():
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            where = os.readlink(f"/proc/self/fd/{number}")
            if int(number) > 2 and not where.startswith("/proc/"):
                succeeded(f"descriptor {number} is {where}")
    for pid in [os.getppid(), os.getpid()]:
        works(f"the socket of {pid}", lambda: open(f"/proc/{pid}/fd/3", "rb"))


def read_secrets():
    for path in ("/etc/jobmeter/slurm.key", "/etc/jobmeter/admin-key", "/etc/jobmeter/node-key", "/etc/jobmeter/keys/bob", "/var/lib/ledger.db"):
        works(f"read {path}", lambda: open(path, "rb").read(1))
        works(f"write {path}", lambda: open(path, "ab"))
        works(f"link {path}", os.link, path, f"/tmp/own.{os.getpid()}")
    for path in ("/var/spool/jobmeter/slurm", "/run/jobmeter"):
        works(f"list {path}", os.listdir, path)
        works(f"make a file in {path}", lambda: open(f"{path}/own", "w"))
        works(f"move {path}", os.rename, path, f"{path}.old")
    if secrets := [name for name, value in os.environ.items() if any(word in name for word in ("KEY", "SECRET", "TOKEN"))]:
        succeeded(f"secrets in the environment: {secrets}")


def take_sockets_of_others():
    """Their names are in what bob's task says of itself."""
    path = pathlib.Path("/tmp/bob.socket").read_text().strip()
    def connect(path):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
    works(f"connect to {path}", connect, path)
    works("remove it", os.unlink, path)
    own = os.environ["JOBMETER_SOCKET"]
    works("remove its own", os.unlink, own)
    works("move its own", os.rename, own, own + ".old")


def flood_the_socket():
    """With questions, half lines and handed descriptors that nobody asked for."""
    clients = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(0.01)
            client.connect(os.environ["JOBMETER_SOCKET"])
            clients.append(client)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        for client in clients:
            with contextlib.suppress(OSError):
                socket.send_fds(client, [b"left\n" * 100 + b"x" * 2000], [0, 1, 2])


def bomb():
    """Forks as fast as it can, to a limit that is the user's own, all of them burning."""
    import resource
    resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))
    while True:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                with contextlib.suppress(OSError):
                    os.setsid()
        os.sched_yield()


def groups_within():
    leave_the_groups()
    os._exit(0)


def plain():
    burn(0.5)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    burn(0.3)
    print(f"burned {sum(os.times()[:4]):.6f}", flush=True)
