"""Which ground is for training and which for validation.

The globe is cut into blocks of about 5.5 km; a hash of the block's name decides for the cells whose centre lies in it.
So a cell falls on the same side in every data set built with the same seed and share, whatever the area or the dates,
and all dates of a place stay together; a cell of another size may have its centre in the next block. Where cells of two
zones or grids overlap across the border, the training one is left out; so is one nearer to validation ground than the
guard distance.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.areas.grid import PIXEL_M, Cell, by_zone, footprints, transformer

Split = Literal["train", "val"]
BLOCK_DEG = 0.05
"""Degrees of latitude. Height of a block."""
_TOUCH_DEG = 1e-7
"""Degrees. Neighbours that only share an edge do not overlap."""
REACH_KM = 50.0
"""Kilometres. How far `leakage` looks for the nearest validation ground."""
_ZONE_DEG = 6.5
"""Degrees. From a zone's meridian to the farthest centre it has, with the exceptions of MGRS."""
_DEGREE_M = 111_000
"""Metres. A degree of latitude, at the least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What the training cells of a plan share with its validation cells."""

    overlapping: int
    """Training cells on the ground of a validation cell."""
    within_guard: int
    """Training cells nearer to validation ground than the guard distance."""
    nearest_km: float | None
    """Kilometres from the edge of a training cell to that of a validation cell; None if beyond `REACH_KM`."""
    same_scene_percent: float
    """Percent of training chips made of a scene that a validation chip is made of, too."""


def group_of(lon: float, lat: float) -> str:
    """Name of the block that holds a point.

    >>> group_of(13.72, 48.22)
    'b2764-c2580'
    """
    row = math.floor((lat + 90) / BLOCK_DEG)
    parallel = math.cos(math.radians((row + 0.5) * BLOCK_DEG - 90))
    columns = max(1, math.floor(360 / BLOCK_DEG * parallel))
    return f"b{row:04d}-c{math.floor((lon + 180) / 360 * columns) % columns:04d}"


def split_of(group: str, *, val_percent: float, seed: int) -> Split:
    """The side of a block."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return "val" if int.from_bytes(digest[:8]) / 2**64 * 100 < val_percent else "train"


def leaking(outlines: NDArray[np.object_], splits: Sequence[Split]) -> set[int]:
    """Positions of training cells whose ground overlaps that of a validation cell.

    Args:
        outlines: (C,) polygons in degrees.
        splits: C sides.
    """
    is_val = np.array([split == "val" for split in splits], dtype=bool)
    if not is_val.any() or is_val.all():
        return set()
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    tree = shapely.STRtree(shapely.buffer(outlines[train], -_TOUCH_DEG, join_style="mitre"))
    hits = tree.query(outlines[val], predicate="intersects")[1]
    return set(train[hits].tolist())


def gaps_m(cells: Sequence[Cell], splits: Sequence[Split], *, reach_m: float) -> NDArray[np.float64]:
    """(C,) metres from each training cell's edge to the nearest validation cell's; infinite for others and far ones.

    Distances are those in the plane of the training cell's UTM zone: right to a thousandth.
    """
    gaps = np.full(len(cells), np.inf)
    val = [cell for cell, split in zip(cells, splits, strict=True) if split == "val"]
    if not val:
        return gaps
    squares, lonlat = _squares(val), np.array([cell.center_lonlat for cell in val])
    zones = np.array([cell.epsg for cell in val])
    train = [i for i, split in enumerate(splits) if split == "train"]
    for epsg, rows in by_zone([cells[i] for i in train]).items():
        here = np.array(train)[rows]
        near = _near_zone(lonlat, epsg, reach_m + 2 * max(cell.size_px for cell in cells) * PIXEL_M)
        if not near.any():
            continue
        tree = shapely.STRtree(_in_zone(squares[near], zones[near], epsg))
        (which, _), distance = tree.query_nearest(
            _squares([cells[i] for i in here]), max_distance=reach_m, all_matches=False, return_distance=True
        )
        gaps[here[which]] = distance
    return gaps


def guarded(cells: Sequence[Cell], splits: Sequence[Split], guard_km: float) -> set[int]:
    """Positions of training cells nearer to validation ground than the guard distance; none without one."""
    if not guard_km:
        return set()
    gaps = gaps_m(cells, splits, reach_m=guard_km * 1000)
    return set(np.flatnonzero(gaps < guard_km * 1000).tolist())


def leakage(
    cells: Sequence[Cell], splits: Sequence[Split], scenes: Sequence[Collection[str]], guard_km: float
) -> Leakage:
    """What the chips of a split share.

    Args:
        cells: (N,) of each chip; chips of several dates share theirs.
        splits: (N,) sides.
        scenes: (N,) ids of what each chip is made of.
        guard_km: kilometres that training cells should keep.
    """
    own = {cell.cell_id: i for i, cell in enumerate(cells)}.values()
    ground, sides = [cells[i] for i in own], [splits[i] for i in own]
    gaps = gaps_m(ground, sides, reach_m=max(guard_km, REACH_KM) * 1000)
    seen = {scene for ids, split in zip(scenes, splits, strict=True) if split == "val" for scene in ids}
    shared = [not seen.isdisjoint(ids) for ids, split in zip(scenes, splits, strict=True) if split == "train"]
    return Leakage(
        overlapping=len(leaking(footprints(ground), sides)),
        within_guard=int((gaps < guard_km * 1000).sum()),
        nearest_km=float(gaps.min()) / 1000 if np.isfinite(gaps).any() else None,
        same_scene_percent=100 * sum(shared) / max(1, len(shared)),
    )


def _squares(cells: Sequence[Cell]) -> NDArray[np.object_]:
    """The cells' outlines in metres of their own zones."""
    left, top, side = np.array([(cell.left_m, cell.top_m, cell.size_px * PIXEL_M) for cell in cells]).T
    outlines: NDArray[np.object_] = shapely.box(left, top - side, left + side, top)
    return outlines


def _near_zone(lonlat: NDArray[np.float64], epsg: int, reach_m: float) -> NDArray[np.bool_]:
    """Which centres may be in reach of a cell of the zone, whatever the hemisphere."""
    away = np.abs((lonlat[:, 0] - ((epsg % 100) * 6 - 183) + 180) % 360 - 180)
    near: NDArray[np.bool_] = away <= _ZONE_DEG + reach_m / _DEGREE_M / np.cos(np.radians(lonlat[:, 1]))
    return near


def _in_zone(squares: NDArray[np.object_], zones: NDArray[np.int64], epsg: int) -> NDArray[np.object_]:
    """Outlines of other zones as they lie in the plane of one."""
    moved = squares.copy()
    for other in set(zones.tolist()) - {epsg}:
        convert = transformer(other, epsg)
        moved[zones == other] = shapely.transform(
            squares[zones == other], lambda xy, convert=convert: np.column_stack(convert.transform(xy[:, 0], xy[:, 1]))
        )
    return moved
