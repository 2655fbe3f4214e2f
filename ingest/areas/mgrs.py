"""Sentinel-2's tiles by their MGRS names: where each lies, and what ground it has.

A tile begins at the corner of its MGRS square of 100 km, moved outwards to a multiple of 60 m from the equator and from
the zone's false easting, and is 109.8 km wide: neighbours in a zone overlap to the east and the south.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ingest.areas import antimeridian
from ingest.areas.grid import LATTICE_M, transformer
from pipeline.errors import UsageError

TILE_M = 109_800
"""Metres. Side of a tile: 10,980 pixels."""
SQUARE_M = 100_000
"""Metres. Side of an MGRS square."""
EQUATOR_M = {326: 0, 327: 10_000_000}
"""Metres. Northing of the equator by the first digits of the EPSG code."""
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_EXCEPTIONS = {
    (31, "V"): (0, 3),
    (32, "V"): (3, 12),
    (31, "X"): (0, 9),
    (33, "X"): (9, 21),
    (35, "X"): (21, 33),
    (37, "X"): (33, 42),
    (32, "X"): None,
    (34, "X"): None,
    (36, "X"): None,
}
"""Degrees. West and east of zones that are not six degrees wide; None where there is no such zone."""
_EDGE_POINTS = 23
"""Points an edge, drawn as a curve in degrees: about 5 km apart, which is right to a metre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The grid of one Sentinel-2 tile."""

    epsg: int
    """UTM zone."""
    left_m: int
    """Metres. West edge."""
    top_m: int
    """Metres. North edge."""


def tile(name: str) -> Tile:
    """The tile of a name like `33TWL`.

    Raises:
        UsageError: no such tile.
    """
    match = re.fullmatch(r"T?(\d{1,2})([A-Z])([A-Z])([A-Z])", name.strip().upper())
    if not match:
        raise UsageError(f"mgrs:{name}: a tile is named by zone, band and two letters, as 33TWL.")
    zone, (band, column, row) = int(match[1]), match.groups()[1:]
    ground = _zone_box(zone, band)
    if ground is None:
        raise UsageError(
            f"mgrs:{name}: there is no zone {zone}{band}. Zones are 1 to 60, bands C to X without I and O."
        )
    letters = _COLUMNS[(zone - 1) % 3]
    if column not in letters or row not in _ROWS:
        raise UsageError(f"mgrs:{name}: columns of zone {zone} are {letters}, rows {_ROWS}. Check the letters.")
    epsg = (32600 if band >= "N" else 32700) + zone
    west = (letters.index(column) + 1) * SQUARE_M
    cycle = (_ROWS.index(row) - 5 * (zone % 2 == 0)) % len(_ROWS) * SQUARE_M
    for south in range(cycle, EQUATOR_M[327], len(_ROWS) * SQUARE_M):
        if _outline(epsg, (west, south, west + SQUARE_M, south + SQUARE_M)).intersection(ground).area > 0:
            return tile_of_square(epsg, west, south)
    raise UsageError(f"mgrs:{name}: square {column}{row} does not lie in {zone}{band}. Check the latitude band.")


def tile_of_square(epsg: int, west_m: int, south_m: int) -> Tile:
    """The tile that begins at a square of 100 km, given by its south-west corner."""
    equator = EQUATOR_M[epsg // 100]
    top = equator + math.ceil((south_m + SQUARE_M - equator) / LATTICE_M) * LATTICE_M
    return Tile(epsg=epsg, left_m=west_m // LATTICE_M * LATTICE_M, top_m=top)


def outline(of: Tile) -> BaseGeometry:
    """The tile's ground in degrees, as far as UTM goes."""
    ring = _outline(of.epsg, (of.left_m, of.top_m - TILE_M, of.left_m + TILE_M, of.top_m))
    return antimeridian.cut(ring.intersection(shapely.box(-400, -80, 400, 84)))


def _outline(epsg: int, bounds_m: tuple[int, int, int, int]) -> BaseGeometry:
    """A rectangle of a zone in degrees, with continuous longitudes around the zone's meridian."""
    ring = shapely.segmentize(shapely.box(*bounds_m), (bounds_m[2] - bounds_m[0]) / (_EDGE_POINTS - 1))
    lon, lat = transformer(epsg, 4326).transform(*shapely.get_coordinates(ring).T)
    meridian = epsg % 100 * 6 - 183
    return shapely.Polygon(np.column_stack([meridian + (lon - meridian + 180) % 360 - 180, lat]))


def _zone_box(zone: int, band: str) -> BaseGeometry | None:
    """Degrees. What a zone's latitude band covers; None where there is none."""
    span = _EXCEPTIONS.get((zone, band), (zone * 6 - 186, zone * 6 - 180))
    if band not in _BANDS or not 1 <= zone <= 60 or span is None:
        return None
    south = -80 + 8 * _BANDS.index(band)
    return shapely.box(span[0], south, span[1], 84 if band == "X" else south + 8)
