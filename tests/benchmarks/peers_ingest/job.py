"""What a reader of chips is asked and told: it reads them all in one process, which says what that cost.

Needs numpy alone: each peer is a script in an environment of its own. It gives `serve` a function from `Job` to chips
(position, (T, C, H, W)) in any order; comparing them with the truth is not counted.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARK = "found: "
"""Begins the line of results; what libraries print does not."""
IN_FLIGHT = 16
"""Chips or blocks that are read at once, where a peer lets one choose."""
Found = Iterable[tuple[int, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One list of chips."""

    items: list[dict[str, Any]]
    """STAC items, by time."""
    bands: list[str]
    """Assets."""
    chips: list[tuple[int, float, float]]
    """EPSG, left, top (m)."""
    size: int
    """Pixels a side, of 10 m."""
    truth: str
    """File of (n, T, C, H, W) uint16."""
    tolerance: int
    """By how much a pixel may differ."""
    folder: str
    """Where the images lie."""
    block: int
    """Pixels a side of their blocks."""
    way: str = ""
    """Of several that a peer has."""

    @property
    def is_warped(self) -> bool:
        """Whether the chips lie in another zone than the images."""
        return self.chips[0][0] != self.items[0]["properties"]["proj:epsg"]

    def bounds(self, chip: int) -> tuple[float, float, float, float]:
        """Left, bottom, right, top (m)."""
        _, left, top = self.chips[chip]
        return left, top - 10 * self.size, left + 10 * self.size, top

    def extent(self) -> tuple[float, float, float, float]:
        """The same of all chips, widened to whole pixels of the first image where they are its own."""
        edges = np.array([self.bounds(chip) for chip in range(len(self.chips))])
        left, bottom, right, top = (*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist())
        if self.is_warped:
            return left, bottom, right, top
        asset = self.items[0]["assets"][self.bands[0]]
        (a, _, c, _, e, f, *_), (height, width) = asset["proj:transform"], asset["proj:shape"]
        return c, f + e * height, c + a * width, f

    def window(self, chip: int) -> tuple[slice, slice]:
        """Rows and columns of a chip in an array of the extent."""
        left, _, _, top = self.extent()
        row, col = round((top - self.chips[chip][2]) / 10), round((self.chips[chip][1] - left) / 10)
        return slice(row, row + self.size), slice(col, col + self.size)


def threaded(read: Callable[[int], NDArray[Any]], count: int) -> Found:
    """`read` of each position, some at once; results that nobody took yet stay few."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for first in range(0, count, 2 * IN_FLIGHT):
            part = range(first, min(count, first + 2 * IN_FLIGHT))
            yield from zip(part, pool.map(read, part), strict=True)


def serve(read: Callable[[Job], Found]) -> None:
    """Do the job of the command line."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()), way=sys.argv[2])
    shape = len(job.items), len(job.bands), job.size, job.size
    seen, wrong, comparing = set(), 0, 0.0
    cpu, wall = cpu_s(), time.perf_counter()
    for chip, pixels in read(job):
        begin = time.thread_time()
        want = np.fromfile(job.truth, np.uint16, np.prod(shape), offset=2 * chip * int(np.prod(shape))).reshape(shape)
        wrong += int((np.abs(pixels.astype(np.int64) - want) > job.tolerance).sum())
        seen.add(chip)
        comparing += time.thread_time() - begin
    found = {"cpu_s": cpu_s() - cpu - comparing, "wall_s": time.perf_counter() - wall, "wrong": wrong}
    missing = len(job.chips) - len(seen)
    print(MARK + json.dumps({**found, "missing": missing, "chips": len(job.chips), "peak": peak_bytes()}), flush=True)


def cpu_s() -> float:
    """Seconds of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_bytes() -> int:
    """Most memory that this process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0
