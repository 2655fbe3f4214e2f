"""Cells: fixed squares of 10 m pixels on the ground, and which of them an area has.

The lattice of a UTM zone starts at (0, 0), in the south at (0, 40), and its pitch is the chip's side rounded up to
60 m, so that pixels of 10, 20 and 60 m bands of the zone's Sentinel-2 tiles fall on the cells' pixels. A cell belongs
to the zone of its centre, and to an area when its centre does. Rows count northwards.
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

from ingest.areas import antimeridian
from pipeline.errors import UsageError

PIXEL_M = 10
"""Metres. Every cell's pixel."""
LATTICE_M = 60
"""Metres. Pitches, and distances from the equator and the zone's false easting, are multiples of it."""
SOUTH_ORIGIN_M = 10_000_000 % LATTICE_M
"""Metres. Northing of row 0 in the south, where tiles count from the equator, at 10,000 km: no multiple of 60 m."""
MOST_CELLS = 5_000_000
"""Cells of one request. Each takes about 500 bytes of the driver's memory."""
EARTH_RADIUS_M = 6_371_007.2
"""Metres. Of the sphere with the area of WGS 84."""
_MESH = 2**20
"""Positions looked at together."""
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
    return int(utm_epsgs(np.array(lon), np.array(lat)))


def utm_epsgs(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """`utm_epsg` of many points."""
    zone = np.minimum((np.asarray(lon + 180, dtype=np.float64) // 6).astype(np.int64) + 1, 60)
    zone = np.where((lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12), 32, zone)
    svalbard = 31 + 2 * ((lon + 3) // 12).astype(np.int64)
    zone = np.where((lat >= 72) & (lon >= 0) & (lon < 42), svalbard, zone)
    return zone + np.where(lat >= 0, 32600, 32700)


@cache
def transformer(source: int, target: int) -> Transformer:
    """Longitude-first transformer between two EPSG codes."""
    return Transformer.from_crs(source, target, always_xy=True)


def pitch_m(chip_px: int) -> int:
    """Metres from cell to cell: the chip's side rounded up to the lattice."""
    return math.ceil(chip_px * PIXEL_M / LATTICE_M) * LATTICE_M


def lattice_cells(area: BaseGeometry, chip_px: int) -> list[Cell]:
    """Cells of the fixed lattices whose centre lies in `area` (degrees), sorted by id."""
    cells = [cell for epsg in zones_of(area) for cell in _zone_cells(area, epsg, chip_px)]
    return sorted(cells, key=lambda cell: cell.cell_id)


def centered_cell(area: BaseGeometry, epsg: int, chip_px: int) -> Cell:
    """The cell centred on `area` (degrees), snapped to 10 m, in `epsg`."""
    to_utm = transformer(4326, epsg)
    west, south, east, north = shapely.transform(area, lambda xy: np.column_stack(to_utm.transform(*xy.T))).bounds
    half = chip_px * PIXEL_M / 2
    left, top = ((west + east) / 2 - half, (south + north) / 2 + half)
    return corner_cell(epsg, _snap(left), _snap(top), chip_px)


def corner_cell(
    epsg: int, left_m: float, top_m: float, chip_px: int, *, center_lonlat: tuple[float, float] | None = None
) -> Cell:
    """The cell with a given upper left corner, on any grid; its centre is computed where it is not given."""
    half = chip_px * PIXEL_M / 2
    return Cell(
        cell_id=f"{epsg}-x{round(left_m):07d}-y{round(top_m):07d}",
        epsg=epsg,
        left_m=left_m,
        top_m=top_m,
        size_px=chip_px,
        center_lonlat=center_lonlat or transformer(epsg, 4326).transform(left_m + half, top_m - half),
    )


def footprints(cells: Sequence[Cell], *, inset_m: float = 0) -> NDArray[np.object_]:
    """The cells' outlines in degrees, drawn `inset_m` metres inside their edges: an object array of polygons.

    One across the antimeridian is a multipolygon of its two sides.
    """
    corners = np.empty((len(cells), 5, 2))
    for epsg, rows in by_zone(cells).items():
        corners_m = np.array([_corners_m(cells[i], inset_m) for i in rows])
        lon, lat = transformer(epsg, 4326).transform(corners_m[..., 0], corners_m[..., 1])
        corners[rows] = np.stack([lon, lat], axis=-1)
    polygons: NDArray[np.object_] = shapely.polygons(corners)
    for i in np.flatnonzero(np.ptp(corners[..., 0], axis=1) > 180):
        polygons[i] = antimeridian.cut(polygons[i])
    return polygons


def check_chip_px(chip_px: int) -> None:
    """Refuse sizes that cannot be a chip.

    Raises:
        UsageError: too small for a patch or too large for a unit.
    """
    if not 8 <= chip_px <= 2048:
        raise UsageError(f"--chip-px {chip_px}: a chip has 8 to 2048 pixels of 10 m a side. CROMA was trained on 120.")


def by_zone(cells: Sequence[Cell]) -> dict[int, list[int]]:
    """Positions of the cells of each EPSG code."""
    found: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        found.setdefault(cell.epsg, []).append(i)
    return found


def ground_m2(area: BaseGeometry) -> float:
    """Square metres of an area in degrees, on a sphere: within half a percent, and no less for crossing zones."""
    flat = shapely.transform(area, lambda xy: np.column_stack([np.radians(xy[:, 0]), np.sin(np.radians(xy[:, 1]))]))
    return float(flat.area) * EARTH_RADIUS_M**2


def count_of(area: BaseGeometry, chip_px: int) -> float:
    """About how many cells of the lattice an area has."""
    return ground_m2(area) / pitch_m(chip_px) ** 2


def check_count(areas: Sequence[BaseGeometry], chip_px: int) -> None:
    """Refuse a lattice of more cells than a driver can hold.

    Raises:
        UsageError: about how many there would be.
    """
    count = count_of(shapely.union_all(areas), chip_px)
    if count > MOST_CELLS:
        raise UsageError(
            f"the area has about {count:,.0f} cells of {chip_px} pixels; a request holds {MOST_CELLS:,} at most. "
            "Draw some of them with --sample, take a larger --chip-px, or a smaller area."
        )


def _snap(value_m: float) -> float:
    return float(round(value_m / PIXEL_M) * PIXEL_M)


def _corners_m(cell: Cell, inset_m: float) -> list[tuple[float, float]]:
    side = cell.size_px * PIXEL_M - inset_m
    left, top, right, bottom = cell.left_m + inset_m, cell.top_m - inset_m, cell.left_m + side, cell.top_m - side
    return [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]


def zones_of(area: BaseGeometry) -> list[int]:
    """Zones that may hold a centre: those of the bounds, one more on each side for MGRS's exceptions."""
    west, south, east, north = area.bounds
    zones = range(int((west + 180) // 6), int((east + 180) // 6) + 3)
    hemispheres = ([32600] if north >= 0 else []) + ([32700] if south < 0 else [])
    return [hemisphere + zone for hemisphere in hemispheres for zone in zones if 1 <= zone <= 60]


def zone_box(epsg: int) -> BaseGeometry:
    """Degrees. The hemisphere of a UTM zone, a zone's half wider on each side than its widest exception."""
    meridian, south = (epsg % 100) * 6 - 183, epsg > 32700
    return shapely.box(meridian - 6.5, -80 if south else 0, meridian + 6.5, 0 if south else 84)


def zone_bounds(area: BaseGeometry, epsg: int) -> tuple[float, float, float, float] | None:
    """Metres. West, south, east and north of an area's part in a zone; None where it has none."""
    part = area.intersection(zone_box(epsg))
    if part.is_empty:
        return None
    west, south, east, north = part.bounds
    found: tuple[float, float, float, float] = transformer(4326, epsg).transform_bounds(
        west, south, east, north, densify_pts=21
    )
    return found


def lattice_origin_m(epsg: int) -> tuple[int, int]:
    """Metres. (x, y) of the lower left corner of row 0, column 0."""
    return 0, SOUTH_ORIGIN_M if epsg > 32700 else 0


def lattice_cell(epsg: int, row: int, col: int, *, chip_px: int, center_lonlat: tuple[float, float]) -> Cell:
    """The lattice's cell of a row and a column."""
    (x0, y0), pitch = lattice_origin_m(epsg), pitch_m(chip_px)
    return Cell(
        cell_id=f"{epsg}-r{row:05d}-c{col:05d}",
        epsg=epsg,
        left_m=float(x0 + col * pitch),
        top_m=float(y0 + row * pitch + chip_px * PIXEL_M),
        size_px=chip_px,
        center_lonlat=center_lonlat,
    )


def lattice_corners_at(
    epsg: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64], chip_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Left and top (metres) of the lattice cells that hold positions (metres of their zones), and whether any does."""
    pitch, y0 = pitch_m(chip_px), np.where(epsg > 32700, SOUTH_ORIGIN_M, 0)
    left = np.floor(x / pitch).astype(np.int64) * pitch
    bottom = np.floor((y - y0) / pitch).astype(np.int64) * pitch + y0
    return left, bottom + chip_px * PIXEL_M, np.ones(len(x), dtype=bool)


def cell_at(
    epsg: int, corner_m: tuple[int, int], chip_px: int, *, center_lonlat: tuple[float, float], on_lattice: bool
) -> Cell:
    """The cell with a given upper left corner, under its lattice's name if it is one of it."""
    (left, top), pitch = corner_m, pitch_m(chip_px)
    if not on_lattice:
        return corner_cell(epsg, float(left), float(top), chip_px, center_lonlat=center_lonlat)
    row = (top - chip_px * PIXEL_M - lattice_origin_m(epsg)[1]) // pitch
    return lattice_cell(epsg, row, left // pitch, chip_px=chip_px, center_lonlat=center_lonlat)


def _zone_cells(area: BaseGeometry, epsg: int, chip_px: int) -> list[Cell]:
    bounds = zone_bounds(area, epsg)
    if bounds is None:
        return []
    pitch, (x0, y0), (west, south, east, north) = pitch_m(chip_px), lattice_origin_m(epsg), bounds
    cols = np.arange(math.floor((west - x0) / pitch) - 1, math.ceil((east - x0) / pitch) + 1)
    rows = np.arange(math.floor((south - y0) / pitch) - 1, math.ceil((north - y0) / pitch) + 1)
    bands = np.array_split(rows, max(1, len(rows) * len(cols) // _MESH))
    return [cell for band in bands for cell in _mesh_cells(area, epsg, (band, cols), chip_px)]


def _mesh_cells(
    area: BaseGeometry, epsg: int, mesh: tuple[NDArray[np.int64], NDArray[np.int64]], chip_px: int
) -> list[Cell]:
    """Cells of some rows and columns whose centre lies in the area and in the zone."""
    row, col = (axis.ravel() for axis in np.meshgrid(*mesh, indexing="ij"))
    pitch, half, (x0, y0) = pitch_m(chip_px), chip_px * PIXEL_M / 2, lattice_origin_m(epsg)
    lon, lat = transformer(epsg, 4326).transform(x0 + col * pitch + half, y0 + row * pitch + half)
    inside = shapely.contains_xy(area, lon, lat) & (utm_epsgs(lon, lat) == epsg)
    return [
        lattice_cell(epsg, r, c, chip_px=chip_px, center_lonlat=(x, y))
        for r, c, x, y in zip(*(axis[inside].tolist() for axis in (row, col, lon, lat)), strict=True)
    ]
