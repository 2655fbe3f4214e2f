"""Whether the plan's tasks fit into memory: asked before any work begins."""

import os
from pathlib import Path

from pipeline.errors import UsageError

PROCESS_BYTES = 256 * 2**20
"""What a worker takes beside its unit: Python and the libraries.

Measured, resident: a bare worker of dask 61 MiB, with our imports 163, after units of the smallest chips 211, with what
S3 needs as well 241.
"""
SLACK = 3
"""A worker may take so many times what it should need; the plan's figure is within half of what is measured."""
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def worker_bytes(task_bytes: int, *, workers: int, machine_bytes: int) -> int:
    """The limit of each of `workers` processes that share a machine.

    Raises:
        UsageError: a task of `task_bytes` does not fit into a worker's share.
    """
    need, share = task_bytes + PROCESS_BYTES, machine_bytes // max(1, workers)
    if need > share:
        fitting = machine_bytes // need
        fewer = f"Lower --workers to {fitting}, or" if 0 < fitting < workers else "Take a larger machine, or"
        raise UsageError(
            f"a task takes {_mib(need)}, and {max(1, workers)} of them have {_mib(share)} each. "
            f"{fewer} lower --chip-px or --frames."
        )
    return min(share, SLACK * need)


def check_remote(task_bytes: int, limits: dict[str, int]) -> None:
    """Compare a task with the bytes a thread of each running worker has; 0 is no limit.

    Raises:
        UsageError: it does not fit into one of them.
    """
    need = task_bytes + PROCESS_BYTES
    small = {name: limit for name, limit in limits.items() if 0 < limit < need}
    if small:
        name = min(small, key=lambda worker: (small[worker], worker))
        raise UsageError(
            f"a task takes {_mib(need)}, and a thread of worker {name} has {_mib(small[name])} "
            f"({len(small)} of {len(limits)} workers are too small). "
            "Start workers with more memory or fewer threads, or lower --chip-px or --frames."
        )


def machine_bytes() -> int:
    """Memory of this machine, or of the container where it is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *filter(None, map(_limit, _CGROUPS))])


def _limit(path: str) -> int:
    """The number in a file of the kernel; 0 where there is none."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
