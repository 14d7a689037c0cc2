#!/usr/bin/env python3
"""Makes the working directory the root of this mount namespace, and becomes a command there: take-root.py COMMAND...

pivot_root(8) alone does not do it where the tests run in a chroot: the namespace's own root stays what is outside of that, and the
kernel refuses user namespaces (and so PrivateUsers= of a unit) to whoever has another root than its namespace
(unshare(2), EPERM). Entering its own mount namespace takes a process to the root of that. The namespace is a private copy:
nothing outside changes."""

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
MNT_DETACH = 2
LIBC = ctypes.CDLL(None, use_errno=True)


def succeed(status, what):
    if status != 0:
        sys.exit(f"take-root.py: {what}: {os.strerror(ctypes.get_errno())}")


root = os.open(".", os.O_DIRECTORY)
namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
succeed(LIBC.setns(namespace, CLONE_NEWNS), "setns")
os.fchdir(root)
# Onto itself, so that no directory is needed for the old one, which is then on top.
succeed(LIBC.pivot_root(b".", b"."), "pivot_root")
succeed(LIBC.umount2(b".", MNT_DETACH), "umount2")
os.chdir("/")
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
