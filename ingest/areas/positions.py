"""Positions on the globe, drawn evenly or round points, and the cells that hold them; all in arrays.

In: uniform numbers. Out: longitudes and latitudes, then cells. Nothing here knows a seed or a request.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod

from ingest.areas.block_grid import corners_at
from ingest.areas.grid import PIXEL_M, Cell, cell_at, lattice_corners_at, transformer, utm_epsgs

_DEGREE_M = 111_000
_GEOD = Geod(ellps="WGS84")
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Cells that positions fell on, some of them more than once."""

    epsg: Numbers
    """(n,) zones."""
    left: Numbers
    """(n,) metres. West edges."""
    top: Numbers
    """(n,) metres. North edges."""
    lon: Floats
    """(n,) degrees. Of the centres."""
    lat: Floats
    """(n,) degrees. Of the centres."""
    chance: Floats
    """(n,) uniform numbers of their own."""
    chip_px: int
    """Pixels of 10 m. Side of each."""
    on_lattice: bool
    """Whether ids count rows and columns of the lattice."""

    def cells(self, kept: NDArray[np.bool_] | None = None) -> list[Cell]:
        """The cells, or those of them that are kept."""
        columns = (self.epsg, self.left, self.top, self.lon, self.lat)
        rows = zip(*((axis if kept is None else axis[kept]).tolist() for axis in columns), strict=True)
        return [
            cell_at(epsg, (left, top), self.chip_px, center_lonlat=(lon, lat), on_lattice=self.on_lattice)
            for epsg, left, top, lon, lat in rows
        ]


def scattered(
    parts: NDArray[np.object_], drawn: Floats, *, reach_m: float
) -> tuple[Floats, Floats, NDArray[np.object_]]:
    """Positions spread evenly over boxes round parts of an area, and the part whose box each was drawn for.

    A cell counts where its centre lies in that part. The boxes reach `reach_m` further than the parts, so every such
    cell lies in the box as a whole, and the chance of each is its ground, wherever it lies.
    """
    west, south, east, north = shapely.bounds(parts).T
    pad = reach_m / _DEGREE_M
    south, north = np.maximum(south - pad, -90), np.minimum(north + pad, 90)
    pad_lon = pad / np.cos(np.radians(np.minimum(np.maximum(np.abs(south), np.abs(north)), 85)))
    west, east = west - pad_lon, np.minimum(east + pad_lon, west - pad_lon + 360)
    low, high = np.sin(np.radians(south)), np.sin(np.radians(north))
    size = np.cumsum((east - west) * (high - low))
    which = np.minimum(np.searchsorted(size, drawn[:, 0] * size[-1], side="right"), len(parts) - 1)
    lon = west[which] + drawn[:, 1] * (east - west)[which]
    lat = np.degrees(np.arcsin(np.clip(low[which] + drawn[:, 2] * (high - low)[which], -1, 1)))
    return (lon + 180) % 360 - 180, lat, parts[which]


def spread(points: Floats, drawn: Floats, *, spread_m: float) -> tuple[Floats, Floats]:
    """Positions round (p, 2) points, normal in both directions with a standard deviation of `spread_m`."""
    lon, lat = points[(drawn[:, 0] * len(points)).astype(np.int64)].T
    distance = spread_m * np.sqrt(-2 * np.log1p(-drawn[:, 1]))
    x, y, _ = _GEOD.fwd(lon, lat, 360 * drawn[:, 2], distance)
    return x, y


def in_zones(lon: Floats, lat: Floats) -> tuple[Numbers, Floats, Floats]:
    """Zone and metres of positions; those beyond UTM's latitudes are left out."""
    inside = (lat >= -80) & (lat <= 84)
    lon, lat = lon[inside], lat[inside]
    epsg = utm_epsgs(lon, lat)
    x, y = np.empty(len(lon)), np.empty(len(lon))
    for zone in np.unique(epsg).tolist():
        here = epsg == zone
        x[here], y[here] = transformer(4326, zone).transform(lon[here], lat[here])
    return epsg, x, y


def snapped(
    lon: Floats, lat: Floats, holder: NDArray[np.object_], *, chance: Floats, sizes_px: tuple[int, int]
) -> Candidates:
    """The cells that hold positions, where their centres lie in `holder` and in the cell's own zone.

    Args:
        lon: (n,) degrees.
        lat: (n,) degrees.
        holder: (n,) areas.
        chance: (n,) numbers to hand on.
        sizes_px: sides of chip and block; without a block the cells are those of the lattice.
    """
    inside = (lat >= -80) & (lat <= 84)
    holder, chance, (chip_px, block_px) = holder[inside], chance[inside], sizes_px
    epsg, x, y = in_zones(lon, lat)
    left, top, held = corners_at(epsg, x, y, sizes_px) if block_px else lattice_corners_at(epsg, x, y, chip_px)
    half = chip_px * PIXEL_M / 2
    at_lon, at_lat = np.empty(len(x)), np.empty(len(x))
    for zone in np.unique(epsg).tolist():
        here = epsg == zone
        at_lon[here], at_lat[here] = transformer(zone, 4326).transform(left[here] + half, top[here] - half)
    held &= (utm_epsgs(at_lon, at_lat) == epsg) & shapely.contains_xy(holder, at_lon, at_lat)
    return Candidates(
        epsg=epsg[held],
        left=left[held],
        top=top[held],
        lon=at_lon[held],
        lat=at_lat[held],
        chance=chance[held],
        chip_px=chip_px,
        on_lattice=not block_px,
    )
