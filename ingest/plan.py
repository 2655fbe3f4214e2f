"""The plan: everything that can be decided without a pixel. Printable, serialisable, and all that a worker follows.

In: a request. Out: which chips are made of which scenes, in which unit and which row of the cube, on which side of the
split; and why every other cell and scene is left out.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.grid import PIXEL_M, Cell, transformer
from ingest.pairing import Pair
from ingest.request import Request
from ingest.scene import Scene
from ingest.split import Split
from ingest.stacking import Stack
from pipeline import record
from pipeline.bands import S1_NAMES

PART_PX = 2048
"""Pixels of 10 m. A unit is at most this wide: four COG blocks of 512 or two of 1024, so a part shares no block."""
STACK_PART_PX = 1024
"""The same for stacks, whose chips are several times as large."""
GDAL_CACHE_BYTES = 64 * 2**20
"""What `raster` lets GDAL keep of decoded blocks; it is full after a few bands."""
LIBRARIES_BYTES = 20 * 2**20
"""What GDAL, zarr and blosc2 take for themselves in the first unit of a process (measured)."""
ROWS_PER_SHARD = 16
"""Cube rows in one Zarr shard; a unit's rows are padded to whole shards so that no two units write one object."""


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
        """About the bytes that a worker grows by: the chips where they are most, one band's window, and GDAL's cache.

        Reading ends with every band of a date as it was read, harmonised and in one array, beside the dates before it
        and the pixels' coordinates. Writing the cube holds the samples, their rows, and those rows encoded. Small
        units, which do not fill the cache, take less.
        """
        # A radar band has twice the bytes of an optical one; those of pairs are within the slack below.
        radar = 2 * len(S1_NAMES) if request.kind == "stack" and request.s1 else 0
        bands, frames = len(request.s2_bands) + radar, request.frames
        filled = sum(bool(part.fills) for task in self.tasks for part in scenes_of(task))  # read twice and joined
        reading = (len(self.tasks) + filled) * ((frames - 1) * (2 * bands + 1) + 8 * bands + 17)
        writing = len(self.tasks) * frames * (2 * bands + 1) + self.rows * frames * 4 * bands
        window = ((STACK_PART_PX if request.kind == "stack" else PART_PX) + request.chip_px) ** 2 * (4 + 3)
        return max(reading, writing) * request.chip_px**2 + window + GDAL_CACHE_BYTES + LIBRARIES_BYTES


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
        for unit in self.units:
            for i, task in enumerate(unit.tasks):
                ids = (*scene_ids(task), *(scene.scene_id for scene in task.labels))
                line = (unit.unit_id, unit.first_row + i, task.key, task.cell, task.split, ids)
                digest.update(record.dumps(line))
        return digest.hexdigest()


def scene_ids(task: Task) -> tuple[str, ...]:
    """The scenes a task is made of: S2 and S1, or all candidates; each followed by those that fill it."""
    return tuple(part.scene_id for scene in scenes_of(task) for part in scene.parts)


def scenes_of(task: Task) -> tuple[Scene, ...]:
    """S2 and S1, or all candidates and their S1; what fills them is in them."""
    return (*task.candidates, *task.radar) if isinstance(task, StackTask) else (task.s2, task.s1)


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


def make_units(tasks: Iterable[Task]) -> tuple[Unit, ...]:
    """Chips grouped by S2 scene and part of it, with their rows of the cube."""
    by_scene: dict[tuple[str, str], list[Task]] = defaultdict(list)
    for task in tasks:
        by_scene[f"{anchor(task).acquired:%Y%m%d%H%M%S}", anchor(task).scene_id].append(task)
    groups: list[list[Task]] = []
    for _, members in sorted(by_scene.items()):
        parts: dict[tuple[int, int], list[Task]] = defaultdict(list)
        for task, part in zip(members, _parts(members).tolist(), strict=True):
            parts[tuple(part)].append(task)
        groups += [sorted(parts[part], key=lambda task: task.key) for part in sorted(parts)]
    units: list[Unit] = []
    row = 0
    for i, group in enumerate(groups):
        units.append(Unit(unit_id=f"u{i:05d}", first_row=row, tasks=tuple(group)))
        row += units[-1].rows
    return tuple(units)


def _parts(tasks: Sequence[Task]) -> NDArray[np.int64]:
    """(n, 2) part (row, column) of each cell's centre in its S2 scene's grid; in the cell's own where none is known."""
    parts = np.empty((len(tasks), 2), dtype=np.int64)
    for i, task in enumerate(tasks):
        x, y = task.cell.center_m
        grid, part_px = anchor(task).grid, STACK_PART_PX if isinstance(task, StackTask) else PART_PX
        if grid is None:
            parts[i] = -y // (part_px * PIXEL_M), x // (part_px * PIXEL_M)
            continue
        if grid.epsg != task.cell.epsg:
            x, y = transformer(task.cell.epsg, grid.epsg).transform(x, y)
        a, _, c, _, e, f = grid.transform
        parts[i] = (y - f) / e // part_px, (x - c) / a // part_px
    return parts
