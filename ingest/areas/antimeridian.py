"""Geometry across 180 degrees: cut there, so that every longitude lies between -180 and 180 (RFC 7946, 3.1.9).

An edge longer than 180 degrees is taken to go the short way round, unless it runs along a whole parallel.
"""

from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

FAR_DEG = 360.0
"""Degrees. Longitudes may be written up to a turn too far, as 190 for -170."""


def cut(geometry: BaseGeometry) -> BaseGeometry:
    """A polygon or multipolygon (degrees), each ring made continuous, and then cut at 180 degrees.

    Raises:
        ValueError: a ring runs round a pole or crosses itself.
    """
    if not _crosses(geometry):
        return geometry
    parts = [_continuous(part) for part in shapely.get_parts(geometry)]
    for part in parts:
        if not part.is_valid:
            raise ValueError(explain_validity(part))
    return shapely.union_all([_wrapped(part) for part in parts])


def joined(geometry: BaseGeometry) -> BaseGeometry:
    """Both sides of the antimeridian side by side, longitudes up to 540: for centres and widths."""
    west, _, east, _ = geometry.bounds
    if (west, east) != (-180, 180):
        return geometry
    parts = shapely.get_parts(geometry)
    moved = [shapely.transform(part, _turned) if part.bounds[2] < 0 else part for part in parts]
    return shapely.union_all(moved)


def sides(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The area itself, or what lies east and what lies west of the antimeridian, each with bounds of its own."""
    together = joined(geometry)
    if together is geometry or together.bounds[2] <= 180:
        return [geometry]
    halves = (shapely.box(-180, -90, 0, 90), shapely.box(0, -90, 180, 90))
    return [half for half in (geometry.intersection(box) for box in halves) if half.area]


def _turned(xy: NDArray[np.float64], turns: int = 1) -> NDArray[np.float64]:
    return np.column_stack([xy[:, 0] + 360 * turns, xy[:, 1]])


def _crosses(geometry: BaseGeometry) -> bool:
    lon, ring = _rings(geometry)
    steps = np.abs(np.diff(lon))[np.diff(ring) == 0]
    return bool((np.abs(lon) > 180).any() or ((steps > 180) & (steps < 360)).any())


def _rings(geometry: BaseGeometry) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Longitudes of all points, and the ring that each belongs to."""
    rings = shapely.get_rings(shapely.get_parts(geometry))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    return xy[:, 0], ring


def _continuous(polygon: BaseGeometry) -> BaseGeometry:
    """The polygon without jumps, its holes moved to where its shell is."""
    shell, *holes = (_unwrapped(ring) for ring in shapely.get_rings(polygon))
    middle = shell[:, 0].mean()
    return shapely.Polygon(shell, [_turned(hole, round((middle - hole[:, 0].mean()) / 360)) for hole in holes])


def _unwrapped(ring: BaseGeometry) -> NDArray[np.float64]:
    lon, lat = shapely.get_coordinates(ring).T
    lon = lon + 360 * np.round((np.unwrap(lon, period=360) - lon) / 360)  # whole turns: the ring stays closed
    if abs(lon[-1] - lon[0]) > 180:
        raise ValueError("its outline runs round a pole")
    return np.column_stack([lon, lat])


def _wrapped(polygon: BaseGeometry) -> BaseGeometry:
    """The polygon's pieces of each turn, all moved to -180 to 180."""
    west, _, east, _ = polygon.bounds
    pieces = []
    for turn in range(round(west / 360), round(east / 360) + 1):
        window = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        pieces.append(shapely.transform(polygon.intersection(window), partial(_turned, turns=-turn)))
    return shapely.union_all([piece for piece in pieces if piece.area])
