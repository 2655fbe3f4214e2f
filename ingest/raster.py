"""The only user of rasterio: one band of one scene, each block read once, on the cells' grids.

In: an asset and the cells that need it. Out: their chips. All cells of a unit share one read, because a block of a COG
is the smallest thing that can be fetched and decoded: chip by chip the same block is decoded again and again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ingest.faults import GaveUp, patiently
from ingest.grid import Cell
from ingest.scene import Scene
from ingest.warp import Pixels, centers, locate, sample
from pipeline.errors import ReadError

GDAL_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.25",
    "GDAL_HTTP_RETRY_CODES": "408,425,429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_CACHEMAX": 64,
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.jp2",
}
"""GDAL never retries by default and lists a folder at each open."""
FRESH_OPTIONS = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"}
"""GDAL remembers failed opens and cut bodies: with these it asks the server anew."""
Coordinates = dict[tuple[str, int], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Pixel centres by cell id and CRS: computed once, shared by all bands of a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chips:
    """One band on the cells of a unit."""

    data: NDArray[np.generic]
    """(n, H, W) in the file's dtype; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(n, H, W) whether the source has data there."""
    warped: NDArray[np.bool_]
    """(n,) whether values were interpolated; otherwise they are the source's own pixels."""


def read_band(scene: Scene, band: str, cells: Sequence[Cell], *, shared: Coordinates, classes: bool = False) -> Chips:
    """Band `band` of `scene` on `cells`.

    Args:
        scene: where the file is.
        band: which of its assets.
        cells: n cells, all near each other.
        shared: pixel centres that other bands computed; added to.
        classes: values are classes, never to be averaged.

    Raises:
        ReadError: the file is missing, damaged or without CRS, which is permanent; or its server kept failing.
    """
    href = scene.assets[band].href

    def read(fresh: bool) -> tuple[NDArray[Any], Window, list[Pixels], float | None]:
        with rasterio.Env(**GDAL_OPTIONS, **(FRESH_OPTIONS if fresh else {})), rasterio.open(href) as dataset:
            if dataset.crs is None or not (epsg := dataset.crs.to_epsg()):
                raise ReadError(scene.scene_id, band, href, "the file has no EPSG code", permanent=True)
            places = [_locate(cell, epsg, tuple(dataset.transform[:6]), shared) for cell in cells]
            window = _union(places, dataset)
            return dataset.read(1, window=window), window, places, dataset.nodata

    try:
        source, window, places, nodata = patiently(read, href, errors=(RasterioError, OSError))
    except GaveUp as error:
        raise ReadError(scene.scene_id, band, href, error, permanent=error.permanent) from error
    valid = _valid(source, scene, nodata)
    chips = [_chip(source, valid, _shift(pixels, window), nearest=classes or pixels.on_grid) for pixels in places]
    return Chips(
        data=np.stack([data for data, _ in chips]),
        valid=np.stack([good for _, good in chips]),
        warped=np.array([not pixels.on_grid for pixels in places]),
    )


def _locate(cell: Cell, epsg: int, transform: tuple[float, ...], shared: Coordinates) -> Pixels:
    if (cell.cell_id, epsg) not in shared:
        shared[cell.cell_id, epsg] = centers(cell, epsg)
    a, b, c, d, e, f = transform
    return locate(cell, epsg, (a, b, c, d, e, f), xy=shared[cell.cell_id, epsg])


def _union(places: Sequence[Pixels], dataset: rasterio.DatasetReader) -> Window:
    """The smallest window of whole blocks that holds all places and lies in the file."""
    rows0, rows1, cols0, cols1 = zip(*(pixels.window for pixels in places), strict=True)
    height, width = dataset.block_shapes[0]
    row0, row1 = _whole_blocks(min(rows0), max(rows1), block=height, size=dataset.height)
    col0, col1 = _whole_blocks(min(cols0), max(cols1), block=width, size=dataset.width)
    return Window(col0, row0, col1 - col0, row1 - row0)


def _whole_blocks(start: int, stop: int, *, block: int, size: int) -> tuple[int, int]:
    """`start` to `stop` widened to whole blocks within 0 to `size`, at least one pixel."""
    first = min(max(0, start // block * block), size - 1)
    return first, max(first + 1, min(size, -(-stop // block) * block))


def _chip(
    source: NDArray[Any], valid: NDArray[np.bool_], pixels: Pixels, *, nearest: bool
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """One cell's values, from its own part of the unit's window: the rest would be converted for every cell anew."""
    row0, row1, col0, col1 = pixels.window
    row0, col0 = max(0, row0), max(0, col0)
    part = slice(row0, max(row0, row1)), slice(col0, max(col0, col1))
    if not source[part].size:
        part, row0, col0 = (slice(0, 1), slice(0, 1)), 0, 0
    return sample(source[part], _shift(pixels, Window(col0, row0, 1, 1)), valid=valid[part], nearest=nearest)


def _shift(pixels: Pixels, window: Window) -> Pixels:
    return Pixels(col=pixels.col - window.col_off, row=pixels.row - window.row_off, on_grid=pixels.on_grid)


def _valid(source: NDArray[Any], scene: Scene, nodata: float | None) -> NDArray[np.bool_]:
    """Where the source has data, by rule and not by tag alone: tags are missing in real catalogs.

    Sentinel-2: 0 is nodata. Sentinel-1: linear power is above 0, whatever the tag says.
    """
    valid: NDArray[np.bool_] = np.isfinite(source)
    if nodata is not None:
        valid &= source != nodata
    return valid & (source > 0) if scene.sensor in {"s1", "s2"} else valid
