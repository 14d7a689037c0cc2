"""What others need: packages, binaries, a Python environment, a root file system for containers."""

import json
import shutil

from harness import machine
from harness.stages import OUTPUT, TARGET, Failed, Stage

BASE = OUTPUT / "base.tar"
DEBUG = TARGET / "debug"
JOBMETER = DEBUG / "jobmeter"
# The three binaries as packages and images have them.
SHIPPED = OUTPUT / "shipped"


def python(environment="shared"):
    """The interpreter of an environment."""
    return OUTPUT / f"python-{environment}/bin/python"


def build(work):
    """Everything that the chosen stages run, so that no stage waits for cargo's lock."""
    targets = sorted({stage.targets for stage in work.shared.stages if stage.targets})
    arguments = [argument for target in targets for argument in target]
    work.call("cargo", "build", "--locked", "--bins", "--example", "fake_nvml", limit_s=3600)
    work.shared.environment["JOBMETER_FAKE_NVML"] = str(DEBUG / "examples/libfake_nvml.so")
    if targets:
        told = work.capture("cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics", *arguments, limit_s=3600)
        work.shared.binaries = test_binaries(told)
    # Containers and units get the wrapper as it is shipped, linked statically. The next build of cargo's links it anew.
    work.call("cargo", "rustc", "--locked", "--bin", "jobmeter-wrapper", "--", "-C", "target-feature=+crt-static", limit_s=3600)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    SHIPPED.mkdir()
    for name in ("jobmeter", "jobmeter-nvml", "jobmeter-wrapper"):
        shutil.copy2(DEBUG / name, SHIPPED / name)


def test_binaries(told):
    """Paths of test binaries by name, out of cargo's messages."""
    messages = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    tests = [message for message in messages if message.get("executable") and message["profile"]["test"]]
    kinds = [(message["target"]["kind"][0], message["target"]["name"], message["executable"]) for message in tests]
    return {"lib" if kind == "lib" else name: executable for kind, name, executable in kinds}


def make_python(work):
    """Environments for Python, kept in the target folder: what they lack is installed."""
    wanted = {}
    for stage in work.shared.stages:
        if stage.python:
            wanted.setdefault(stage.environment, set()).update(stage.python)
    for environment, packages in sorted(wanted.items()):
        folder = python(environment).parents[1]
        if not python(environment).exists():
            work.call("python3", "-m", "venv", folder)
        stamp = folder / "installed"
        have = set(stamp.read_text().split()) if stamp.exists() else set()
        if missing := sorted(packages - have):
            if work.call(python(environment).with_name("pip"), "--quiet", "install", *missing, check=False, limit_s=1200):
                raise Failed(f"needs PyPI: pip install {' '.join(missing)}")
            stamp.write_text("\n".join(sorted(have | packages)))


def make_base(work):
    """A Debian root file system with python3, for containers; kept in the target folder."""
    if BASE.exists():
        work.say(f"{BASE} is there")
        return
    release = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    codename = release.get("VERSION_CODENAME", "bookworm").strip('"')
    new = BASE.with_suffix(".new.tar")
    work.call("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=python3", codename, new)
    new.rename(BASE)


STAGES = (
    Stage("packages", "Debian packages that the chosen stages need (apt-get)", machine.install_packages, cores=0.5, serves=True),
    Stage("build", "binaries and test binaries (cargo)", build, cores=1.5, serves=True),
    Stage("python", "Python packages that the chosen stages need (pip)", make_python, after=("packages",), cores=0.5, packages=("python3-venv",), serves=True),
    Stage("base", "a root file system for containers (mmdebstrap)", make_base, after=("packages",), cores=0.5, packages=("mmdebstrap",), kernel=True, serves=True),
)
