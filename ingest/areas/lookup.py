"""A raster asked by place: what stands in the pixels that hold given points. For weights and classes, not for chips."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError, WindowError
from rasterio.transform import Affine
from rasterio.windows import Window, from_bounds
from shapely.geometry.base import BaseGeometry

from pipeline.errors import UsageError

MOST_LOOKUP_BYTES = 2**30
"""Of a raster that is read whole to be looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A raster's pixels in an area, to be asked by place."""

    values: NDArray[Any]
    """(H, W) pixels."""
    valid: NDArray[np.bool_]
    """(H, W) whether they have data."""
    transform: Affine
    """From pixel (col, row) to the raster's CRS."""
    convert: Transformer
    """From longitude and latitude to the raster's CRS."""

    def at(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values of the pixels that hold places (degrees), and whether they have data."""
        x, y = self.convert.transform(lon, lat)
        known = np.isfinite(x) & np.isfinite(y)
        x, y, to_px = np.where(known, x, 0), np.where(known, y, 0), ~self.transform
        col = np.floor(to_px.a * x + to_px.b * y + to_px.c).astype(np.int64)
        row = np.floor(to_px.d * x + to_px.e * y + to_px.f).astype(np.int64)
        known &= (row >= 0) & (row < self.values.shape[0]) & (col >= 0) & (col < self.values.shape[1])
        place = np.where(known, row, 0), np.where(known, col, 0)
        return self.values[place], known & self.valid[place]


def lookup(path: str, area: BaseGeometry) -> Lookup:
    """The first band of a raster in any CRS, where it covers the bounds of `area` (degrees).

    Raises:
        UsageError: no such raster, no CRS, nothing in the area, or too much of it.
    """
    try:
        with rasterio.open(path) as dataset:
            if dataset.crs is None:
                raise UsageError(f"{path} has no CRS. Write one into it.")
            crs = CRS.from_wkt(dataset.crs.to_wkt())
            window = _window_of(area, Transformer.from_crs(4326, crs, always_xy=True), dataset)
            if window.width * window.height * np.dtype(dataset.dtypes[0]).itemsize > MOST_LOOKUP_BYTES:
                raise UsageError(
                    f"{path} has {window.width} x {window.height} pixels in the area, too many to hold. "
                    "Resample it to about the size of a chip: gdalwarp -tr ... -r mode."
                )
            values = dataset.read(1, window=window)
            valid = dataset.read_masks(1, window=window) > 0
            transform = dataset.window_transform(window)
    except (RasterioError, OSError, WindowError, ProjError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a raster in the area: {error}. Check the file.") from error
    return Lookup(
        values=values,
        valid=valid & np.isfinite(values),
        transform=transform,
        convert=Transformer.from_crs(4326, crs, always_xy=True),
    )


def _window_of(area: BaseGeometry, convert: Transformer, dataset: rasterio.DatasetReader) -> Window:
    """The pixels that the bounds of `area` touch; all where the bounds are not finite in the raster's CRS."""
    whole = Window(0, 0, dataset.width, dataset.height)
    west, south, east, north = area.bounds
    bounds = convert.transform_bounds(west, south, east, north, densify_pts=21)
    if not np.isfinite(bounds).all():
        return whole
    exact = from_bounds(*bounds, dataset.transform)
    col, row = int(np.floor(exact.col_off)), int(np.floor(exact.row_off))
    width, height = int(np.ceil(exact.width)) + 1, int(np.ceil(exact.height)) + 1
    return Window(col, row, width, height).intersection(whole)
