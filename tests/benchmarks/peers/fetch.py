"""How fast whole objects are fetched. Standard library alone, for environments that have nothing else."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

MARK = "found: "
"""Begins a line of results; what libraries print does not."""


def measured(read: Callable[[str], int], names: Sequence[str], *, threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds by the clock and of this process's processors for each GB, round by round after one that warms up.

    Args:
        read: fetches an object and tells its bytes.
        names: of the objects.
        threads: that read at once.
        rounds: over all objects.
    """
    with ThreadPoolExecutor(threads) as pool:
        found = [one_round(read, names, pool) for _ in range(rounds + 1)][1:]
    return {"wall_s": [wall for wall, _ in found], "cpu_s": [cpu for _, cpu in found]}


def one_round(read: Callable[[str], int], names: Sequence[str], pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Seconds for each GB."""
    wall, cpu = time.perf_counter(), time.process_time()
    gigabytes = sum(pool.map(read, names)) / 1e9
    return (time.perf_counter() - wall) / gigabytes, (time.process_time() - cpu) / gigabytes
