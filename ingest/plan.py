"""The plan: everything that can be decided without a pixel. Printable, serialisable, and all that a worker follows.

In: a request. Out: which chips are made of which scenes, in which unit and which row of the cube, on which side of the
split; and why every other cell and scene is left out.
"""

import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import PIXEL_M, Cell, transformer
from ingest.areas.split import Split
from ingest.request import Request
from ingest.scenes.pairing import Pair
from ingest.scenes.scene import Scene
from ingest.scenes.stacking import Stack
from pipeline import record
from pipeline.bands import S1_NAMES

UNIT_BYTES = 1536 * 2**20
"""What a worker may grow by. A scene whose chips take more is cut into parts, each of them as large as this allows."""
CUTS_PX = (2048, 1024, 512)
"""Pixels of 10 m. Parts are cut at multiples of these, of the largest that lies inside: where COG blocks of 512 and
1024 pixels end, those of 20 m bands too. Blocks that chips on both sides of a cut need are read for both parts."""
GDAL_CACHE_BYTES = 64 * 2**20
"""What `raster` lets GDAL keep of decoded blocks; it is full after a few bands."""
LIBRARIES_BYTES = 20 * 2**20
"""What GDAL, zarr and blosc2 take for themselves in the first unit of a process (measured)."""
HEAP_BYTES = 64 * 2**20
"""What `heap` keeps of freed memory."""
SHARD_BYTES = 64 * 2**20
"""At which `shards` closes a tar."""
BANDS_READ = 4
"""Bands that `raster` reads at once."""
ROWS_PER_SHARD = 16
"""Cube rows in one Zarr shard; a unit's rows are padded to whole shards so that no two units write one object."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
"""What `record.dumps` writes, of values that are JSON already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTask:
    """One chip to make."""

    key: str
    """Sample key."""
    cell: Cell
    """Where."""
    s2: Scene
    """Optical scene."""
    s1: Scene
    """Radar scene."""
    gap_hours: float
    """Hours between them."""
    labels: tuple[Scene, ...]
    """Label scenes that cover the cell, nearest in time to S2; at most one a collection."""
    split: Split
    """`train` or `val`."""
    group: str
    """Block of ground that decided the split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackTask:
    """One time series to make."""

    key: str
    """Sample key, with the time of the first candidate."""
    cell: Cell
    """Where."""
    candidates: tuple[Scene, ...]
    """Optical scenes in order of time; the first good ones that are far enough apart become the frames."""
    radar: tuple[Scene, ...]
    """The S1 scene of each candidate; empty without S1."""
    labels: tuple[Scene, ...]
    """Label scenes that cover the cell, nearest in time to the first candidate; at most one a collection."""
    split: Split
    """`train` or `val`."""
    group: str
    """Block of ground that decided the split."""


Task = PairTask | StackTask


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A cell without a chip."""

    cell: Cell
    """Where."""
    reason: str
    """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The work of one task: chips of one part of one S2 scene."""

    unit_id: str
    """`u00012`; also the stem of its shards and its receipt."""
    first_row: int
    """Of the cube; a multiple of `ROWS_PER_SHARD`."""
    tasks: tuple[Task, ...]
    """By cell id."""

    @property
    def rows(self) -> int:
        """Cube rows that belong to the unit, padding included."""
        return -(-len(self.tasks) // ROWS_PER_SHARD) * ROWS_PER_SHARD

    def memory_bytes(self, request: Request) -> int:
        """About the bytes that a worker grows by."""
        return memory_bytes(len(self.tasks) + sum(is_filled(task) for task in self.tasks), request)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPlan:
    """Every decision of one build."""

    request: Request
    """What was asked for."""
    units: tuple[Unit, ...]
    """By id."""
    left_out: tuple[LeftOut, ...]
    """Cells without a chip."""
    scenes_left_out: Mapping[str, str]
    """Reason by scene id."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All chips to make, in unit order."""
        return tuple(task for unit in self.units for task in unit.tasks)

    @property
    def has_label(self) -> bool:
        """Whether any chip has a label raster; then every sample carries the member."""
        return any("label" in scene.assets for task in self.tasks for scene in task.labels)

    @property
    def rows(self) -> int:
        """Rows of the cube."""
        return sum(unit.rows for unit in self.units)

    @property
    def fingerprint(self) -> str:
        """Hash of the request and of every chip's unit, row and scenes."""
        digest = hashlib.sha256(record.dumps(self.request))
        cells: dict[int, Any] = {}  # by identity: the dates of a cell share it, and writing it out is most of the work
        for unit in self.units:
            for i, task in enumerate(unit.tasks):
                if id(task.cell) not in cells:
                    cells[id(task.cell)] = record.to_json(task.cell)
                ids = (*scene_ids(task), *(scene.scene_id for scene in task.labels))
                line = (unit.unit_id, unit.first_row + i, task.key, cells[id(task.cell)], task.split, ids)
                digest.update(_CANONICAL.encode(line).encode())
        return digest.hexdigest()


def scene_ids(task: Task) -> tuple[str, ...]:
    """The scenes a task is made of: S2 and S1, or all candidates; each followed by those that fill it."""
    return tuple(part.scene_id for scene in scenes_of(task) for part in scene.parts)


def scenes_of(task: Task) -> tuple[Scene, ...]:
    """S2 and S1, or all candidates and their S1; what fills them is in them."""
    return (*task.candidates, *task.radar) if isinstance(task, StackTask) else (task.s2, task.s1)


def is_filled(task: Task) -> bool:
    """Whether any scene of it is joined from several, which are in memory beside each other."""
    return any(scene.fills for scene in scenes_of(task))


def anchor(task: Task) -> Scene:
    """The S2 scene that a task is filed under: a stack's is its first candidate."""
    return task.candidates[0] if isinstance(task, StackTask) else task.s2


def task_key(cell: Cell, scenes: Sequence[Scene]) -> str:
    """`CELL-YYYYMMDDtHHMMSS-HASH8`: unique for a cell and its scenes, and free of dots and slashes."""
    digest = hashlib.sha256("|".join(part.scene_id for scene in scenes for part in scene.parts).encode()).hexdigest()[
        :8
    ]
    return f"{cell.cell_id}-{scenes[0].acquired:%Y%m%dt%H%M%S}-{digest}"


def make_task(
    found: Pair | Stack, cell: Cell, *, labels: Mapping[str, Sequence[Scene]], side: tuple[str, Split]
) -> Task:
    """The chips of one pair or one stack.

    Args:
        found: the scenes.
        cell: its cell.
        labels: label scenes that cover the cell, by collection.
        side: group and split of the cell.
    """
    scenes = (*found.candidates, *found.radar) if isinstance(found, Stack) else (found.s2, found.s1)
    nearest = tuple(
        min(ones, key=lambda scene: (abs(scene.acquired - scenes[0].acquired), scene.scene_id))
        for _, ones in sorted(labels.items())
    )
    key, group, split = task_key(cell, scenes), *side
    if isinstance(found, Stack):
        return StackTask(
            key=key,
            cell=cell,
            candidates=found.candidates,
            radar=found.radar,
            labels=nearest,
            split=split,
            group=group,
        )
    return PairTask(
        key=key,
        cell=cell,
        s2=found.s2,
        s1=found.s1,
        gap_hours=found.gap_hours,
        labels=nearest,
        split=split,
        group=group,
    )


def memory_bytes(chips: int, request: Request) -> int:
    """About the bytes that a worker grows by for so many chips.

    Reading ends with all bands in place, a few of the last ones as they were read, and the strips that these came from;
    writing holds the samples and, twice, a shard of the cube, or a tar. Small units, which do not fill the cache, take
    less.
    """
    pixels, date = chips * request.chip_px**2, 2 * len(request.s2_bands) + 1
    radar = 4 * len(S1_NAMES) if request.s1 else 0
    sample = request.frames * (radar + date)
    strips = BANDS_READ * 2 * min(2 * pixels, 3 * CUTS_PX[0] ** 2)
    reading = pixels * (sample + 2 + BANDS_READ * 3) + strips
    rows = 2 * ROWS_PER_SHARD * request.chip_px**2 * sample
    writing = pixels * sample + max(rows, min(pixels * sample, SHARD_BYTES))
    return max(reading, writing) + GDAL_CACHE_BYTES + HEAP_BYTES + LIBRARIES_BYTES


def make_units(tasks: Iterable[Task], request: Request) -> tuple[Unit, ...]:
    """Chips grouped by S2 scene, and where these take too much memory by parts of it, with their rows of the cube."""
    by_scene: dict[tuple[datetime, str], list[Task]] = defaultdict(list)
    for task in tasks:
        scene = anchor(task)
        by_scene[scene.acquired, scene.scene_id].append(task)
    most = max(1, bisect_right(range(2**20), UNIT_BYTES, key=lambda chips: memory_bytes(chips, request)) - 1)
    units: list[Unit] = []
    row = 0
    for _, members in sorted(by_scene.items()):
        members.sort(key=lambda task: task.key)
        shares = 2 if any(map(is_filled, members)) else 1
        for part in cut(_corners_px(members), max(1, most // shares)):
            tasks_of = tuple(members[i] for i in part.tolist())
            units.append(Unit(unit_id=f"u{len(units):05d}", first_row=row, tasks=tasks_of))
            row += units[-1].rows
    return tuple(units)


def cut(corners_px: NDArray[np.float64], most: int) -> list[NDArray[np.intp]]:
    """Positions of the chips of each part, ascending.

    Args:
        corners_px: (n, 2) row and column of each chip's upper left corner in its scene.
        most: chips of a part.
    """
    parts: list[NDArray[np.intp]] = []
    left = [np.arange(len(corners_px))]
    while left:
        part = left.pop()
        if len(part) <= most:
            parts.append(part)
            continue
        is_first = _first_side(corners_px[part])
        left += [part[~is_first], part[is_first]]
    return parts


def _first_side(corners_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) the chips before a cut through the longer side, near its middle and where blocks end."""
    low, high = corners_px.min(axis=0), corners_px.max(axis=0)
    for step in CUTS_PX:
        axis = int(np.argmax(high // step - low // step))
        if high[axis] // step > low[axis] // step:
            line = np.clip(np.round((low[axis] + high[axis]) / 2 / step), low[axis] // step + 1, high[axis] // step)
            return np.asarray(corners_px[:, axis] < line * step)
    return np.arange(len(corners_px)) < len(corners_px) // 2


def _corners_px(tasks: Sequence[Task]) -> NDArray[np.float64]:
    """(n, 2) row and column of each cell's upper left corner in its S2 scene; in the cell's own grid without one."""
    grid = anchor(tasks[0]).grid
    at = np.array([(task.cell.left_m, task.cell.top_m) for task in tasks])
    if grid is None:
        return np.stack([-at[:, 1], at[:, 0]], axis=1) / PIXEL_M
    zones = np.array([task.cell.epsg for task in tasks])
    for epsg in np.unique(zones[zones != grid.epsg]).tolist():
        moved = transformer(epsg, grid.epsg).transform(*at[zones == epsg].T)
        at[zones == epsg] = np.stack(moved, axis=1)
    a, _, c, _, e, f = grid.transform
    return np.stack([(at[:, 1] - f) / e, (at[:, 0] - c) / a], axis=1)
