"""The stages of `tests/run`, in the order in which they are started where there is room: those that mostly wait, and long, come
first, so that the others run beside them; those of the kernel, the longest, before them."""

from stages import cargo, platforms, prepare, proofs, services

STAGES = tuple(sorted((*prepare.STAGES, *platforms.STAGES, *services.STAGES, *cargo.STAGES, *proofs.STAGES), key=lambda stage: stage.name not in ("kernel", "gpus")))

# Words for several stages.
GROUPS = {
    "quick": ("format", "lint", "unit", "cli", "compat", "snapshots", "tidy", "workloads"),
    "timed": ("kernel", "gpus", "cli", "systemd", "slurm", "slurm-gpus", "lua", "spank", "containers", "workloads", "observability"),
}
