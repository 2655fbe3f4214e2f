"""Cells: fixed squares of 10 m pixels on the ground, and which of them an area has.

The lattice of a UTM zone starts at (0, 0) and its pitch is the chip's side rounded up to 60 m, so that pixels of 10, 20
and 60 m bands of the zone's Sentinel-2 tiles fall on the cells' pixels. A cell belongs to the zone of its centre, and
to an area when its centre does. Rows count northwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from pipeline.errors import UsageError

PIXEL_M = 10
"""Metres. Every cell's pixel."""
LATTICE_M = 60
"""Metres. Origins and pitches are multiples of it."""
Affine6 = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f, from the upper left corner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fixed square on the ground."""

    cell_id: str
    """`32633-r00123-c00456` on the lattice, `32633-x0404400-y5342400` (upper left corner, m) off it."""
    epsg: int
    """CRS of the pixels."""
    left_m: float
    """Metres. West edge."""
    top_m: float
    """Metres. North edge."""
    size_px: int
    """Pixels of 10 m. Side."""
    center_lonlat: tuple[float, float]
    """Degrees, EPSG:4326."""

    @property
    def transform(self) -> Affine6:
        """Metres. From pixel (col, row) to (x, y)."""
        return (float(PIXEL_M), 0.0, self.left_m, 0.0, float(-PIXEL_M), self.top_m)

    @property
    def center_m(self) -> tuple[float, float]:
        """Metres. (x, y) of the centre."""
        half = self.size_px * PIXEL_M / 2
        return self.left_m + half, self.top_m - half


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG of the UTM zone at a point, with the exceptions of MGRS for south-west Norway and Svalbard.

    Sentinel-2 tiles follow the exceptions; without them cells there would find no tile in their own zone.
    """
    zone = min(int((lon + 180) // 6) + 1, 60)
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    if lat >= 72 and 0 <= lon < 42:
        zone = 31 + 2 * int((lon + 3) // 12)
    return (32600 if lat >= 0 else 32700) + zone


@cache
def transformer(source: int, target: int) -> Transformer:
    """Longitude-first transformer between two EPSG codes."""
    return Transformer.from_crs(source, target, always_xy=True)


def pitch_m(chip_px: int) -> int:
    """Metres from cell to cell: the chip's side rounded up to the lattice."""
    return math.ceil(chip_px * PIXEL_M / LATTICE_M) * LATTICE_M


def lattice_cells(area: BaseGeometry, chip_px: int) -> list[Cell]:
    """Cells of the fixed lattices whose centre lies in `area` (degrees), sorted by id."""
    cells = [cell for epsg in _zones(area) for cell in _zone_cells(area, epsg, chip_px)]
    return sorted(cells, key=lambda cell: cell.cell_id)


def centered_cell(area: BaseGeometry, epsg: int, chip_px: int) -> Cell:
    """The cell centred on `area` (degrees), snapped to 10 m, in `epsg`."""
    to_utm = transformer(4326, epsg)
    west, south, east, north = shapely.transform(area, lambda xy: np.column_stack(to_utm.transform(*xy.T))).bounds
    half = chip_px * PIXEL_M / 2
    left, top = ((west + east) / 2 - half, (south + north) / 2 + half)
    return corner_cell(epsg, _snap(left), _snap(top), chip_px)


def corner_cell(epsg: int, left_m: float, top_m: float, chip_px: int) -> Cell:
    """The cell with a given upper left corner, on any grid."""
    half = chip_px * PIXEL_M / 2
    return Cell(
        cell_id=f"{epsg}-x{round(left_m):07d}-y{round(top_m):07d}",
        epsg=epsg,
        left_m=left_m,
        top_m=top_m,
        size_px=chip_px,
        center_lonlat=transformer(epsg, 4326).transform(left_m + half, top_m - half),
    )


def footprints(cells: Sequence[Cell], *, inset_m: float = 0) -> NDArray[np.object_]:
    """The cells' outlines in degrees, drawn `inset_m` metres inside their edges: an object array of polygons."""
    corners = np.empty((len(cells), 5, 2))
    for epsg in {cell.epsg for cell in cells}:
        rows = [i for i, cell in enumerate(cells) if cell.epsg == epsg]
        corners_m = np.array([_corners_m(cells[i], inset_m) for i in rows])
        lon, lat = transformer(epsg, 4326).transform(corners_m[..., 0], corners_m[..., 1])
        corners[rows] = np.stack([lon, lat], axis=-1)
    polygons: NDArray[np.object_] = shapely.polygons(corners)
    return polygons


def check_chip_px(chip_px: int) -> None:
    """Refuse sizes that cannot be a chip.

    Raises:
        UsageError: too small for a patch or too large for a unit.
    """
    if not 8 <= chip_px <= 2048:
        raise UsageError(f"--chip-px {chip_px}: a chip has 8 to 2048 pixels of 10 m a side. CROMA was trained on 120.")


def _snap(value_m: float) -> float:
    return float(round(value_m / PIXEL_M) * PIXEL_M)


def _corners_m(cell: Cell, inset_m: float) -> list[tuple[float, float]]:
    side = cell.size_px * PIXEL_M - inset_m
    left, top, right, bottom = cell.left_m + inset_m, cell.top_m - inset_m, cell.left_m + side, cell.top_m - side
    return [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]


def _zones(area: BaseGeometry) -> list[int]:
    """Zones that may hold a centre: those of the bounds, one more on each side for MGRS's exceptions."""
    west, south, east, north = area.bounds
    zones = range(int((west + 180) // 6), int((east + 180) // 6) + 3)
    hemispheres = ([32600] if north >= 0 else []) + ([32700] if south < 0 else [])
    return [hemisphere + zone for hemisphere in hemispheres for zone in zones if 1 <= zone <= 60]


def _zone_cells(area: BaseGeometry, epsg: int, chip_px: int) -> list[Cell]:
    meridian = (epsg % 100) * 6 - 183
    part = area.intersection(shapely.box(meridian - 6.5, -80, meridian + 6.5, 84))
    if part.is_empty:
        return []
    pitch, half = pitch_m(chip_px), chip_px * PIXEL_M / 2
    lon_west, lat_south, lon_east, lat_north = part.bounds
    west, south, east, north = transformer(4326, epsg).transform_bounds(
        lon_west, lat_south, lon_east, lat_north, densify_pts=21
    )
    cols = np.arange(math.floor(west / pitch) - 1, math.ceil(east / pitch) + 1)
    rows = np.arange(math.floor(south / pitch) - 1, math.ceil(north / pitch) + 1)
    col, row = (axis.ravel() for axis in np.meshgrid(cols, rows))
    lon, lat = transformer(epsg, 4326).transform(col * pitch + half, row * pitch + half)
    inside = shapely.contains_xy(area, lon, lat)
    return [
        Cell(
            cell_id=f"{epsg}-r{r:05d}-c{c:05d}",
            epsg=epsg,
            left_m=float(c * pitch),
            top_m=float(r * pitch + chip_px * PIXEL_M),
            size_px=chip_px,
            center_lonlat=(x, y),
        )
        for c, r, x, y in zip(*(axis[inside].tolist() for axis in (col, row, lon, lat)), strict=True)
        if utm_epsg(x, y) == epsg
    ]
