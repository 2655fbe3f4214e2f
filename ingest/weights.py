"""What a sampler goes by: land in polygons or a raster, classes in a raster, points in a file. All given by the user.

In: a file, and where it is asked. Out: functions from longitudes and latitudes to weights or classes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ingest.areas import antimeridian, vectors
from ingest.request import Sampling
from pipeline.errors import UsageError

Floats = NDArray[np.float64]
RASTERS = (".tif", ".tiff", ".vrt", ".jp2")
_NO_CLASS = -1


def weights_of(sampling: Sampling, area: BaseGeometry) -> Callable[[Floats, Floats], Floats]:
    """Weight of places from 0 to 1: in polygons 1; in a raster the pixel's value, the largest in the area being 1.

    Raises:
        UsageError: no such file, no polygons, negative or no weights.
    """
    if sampling.sampler != "land":
        return lambda lon, _: np.ones(len(lon))
    if Path(sampling.weights).suffix.lower() not in RASTERS:
        land = _polygons(sampling.weights)
        return lambda lon, lat: shapely.contains_xy(land, lon, lat).astype(np.float64)
    from ingest.areas.lookup import lookup

    raster = lookup(sampling.weights, area)
    known = raster.values[raster.valid]
    if not known.size or known.min() < 0 or not known.max() > 0:
        raise UsageError(f"--weights {sampling.weights}: no weight above 0 in the area, or some below. Check the file.")

    def weight(lon: Floats, lat: Floats) -> Floats:
        values, valid = raster.at(lon, lat)
        return np.where(valid, values, 0) / float(known.max())

    return weight


def classes_of(sampling: Sampling, area: BaseGeometry) -> Callable[[Floats, Floats], NDArray[np.int64]]:
    """Class of places, -1 where the raster has none.

    Raises:
        UsageError: no such file, or no whole numbers in it.
    """
    from ingest.areas.lookup import lookup

    raster = lookup(sampling.weights, area)
    known = raster.values[raster.valid]
    if (known != np.round(known)).any() or (known < 0).any():
        raise UsageError(f"--weights {sampling.weights}: classes are whole numbers from 0. Give a raster of classes.")

    def classify(lon: Floats, lat: Floats) -> NDArray[np.int64]:
        values, valid = raster.at(lon, lat)
        return np.where(valid, values, _NO_CLASS).astype(np.int64)

    return classify


def points_of(sampling: Sampling) -> Floats | None:
    """(p, 2) longitudes and latitudes, sorted, of the sampler that has some.

    Raises:
        UsageError: no such file, or no points.
    """
    if sampling.sampler != "points":
        return None
    geometries = [geometry for _, geometry in vectors.read(Path(sampling.weights))]
    points = [one for one in geometries if one.geom_type in {"Point", "MultiPoint"}]
    if not points or len(points) < len(geometries):
        raise UsageError(f"--weights {sampling.weights}: the sampler points needs points and nothing else in the file.")
    coordinates: Floats = np.unique(shapely.get_coordinates(points), axis=0)
    return coordinates


def _polygons(path: str) -> BaseGeometry:
    geometries = [geometry for _, geometry in vectors.read(Path(path))]
    if not geometries or any(one.geom_type not in {"Polygon", "MultiPolygon"} for one in geometries):
        raise UsageError(f"--weights {path}: land is polygons, or a raster of weights ({', '.join(RASTERS)}).")
    try:
        land = shapely.union_all([shapely.make_valid(antimeridian.cut(one)) for one in geometries])
    except ValueError as error:
        raise UsageError(f"--weights {path}: {error}. Cut polygons at the antimeridian, and repair them.") from error
    shapely.prepare(land)
    return land
