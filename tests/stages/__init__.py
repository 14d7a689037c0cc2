"""The stages of `tests/run`, in the order in which they are looked at: the longest first, so that the end is not one of them alone."""

from stages import cargo, platforms, prepare, proofs, services

STAGES = (*prepare.STAGES, *cargo.STAGES, *platforms.STAGES, *services.STAGES, *proofs.STAGES)

# Words for several stages.
GROUPS = {
    "quick": ("format", "lint", "unit", "cli", "compat", "snapshots", "tidy", "workloads"),
    "timed": ("kernel", "cli", "systemd", "slurm", "spank", "containers", "workloads", "observability"),
}
