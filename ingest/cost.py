"""Plan → what it would cost: blocks, bytes, requests, memory, hours and money. Arithmetic alone; reads nothing.

Blocks are counted exactly where the catalog gives a scene's grid: those that the chips of a unit touch, each once.
Bytes a block are the file's own mean where the catalog gives `file:size`, else those of raw pixels by a typical
compression. Everything that is assumed stands in one record, and the page of the plan names it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import PIXEL_M, Cell, transformer
from ingest.plan import IngestPlan, Task, Unit, scenes_of
from ingest.request import Request
from ingest.scenes.scene import Scene
from pipeline.bands import S1_BANDS, S1_NAMES, S2_BANDS, Band

OPEN_BYTES = 32768
"""Read of every file that is opened."""
_SCL = Band(name="SCL", gsd_m=20, nodata=0, unit="class")
_CLD = Band(name="CLD", gsd_m=20, nodata=0, unit="class")
_LABEL = Band(name="label", gsd_m=10, nodata=0, unit="class")
_BANDS = {band.name: band for band in (*S2_BANDS, *S1_BANDS, _SCL, _CLD, _LABEL)}
_ITEM_BYTES = {"s2": 2, "s1": 4, "label": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What no catalog says."""

    workers: int = 2
    """Units at a time."""
    gbit_s: float = 1.0
    """Gbit/s that all workers share."""
    usd_per_million_gets: float = 0.4
    """US dollars. 0 where reading is free."""
    usd_per_million_puts: float = 5.0
    """US dollars."""
    usd_per_gb_out: float = 0.0
    """US dollars a GB that leaves the data's region; about 0.09 where the workers are elsewhere."""
    first_byte_ms: float = 50.0
    """Milliseconds until a request is answered; a worker has one at a time."""
    block_px: int = 1024
    """Pixels. Side of a file's blocks; catalogs do not say it."""
    compressed: float = 0.65
    """Stored bytes a raw byte, of sources without `file:size`, of blosc2 members and of the cube."""
    decode_mb_s: float = 250.0
    """Raw MB that one core decodes in a second."""
    chip_ms_per_mpx: float = 250.0
    """CPU milliseconds a million stored values: warp or copy, masks, shift, encoding twice. Measured on the synthetic
    Earth, 2 cores of an EPYC, 2026-11-26: 254 with chips of 120 px (54 ms a chip), 269 with 264 px (283 ms a chip)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What is read of one band of one scene for one unit."""

    blocks: int
    """Touched by chips."""
    requests: int
    """One to open the file, one a run of blocks that follow each other in a row."""
    raw_bytes: int
    """Decoded."""
    bytes: int
    """As stored."""
    from_size: bool
    """Whether `file:size` was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan would cost."""

    blocks: int
    """Read and decoded."""
    requests: int
    """Ranges that are read."""
    bytes_read: int
    """From the catalog's files."""
    bytes_from_size: int
    """Of those, in files whose size the catalog gives."""
    bytes_shards: int
    """Written to shards, if every chip is accepted."""
    bytes_cube: int
    """Written to the cube, if every chip is accepted."""
    objects: int
    """Written."""
    memory_bytes: int
    """Of the largest unit."""
    cpu_hours: float
    """Of all workers together."""
    hours: float
    """From start to end."""
    usd: float
    """US dollars."""


def estimate(plan: IngestPlan, given: Assumptions) -> Cost:
    """What `plan` would cost. Of stacks every candidate counts, though those behind the last frame are not read."""
    reads = [read for unit in plan.units for read in unit_reads(unit, plan, given)]
    values = len(plan.tasks) * _values(plan)
    raw = len(plan.tasks) * _chip_bytes(plan)
    shards = raw if plan.request.codec == "npy" else raw * given.compressed
    requests, read = sum(one.requests for one in reads), sum(one.bytes for one in reads)
    objects = sum(3 + (unit.rows // 16) * 4 for unit in plan.units) + 40
    cpu_s = sum(one.raw_bytes for one in reads) / (given.decode_mb_s * 1e6) + values * given.chip_ms_per_mpx / 1e9
    network_s = (read + shards + raw * given.compressed) * 8 / (given.gbit_s * 1e9)
    each_s = (requests * given.first_byte_ms / 1e3 + cpu_s) / given.workers
    gets, puts = requests * given.usd_per_million_gets / 1e6, objects * given.usd_per_million_puts / 1e6
    return Cost(
        blocks=sum(one.blocks for one in reads),
        requests=requests,
        bytes_read=read,
        bytes_from_size=sum(one.bytes for one in reads if one.from_size),
        bytes_shards=round(shards),
        bytes_cube=round(raw * given.compressed),
        objects=objects,
        memory_bytes=max((unit.memory_bytes(plan.request) for unit in plan.units), default=0),
        cpu_hours=cpu_s / 3600,
        hours=max(network_s, each_s) / 3600,
        usd=gets + puts + read / 1e9 * given.usd_per_gb_out,
    )


def _values(plan: IngestPlan) -> int:
    """Stored S2 and S1 values of one sample."""
    request = plan.request
    return (len(request.s2_bands) + (2 if request.s1 else 0)) * request.frames * request.chip_px**2


def _chip_bytes(plan: IngestPlan) -> int:
    """Raw bytes of one sample's arrays."""
    request = plan.request
    s1 = 8 if request.s1 else 0
    pixel = request.frames * (2 * len(request.s2_bands) + s1 + 1) + int(plan.has_label)
    return pixel * request.chip_px**2


def unit_reads(unit: Unit, plan: IngestPlan, given: Assumptions) -> Iterator[Read]:
    """Everything that one unit reads, but for the few pixels that are asked for an offset."""
    needed: dict[str, list[Cell]] = defaultdict(list)
    scenes: dict[str, Scene] = {}
    for task in unit.tasks:
        for scene in _scenes(task):
            scenes[scene.scene_id] = scene
            needed[scene.scene_id].append(task.cell)
    for scene_id, cells in needed.items():
        yield from _scene_reads(scenes[scene_id], cells, _names(scenes[scene_id], plan.request), given)


def _scenes(task: Task) -> tuple[Scene, ...]:
    """Everything that is read for a chip."""
    labels = (scene for scene in task.labels if "label" in scene.assets)
    return (*(part for scene in scenes_of(task) for part in scene.parts), *labels)


def _names(scene: Scene, request: Request) -> list[str]:
    """Assets of a scene that a build reads."""
    cloud = () if request.cloud_percent is None else ("CLD",)
    wanted = {"s2": (*request.s2_bands, "SCL", *cloud), "s1": S1_NAMES, "label": ("label",)}[scene.sensor]
    return [name for name in wanted if name in scene.assets]


def _scene_reads(scene: Scene, cells: Sequence[Cell], names: Sequence[str], given: Assumptions) -> Iterator[Read]:
    windows = _windows_m(scene, cells)
    for name in names:
        gsd = _BANDS[name].gsd_m
        blocks, runs = touched(windows, given.block_px * gsd)
        pixels = blocks * given.block_px**2
        item = 1 if name in {"SCL", "CLD"} else _ITEM_BYTES[scene.sensor]
        whole, size = _file_pixels(scene, gsd), scene.assets[name].size_bytes
        if whole:
            pixels = min(pixels, whole)
        known = bool(size and whole)
        stored = pixels / whole * size if size and whole else pixels * item * given.compressed
        yield Read(
            blocks=blocks,
            requests=1 + runs,
            raw_bytes=pixels * item,
            bytes=round(stored) + OPEN_BYTES,
            from_size=known,
        )


def touched(windows: NDArray[np.float64], side: float) -> tuple[int, int]:
    """How many square blocks windows touch, each counted once, and in how many runs along rows they lie.

    Args:
        windows: (n, 4) first row, row behind the last, first column, column behind the last, from the file's corner.
        side: of a block, in the same unit.
    """
    first = np.floor(windows[:, [0, 2]] / side).astype(np.int64)
    last = np.maximum(first, np.ceil(windows[:, [1, 3]] / side).astype(np.int64) - 1)
    found = []
    for row in range(int((last - first)[:, 0].max()) + 1):
        for col in range(int((last - first)[:, 1].max()) + 1):
            block = first + np.array([row, col])
            found.append(block[(block <= last).all(axis=1)])
    unique = np.unique(np.concatenate(found), axis=0)
    follows = (np.diff(unique[:, 0]) == 0) & (np.diff(unique[:, 1]) == 1)
    return len(unique), len(unique) - int(follows.sum())


def _windows_m(scene: Scene, cells: Sequence[Cell]) -> NDArray[np.float64]:
    """(n, 4) metres from the upper left corner of the scene: the cells' bounds in its CRS."""
    epsg = scene.grid.epsg if scene.grid else cells[0].epsg
    left, top = (scene.grid.transform[2], scene.grid.transform[5]) if scene.grid else (0.0, 0.0)
    corners = np.array([_corners_m(cell, epsg) for cell in cells])
    x, y = corners[..., 0] - left, top - corners[..., 1]
    windows = np.stack([y.min(1), y.max(1), x.min(1), x.max(1)], axis=1)
    if scene.grid is None:
        return windows
    height, width = scene.grid.height_px * abs(scene.grid.transform[4]), scene.grid.width_px * scene.grid.transform[0]
    return windows.clip(0, np.array([[height, height, width, width]]))


def _corners_m(cell: Cell, epsg: int) -> NDArray[np.float64]:
    side = cell.size_px * PIXEL_M
    x = np.array([0, side, side, 0]) + cell.left_m
    y = cell.top_m - np.array([0, 0, side, side])
    if cell.epsg != epsg:
        x, y = transformer(cell.epsg, epsg).transform(x, y)
    return np.stack([x, y], axis=1)


def _file_pixels(scene: Scene, gsd_m: int) -> int | None:
    """Pixels of a file of the scene; None where the catalog does not say."""
    if scene.grid is None:
        return None
    across, down = scene.grid.transform[0], abs(scene.grid.transform[4])
    return round(scene.grid.height_px * down * scene.grid.width_px * across / gsd_m**2)
