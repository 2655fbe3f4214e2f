"""Cells that keep to the blocks of Sentinel-2's COGs: none straddles a block, several share one.

A tile's grid follows from its square of 100 km, so no catalog is asked. Each tile has the ground up to where the next
one begins, so that cells of neighbours do not overlap. Within a block cells begin at multiples of 60 m from the tile's
corner: blocks of 512 and 1024 pixels do not, so up to 5 pixels stay free at a block's edges, and a chip that would fit
a block exactly (256 px four times) fits once less. Blocks of the 20 m and 60 m bands are whole blocks of the 10 m ones.
"""

import math
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ingest.areas.grid import (
    LATTICE_M,
    PIXEL_M,
    Cell,
    corner_cell,
    pitch_m,
    transformer,
    utm_epsgs,
    zone_bounds,
    zones_of,
)
from ingest.areas.mgrs import EQUATOR_M, SQUARE_M
from pipeline.errors import UsageError

BLOCK_PX = (512, 1024)
"""Sides of blocks that COGs of Sentinel-2 have."""
_STEP_PX = LATTICE_M // PIXEL_M
Numbers = NDArray[np.int64]
Bounds = tuple[float, float, float, float]
"""Metres. West, south, east, north."""


class Block(NamedTuple):
    """One block of one tile."""

    epsg: int
    """UTM zone."""
    tile_left_m: int
    """Metres. West edge of the tile."""
    tile_top_m: int
    """Metres. North edge of the tile."""
    row: int
    """From the tile's top."""
    col: int
    """From the tile's left."""


def check_block(chip_px: int, block_px: int) -> None:
    """Refuse blocks that no COG has, and chips that no block holds.

    Raises:
        UsageError: with the sizes.
    """
    if block_px not in BLOCK_PX:
        raise UsageError(f"--block-px {block_px}: blocks of Sentinel-2 COGs have 512 or 1024 pixels a side.")
    if not len(starts_px(chip_px, block_px, 3 * block_px)):
        raise UsageError(
            f"--chip-px {chip_px}: no such chip fits into a block of {block_px} pixels. Take another grid."
        )


def starts_px(chip_px: int, block_px: int, end_px: int) -> Numbers:
    """Where cells begin along one side of a tile, in pixels; each lies in one block and before `end_px`."""
    pitch = pitch_m(chip_px) // PIXEL_M
    spans = [
        np.arange(math.ceil(first / _STEP_PX) * _STEP_PX, min(first + block_px, end_px) - chip_px + 1, pitch)
        for first in range(0, end_px, block_px)
    ]
    return np.concatenate(spans)


def block_cells(area: BaseGeometry, chip_px: int, block_px: int) -> list[Cell]:
    """Cells of the tiles' blocks whose centre lies in `area` (degrees), sorted by id."""
    cells = [
        cell
        for epsg in zones_of(area)
        if (bounds := zone_bounds(area, epsg)) is not None
        for left, top in _tiles(epsg, bounds)
        for cell in _tile_cells(area, (epsg, left, top), (chip_px, block_px), within=bounds)
    ]
    return sorted(cells, key=lambda cell: cell.cell_id)


def blocks_at(epsg: Numbers, x: NDArray[np.float64], y: NDArray[np.float64], block_px: int) -> list[Block]:
    """The blocks that hold positions (metres of their zones)."""
    equator = _equator_m(epsg)
    left, top = _begin_m(x), equator - _begin_m(equator - y)
    row = np.floor((top - y) / (block_px * PIXEL_M)).astype(np.int64)
    col = np.floor((x - left) / (block_px * PIXEL_M)).astype(np.int64)
    columns = (axis.tolist() for axis in (epsg, left, top, row, col))
    return [Block(*place) for place in zip(*columns, strict=True)]


def corners_at(
    epsg: Numbers, x: NDArray[np.float64], y: NDArray[np.float64], sizes_px: tuple[int, int]
) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Left and top (metres) of the cells that hold positions (metres of their zones), and whether any does."""
    equator = _equator_m(epsg)
    (left, in_row), (down, in_column) = (_start_m(distance, sizes_px) for distance in (x, equator - y))
    return left, equator - down, in_row & in_column


def cells_of(block: Block, area: BaseGeometry, chip_px: int, block_px: int) -> list[Cell]:
    """The cells of one block whose centre lies in `area` and in the zone, from north to south and west to east."""
    side = block_px * PIXEL_M
    west, north = block.tile_left_m + block.col * side, block.tile_top_m - block.row * side
    return _tile_cells(area, block[:3], (chip_px, block_px), within=(west, north - side, west + side, north))


def _edge_m(square: Numbers) -> Numbers:
    """Metres. Where the tiles of a square begin, counted from the zone's west or southwards from the equator."""
    return square * SQUARE_M // LATTICE_M * LATTICE_M


def _begin_m(distance_m: NDArray[np.float64]) -> Numbers:
    """Metres. Where the tile that has the ground at a distance begins, both counted as in `_edge_m`."""
    square = np.floor(distance_m / SQUARE_M).astype(np.int64)
    return _edge_m(square + (distance_m >= _edge_m(square + 1)))


def _start_m(distance_m: NDArray[np.float64], sizes_px: tuple[int, int]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Metres. Where the cell at a distance begins, counted as in `_edge_m`, and whether there is one."""
    (chip_px, block_px), begin = sizes_px, _begin_m(distance_m)
    at = np.floor((distance_m - begin) / PIXEL_M).astype(np.int64)
    end = (_edge_m(-(-begin // SQUARE_M) + 1) - begin) // PIXEL_M
    block = at // block_px
    first = -(-block * block_px // _STEP_PX) * _STEP_PX
    pitch = pitch_m(chip_px) // PIXEL_M
    start = first + (at - first) // pitch * pitch
    held = (at >= first) & (at < start + chip_px) & (start + chip_px <= np.minimum((block + 1) * block_px, end))
    return begin + start * PIXEL_M, held


def _length_px(begin_m: int) -> int:
    """Pixels from where a tile begins to where the next one does."""
    square = np.array(-(-begin_m // SQUARE_M))
    return int(_edge_m(square + 1) - begin_m) // PIXEL_M


def _equator_m(epsg: Numbers) -> Numbers:
    return np.where(epsg > 32700, EQUATOR_M[327], EQUATOR_M[326])


def _tiles(epsg: int, bounds: Bounds) -> list[tuple[int, int]]:
    """Corners of the tiles that may have ground in the bounds."""
    west, south, east, north = bounds
    equator = EQUATOR_M[epsg // 100]
    lefts, downs = (
        _edge_m(np.arange(first // SQUARE_M - 1, last // SQUARE_M + 2, dtype=np.int64)).tolist()
        for first, last in ((west, east), (equator - north, equator - south))
    )
    return [(left, equator - down) for down in downs for left in lefts]


def _tile_cells(
    area: BaseGeometry, tile: tuple[int, int, int], sizes_px: tuple[int, int], *, within: Bounds
) -> list[Cell]:
    """Cells of a tile, given by zone, left and top, whose centre lies in the area, the zone and the bounds."""
    (epsg, left, top), (chip_px, block_px), half = tile, sizes_px, sizes_px[0] * PIXEL_M / 2
    xs = left + starts_px(chip_px, block_px, _length_px(left)) * PIXEL_M
    ys = top - starts_px(chip_px, block_px, _length_px(EQUATOR_M[epsg // 100] - top)) * PIXEL_M
    west, south, east, north = within
    xs, ys = xs[(west <= xs + half) & (xs + half <= east)], ys[(south <= ys - half) & (ys - half <= north)]
    y, x = (axis.ravel() for axis in np.meshgrid(ys, xs, indexing="ij"))
    lon, lat = transformer(epsg, 4326).transform(x + half, y - half)
    inside = shapely.contains_xy(area, lon, lat) & (utm_epsgs(lon, lat) == epsg)
    return [
        corner_cell(epsg, float(one), float(other), chip_px, center_lonlat=(at_lon, at_lat))
        for one, other, at_lon, at_lat in zip(*(axis[inside].tolist() for axis in (x, y, lon, lat)), strict=True)
    ]
