"""Where jobmeter runs: systemd, Slurm, containers, Kubernetes."""

import os

from harness.scenes import Skip
from harness.stages import Stage
from stages.prepare import BASE, DEBUG, JOBMETER, SHIPPED, python

MANIFESTS = ("ledger", "injection", "job", "job-before-1.35", "job-attach")


def run_systemd(work):
    package = work.capture("systemd/package", SHIPPED.name, work.folder, CARGO_TARGET_DIR=SHIPPED.parent, COMPRESSION="none").strip()
    work.call("python3", "tests/systemd/run.py", package, limit_s=600)


def run_slurm(work):
    work.call("python3", "tests/slurm/trackers.py", JOBMETER, "linuxproc", limit_s=900)


def run_slurm_gpus(work):
    work.call("python3", "tests/slurm/gpus.py", JOBMETER, DEBUG / "jobmeter-nvml", DEBUG / "examples/libfake_nvml.so", limit_s=600)


def run_lua(work):
    work.call("python3", "tests/slurm/lua.py", JOBMETER, limit_s=900)


def run_slurm_all(work):
    work.call("python3", "tests/slurm/trackers.py", JOBMETER, "pgid", "cgroup1", "cgroup2", limit_s=3600)
    work.call("python3", "tests/slurm/attacks.py", JOBMETER, limit_s=3600)
    work.call("python3", "tests/slurm/faults.py", JOBMETER, limit_s=3600)


def run_spank(work):
    work.call("python3", "tests/slurm/spank.py", JOBMETER, limit_s=900)


def run_containers(work):
    work.call("tests/containers/podman.sh", work.folder / "podman", python(), "tests/containers/run.py", SHIPPED, BASE, limit_s=900)


def check_manifests(work):
    """Against the schemas of Kubernetes. A ServiceMonitor is the Prometheus operator's, and has no schema there."""
    for name in MANIFESTS:
        manifest = work.folder / f"{name}.yaml"
        manifest.write_text(work.capture("kubectl", "kustomize", f"deploy/kubernetes/{name}"))
        work.call(python().with_name("kubernetes-validate"), "--strict", "--quiet", manifest)
        work.say(f"manifests: {name} is valid ... ok")
    work.capture("kubectl", "kustomize", "deploy/kubernetes/monitoring")


def run_kubernetes(work):
    """Optional everywhere: no machine brings a cluster."""
    if not os.environ.get("KUBECONFIG"):
        raise Skip("KUBECONFIG names no cluster")
    work.call("tests/kubernetes/run", JOBMETER, os.environ.get("JOBMETER_IMAGE", ""), limit_s=1800)


BUILT = ("build", "packages")
SLURM = ("slurm-wlm", "munge", "libslurm-dev", "gcc", "libc6-dev", "cron", "parallel", "passwd", "procps", "util-linux")
STAGES = (
    Stage("containers", "the pods of deploy/kubernetes in podman", run_containers, after=(*BUILT, "python", "base"), cores=0.4, kernel=True,
          packages=("podman", "runc", "conmon", "jq", "busybox-static", "kubernetes-client", "util-linux", "gcc", "libc6-dev"), python=("pyyaml==6.0.4",)),
    Stage("spank", "Slurm with the plugin, cron, GNU parallel and Airflow's operator", run_spank, after=BUILT, cores=0.3, kernel=True,
          packages=SLURM),
    Stage("slurm", "Slurm does the same with the plugin as without, and each task is charged once", run_slurm, after=BUILT, cores=0.3, kernel=True, packages=SLURM),
    Stage("slurm-gpus", "Slurm gives devices, and each is charged once", run_slurm_gpus, after=BUILT, cores=0.2, kernel=True, packages=SLURM),
    Stage("lua", "Slurm with job_submit.lua", run_lua, after=BUILT, cores=0.2, kernel=True, packages=SLURM),
    Stage("slurm-all", "slurm under proctrack pgid, cgroup v1 and v2; its users' attacks; 300 steps with faults", run_slurm_all, after=BUILT, cores=0.5, kernel=True, packages=SLURM, in_suite=False),
    Stage("systemd", "the Debian package under a real systemd", run_systemd, after=BUILT, cores=0.4, kernel=True,
          packages=("systemd", "dbus", "dpkg", "iproute2", "procps", "util-linux")),
    Stage("manifests", "the manifests against the schemas of Kubernetes", check_manifests, after=("packages", "python"), cores=0.5,
          packages=("kubernetes-client",), python=("kubernetes-validate==1.37.0",)),
    Stage("kubernetes", "a real cluster", run_kubernetes, after=BUILT, cores=0.5),
)
