"""Drives `bash -i` on a pseudo-terminal and jobmeter inside of it."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

JOBMETER = os.environ["JOBMETER"]
# What has to come comes within this, however busy the machine is; only a failure takes so long.
SOON_S = 60


class Terminal:
    def __init__(self):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="ready> ", TERM="xterm", HISTFILE="")
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self.expect("ready> ")

    def send(self, text):
        os.write(self.fd, text.encode())

    def line(self, text):
        self.send(text + "\n")

    def start_python(self, script):
        """Types a run of it."""
        path = os.environ["DIR"] + "/script.py"
        with open(path, "w") as file:
            file.write(script)
        self.line(f"{JOBMETER} run -q -- python3 {path}")

    def expect(self, pattern, seconds=SOON_S):
        """Reads until the pattern comes; what was before it is forgotten."""
        until = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                sys.exit(f"{pattern!r} did not come; seen: {self.seen!r}")
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                sys.exit(f"{pattern!r} did not come before the end; seen: {self.seen!r}")


def ctrl_z():
    terminal = Terminal()
    terminal.line(f"{JOBMETER} run -q -- bash -c 'echo be\"\"gun; read word; echo got $word; exit 4'")
    terminal.expect("begun")
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.expect("ready> ")
    terminal.line("jobs -s | wc -l")
    terminal.expect(r"\b1\b")
    terminal.line("fg")
    terminal.line("something")
    terminal.expect("got something")
    terminal.line("echo status $?")
    terminal.expect("status 4")


# Counts what continues it. What comes twice at once counts as one, so it has to be awake for the first.
CONTINUED = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
print("be" + "gun", flush=True)
count = 0
while signal.sigwait({signal.SIGCONT}):
    count += 1
    while signal.sigtimedwait({signal.SIGCONT}, 0.2):
        count += 1
    print("continued", count, "times", flush=True)
"""


def fg():
    """`fg` reaches the command as it would without jobmeter: once."""
    terminal = Terminal()
    terminal.start_python(CONTINUED)
    terminal.expect("begun")
    for times in range(1, 6):
        terminal.send("\x1a")
        terminal.expect("ready> ")
        terminal.line("fg")
        count = int(terminal.expect(r"continued (\d+) times").group(1))
        if count != times:
            sys.exit(f"continued {count} times by {times} fg")


# A shell's `read` may miss a signal that comes just before it waits (it has no ppoll), so the command takes it by itself.
INTERRUPTED = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("be" + "gun", flush=True)
signal.sigwait({signal.SIGINT})
print("caug" + "ht", flush=True)
sys.exit(9 if signal.sigtimedwait({signal.SIGINT}, 1) else 3)
"""


def ctrl_c():
    terminal = Terminal()
    terminal.start_python(INTERRUPTED)
    terminal.expect("begun")
    terminal.send("\x03")
    terminal.expect("caught")
    terminal.expect("ready> ")
    terminal.line("echo status $?")
    # 9: the signal came twice.
    terminal.expect("status 3")


def ctrl_c_afterwards():
    """What is left ignores it; that it is to end is the meter's to see, as whom the command ran."""
    for options in ("", "--as nobody --chdir /"):
        terminal = Terminal()
        left = "(until [ ! -d /proc/$$ ]; do sleep 0.01; done; echo al\"\"one; exec sleep 600) & exit 4"
        terminal.line(f"{JOBMETER} run -q --wait-descendants {options} -- bash -c 'trap \"\" INT; {left}'")
        terminal.expect("alone")
        terminal.send("\x03")
        terminal.expect("ready> ")
        terminal.line("echo status $?")
        terminal.expect("status 4")


# Into the terminal's input, by each way that leads to it.
PUSHED = """
import fcntl, os
for name, opened in (("standard output", lambda: 1), ("/dev/tty", lambda: os.open("/dev/tty", os.O_RDWR))):
    try:
        for letter in b"echo pus" + b"hed\\n":
            fcntl.ioctl(opened(), 0x5412, bytes([letter]))  # TIOCSTI
        print(name, "took it")
    except OSError as error:
        print(name, "refused:", error.strerror)
"""


def as_another_user():
    """A job of --as has no hold on the terminal of who started it; Ctrl-C reaches it all the same, and Ctrl-Z stops nothing."""
    terminal = Terminal()
    folder = os.environ["DIR"]
    for name, text in (("push.py", PUSHED), ("interrupted.py", INTERRUPTED)):
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    terminal.line(f"{JOBMETER} run -q --as nobody --chdir / -- python3 < {folder}/push.py")
    terminal.expect("standard output refused")
    terminal.expect("/dev/tty refused")
    terminal.expect("ready> ")
    terminal.line("echo still here")
    if "pushed" in terminal.expect("here\r\n").string:
        sys.exit("the job has typed into the terminal")
    # In the background it reads nothing that is typed for others.
    with open(f"{folder}/read.py", "w") as file:
        file.write("import os\nprint('re' + 'ad', [os.read(0, 99), os.access('/proc/self/fd/1', os.R_OK)], flush=True)\n")
    os.chmod(f"{folder}/read.py", 0o644)
    os.chmod(folder, 0o711)
    terminal.line(f"{JOBMETER} run -q --as nobody --chdir / -- python3 {folder}/read.py &")
    terminal.expect(r"read \[b'', ")
    terminal.line("wait; echo typed")
    terminal.expect("typed\r\n")
    terminal.line(f"{JOBMETER} run -q --as nobody --chdir / -- python3 < {folder}/interrupted.py")
    terminal.expect("begun")
    terminal.send("\x1a\x03")
    terminal.expect("caught")
    terminal.expect("ready> ")
    terminal.line("echo status $?")
    terminal.expect("status 3")


def python():
    terminal = Terminal()
    terminal.line(f"{JOBMETER} run -q -- python3 -q -i")
    terminal.expect(">>> ")
    terminal.line("6 * 7")
    terminal.expect("42")
    terminal.line("import sys; sys.exit(5)")
    terminal.line("echo status $?")
    terminal.expect("status 5")


def vim():
    terminal = Terminal()
    path = os.environ["DIR"] + "/text"
    terminal.line(f"{JOBMETER} run -q -- vim -u NONE -i NONE -n {path}")
    terminal.expect("New File")
    terminal.send("ifirst\x1b")
    terminal.expect("first")
    terminal.send("\x1a")
    terminal.expect("ready> ")
    terminal.line("echo aside $?")
    terminal.expect("aside 148")
    terminal.line("fg")
    terminal.expect("first")
    terminal.send("osecond\x1b:wq\r")
    terminal.expect("ready> ")
    terminal.line("echo status $?")
    terminal.expect("status 0")
    with open(path) as file:
        if file.read() != "first\nsecond\n":
            sys.exit("the editor did not write what was typed")


def modes():
    terminal = Terminal()
    terminal.line(f"{JOBMETER} run -q -- stty size")
    terminal.expect("33 101")
    terminal.line(f"{JOBMETER} run -q --limit 0.00001 -- bash -c 'stty -echo raw; while :; do :; done'")
    terminal.expect("stopped: the job's own limit")
    terminal.line("stty -a; echo status $?")
    if terminal.expect(r"[ -]echo ").group(0).startswith("-"):
        sys.exit("the terminal's modes were not restored")


class Screen:
    """What stands on the screen of a full-screen program, which writes only what has changed."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.rows = [[" "] * 101 for _ in range(33)]
        self.at = [0, 0]

    def expect(self, text, seconds=SOON_S):
        until = time.monotonic() + seconds
        while not any(text in "".join(row) for row in self.rows):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.terminal.fd], [], [], left)[0]:
                sys.exit(f"{text!r} is not on the screen:\n" + "\n".join("".join(row).rstrip() for row in self.rows))
            self.draw(os.read(self.terminal.fd, 65536).decode(errors="replace"))

    def draw(self, text):
        for place, letter in re.findall(r"\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])", text):
            if place.endswith("H"):
                row, _, column = place[:-1].partition(";")
                self.at = [int(row or 1) - 1, int(column or 1) - 1]
            elif letter and letter.isprintable() and self.at[0] < 33 and self.at[1] < 101:
                self.rows[self.at[0]][self.at[1]] = letter
                self.at[1] += 1


def top():
    terminal = Terminal()
    for job in ("endless", "other"):
        terminal.line(f"{JOBMETER} run -q --job {job} -- sleep 600 &")
        terminal.line(f"until {JOBMETER} jobs show {job} 2>/dev/null | grep -q running; do sleep 0.1; done; echo {job} ru\"\"ns")
        terminal.expect(f"{job} runs")
    terminal.line(f"{JOBMETER} top")
    screen = Screen(terminal)
    for keys, text in (
        ("", "other"),
        ("/endl\r", "sorted by burn"),
        ("s", "sorted by credits"),
        ("jx", "stop all tasks of endless?"),
        ("n", "endless runs on"),
        ("x", "stop all tasks of endless?"),
        ("y", "endless is being stopped"),
    ):
        terminal.send(keys)
        screen.expect(text)
    # What came before the screen is not what comes after it.
    terminal.seen = ""
    terminal.send("q")
    terminal.expect("ready> ")
    terminal.line("wait %1; echo status $?")
    terminal.expect("status 137")
    terminal.line("kill %2; wait %2; echo then $?")
    terminal.expect("then 143")


globals()[sys.argv[1]]()
