"""What this machine has, and what Debian's packages add to it."""

import glob
import os
import pathlib
import shutil
import subprocess

from harness.stages import Failed

# For each package, a program or a path by which it is there. A program in /usr/sbin counts for an ordinary user, too.
PROBES = {
    "busybox-static": "/bin/busybox",
    "chromium": "/usr/bin/chromium",
    "conmon": "conmon",
    "cron": "cron",
    "curl": "curl",
    "dbus": "dbus-daemon",
    "dbus-user-session": "/usr/lib/systemd/user/dbus.socket",
    "dpkg": "dpkg-deb",
    "faketime": "/usr/lib/*/faketime/libfaketime.so.1",
    "gcc": "cc",
    "haproxy": "haproxy",
    "iproute2": "ip",
    "jq": "jq",
    "kubernetes-client": "kubectl",
    "libc6-dev": "/usr/include/stdio.h",
    "libpam-systemd": "/lib/*/security/pam_systemd.so",
    "libslurm-dev": "/usr/include/slurm/spank.h",
    "mmdebstrap": "mmdebstrap",
    "munge": "munged",
    "nginx": "nginx",
    "openssh-sftp-server": "/usr/lib/openssh/sftp-server",
    "openssl": "openssl",
    "parallel": "parallel",
    "passwd": "useradd",
    "pgbouncer": "pgbouncer",
    "podman": "podman",
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",
    "procps": "pgrep",
    "prometheus": "promtool",
    "python3-venv": "/usr/lib/python3*/ensurepip/__init__.py",
    "runc": "runc",
    "slurm-wlm": "slurmctld",
    "sshfs": "sshfs",
    "systemd": "/lib/systemd/systemd",
    "util-linux": "unshare",
    "vim": "vim",
}


def is_there(package):
    probe = PROBES[package]
    if probe.startswith("/"):
        return bool(glob.glob(probe))
    return shutil.which(probe, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def is_installed(package):
    # pyenv and others bring an ensurepip of their own.
    if package == "python3-venv":
        return subprocess.run(["python3", "-c", "import ensurepip"], capture_output=True).returncode == 0
    return is_there(package)


def install_packages(work):
    """What the chosen stages need and is not there. Whoever is not root is told, and those stages are skipped."""
    wanted = sorted({package for stage in work.shared.stages for package in stage.packages})
    missing = [package for package in wanted if not is_installed(package)]
    if not missing:
        work.say("everything is there")
        return
    if os.geteuid() != 0:
        work.shared.missing = {package: package for package in missing}
        work.say(f"not installed: {' '.join(missing)}; as root: apt-get install {' '.join(missing)}")
        return
    noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
    work.call("apt-get", "update", "-qq", **noninteractive)
    work.call("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, limit_s=1200, **noninteractive)
    still = [package for package in missing if not is_installed(package)]
    if still:
        raise Failed(f"apt-get installed these, and yet they are not there: {' '.join(still)}")


def has_groups():
    """Root, and a v2 hierarchy whose groups can be made: then no test of the kernel may be skipped."""
    if os.geteuid() != 0:
        return False
    mounts = [line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2"]
    try:
        probe = pathlib.Path(mounts[0], f"jobmeter-probe-{os.getpid()}")
        probe.mkdir()
        probe.rmdir()
    except (IndexError, OSError):
        return False
    return True
