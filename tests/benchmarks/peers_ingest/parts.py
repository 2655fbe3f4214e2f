"""How often the units of a full tile decode a block: a chip that straddles a cut needs blocks on both sides."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers_ingest.asking import plain_request

from ingest.pixels.blocks import touch
from ingest.plan import UNIT_BYTES, cut, memory_bytes

TILE_PX = 10980
"""A Sentinel-2 tile."""


def table(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each size of chips, kind of samples and size of blocks."""
    for kind, frames in (("pair", 1), ("stack", 4)):
        for size in (120, 264):
            request = plain_request(kind=kind, frames=frames, chip_px=size)
            most = max(n for n in range(1, 20_000) if memory_bytes(n, request) <= UNIT_BYTES)
            steps = np.arange(40, TILE_PX - size, size)
            corners = np.stack([each.ravel() for each in np.meshgrid(steps, steps)], axis=1).astype(float)
            units = cut(corners, most)
            for block in (512, 1024):
                reads = {
                    f"{gsd} m": decoded(corners * 10 / gsd, units, size * 10 / gsd, (gsd, block))
                    for gsd in (10, 20, 60)
                }
                yield {"kind": kind, "chip px": size, "block": block, "units": len(units), **reads}


def decoded(corners: Any, units: list[Any], size: float, image: tuple[int, int]) -> float:
    """Blocks that the units decode, for each that the tile has; corners and size in pixels of the image.

    Args:
        corners: (n, 2) of the chips.
        units: positions of the chips of each.
        size: of a chip.
        image: metres of a pixel and pixels of a block's side.
    """
    gsd, block = image
    low, high = np.floor(corners), np.ceil(corners + size)
    windows = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1).astype(int)
    how = {"shape": (TILE_PX * 10 // gsd,) * 2, "block": (block, block)}
    reads = sum(touch(windows[unit].tolist(), **how)[1].sum() for unit in units)
    return round(float(reads / touch(windows.tolist(), **how)[1].sum()), 2)
