"""Which ground is for training and which for validation.

The globe is cut into blocks of about 5.5 km; a hash of the block's name decides for the cells whose centre lies in it.
So a cell falls on the same side in every data set built with the same seed and share, whatever the area or the dates,
and all dates of a place stay together; a cell of another size may have its centre in the next block. Where cells of two
zones or grids overlap across the border, the training one is left out.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

Split = Literal["train", "val"]
BLOCK_DEG = 0.05
"""Degrees of latitude. Height of a block."""
_TOUCH_DEG = 1e-7
"""Degrees. Neighbours that only share an edge do not overlap."""


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
