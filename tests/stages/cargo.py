"""Tests that cargo builds, and what is said of the source itself."""

import signal
import subprocess

from harness.scenes import Skip
from harness.stages import ROOT, Failed, Stage

POSTGRES = ("postgresql", "util-linux", "openssl")


def has_component(name):
    return subprocess.run(["cargo", name, "--version"], capture_output=True).returncode == 0


def check_format(work):
    if not has_component("fmt"):
        raise Skip("rustfmt is not installed: rustup component add rustfmt")
    work.call("cargo", "fmt", "--all", "--check")


def check_lints(work):
    if not has_component("clippy"):
        raise Skip("clippy is not installed: rustup component add clippy")
    work.call("cargo", "clippy", "--all-targets", "--locked", "--", "-D", "warnings", limit_s=3600)
    check_lock_of_fuzzers()


def check_lock_of_fuzzers():
    """The fuzzers are a package of their own: what changes in Cargo.toml changes their lock file as well. What only they use may not
    be on this machine, which is no fault."""
    manifest = ROOT / "tests" / "fuzz" / "Cargo.toml"
    asked = ("cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--manifest-path", manifest)
    told = subprocess.run(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if "lock file" in told.stderr:
        raise Failed(f"tests/fuzz/Cargo.lock does not fit Cargo.toml: `cargo update --workspace --manifest-path {manifest}`")


def runs(*names, arguments=(), limit_s=900):
    """A stage's function that runs test binaries. What tests print is in the log, so that skips are counted."""
    def run(work):
        # What a test that was killed has left goes with the stage. A path of a socket has to be short.
        temporary = work.folder / "t"
        temporary.mkdir()
        temporary.chmod(0o1777)
        failed = []
        for name in names:
            status = work.call(
                work.shared.binaries[name], "--show-output", *arguments, check=False, limit_s=limit_s,
                CARGO_MANIFEST_DIR=ROOT, INSTA_WORKSPACE_ROOT=ROOT, INSTA_UPDATE="no", TMPDIR=temporary)
            if status:
                failed.append(name if status > 0 else f"{name} ({signal.Signals(-status).name})")
        if failed:
            raise Failed(f"tests of {' and '.join(failed)} failed")
    return run


def cargo_test(*names):
    return tuple(word for name in names for word in (("--lib",) if name == "lib" else ("--test", name)))


def stage(name, about, *binaries, arguments=(), **more):
    return Stage(name, about, runs(*binaries, arguments=arguments), after=("build", "packages"), targets=cargo_test(*binaries), **more)


STAGES = (
    stage("kernel", "real groups, kills, freezes, clocks, terminals and a systemd", "kernel", arguments=("--test-threads", "1", "--skip", "gpus::"), cores=0.5,
          packages=("vim", "faketime", "systemd", "dbus", "dbus-user-session", "libpam-systemd", "sshfs", "openssh-sftp-server", "passwd",
                    "iproute2", "procps", "util-linux"), kernel=True),
    stage("gpus", "jobs on scripted devices by each source of CPU time", "kernel", arguments=("--test-threads", "1", "gpus::"), cores=0.2,
          packages=("iproute2", "procps", "util-linux"), kernel=True),
    stage("cli", "the command line and the service as their users see them", "it", cores=0.7, packages=(*POSTGRES, "curl", "procps")),
    stage("simulation", "a thousand worlds of jobs, replicas and a bad network", "sim", cores=1.4),
    stage("unit", "the library's own tests, both stores, and seeds of the fuzzers", "lib", "seeds", cores=0.7, packages=POSTGRES),
    stage("snapshots", "help, errors, JSON, OpenAPI, receipts and pages, word for word", "snapshots", cores=0.7),
    stage("compat", "what earlier versions wrote and said", "compat", cores=0.5, packages=POSTGRES),
    stage("tidy", "borders of the house, and counts that may only fall", "tidy"),
    Stage("lint", "clippy", check_lints, after=("build",), cores=1.2),
    Stage("format", "rustfmt", check_format),
)
