"""The only user of rasterio, beside `areas.lookup`: one band of one scene, each block read once, on the cells' grids.

In: an asset and the cells that need it. Out: their chips. All cells of a unit share one read, because a block of a COG
is the smallest thing that can be fetched and decoded: chip by chip the same block is decoded again and again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ingest.areas.grid import Cell
from ingest.catalogs import signing
from ingest.pixels.blocks import Window as Rows
from ingest.pixels.blocks import strips
from ingest.pixels.faults import GaveUp, patiently
from ingest.pixels.power import NotPowerError, check_power
from ingest.pixels.warp import Centers, Copy, Pixels, copy, locate, sample, spread
from ingest.scenes.header import Header, SceneRefused, affine, grid_disagreement, type_disagreement, value_text
from ingest.scenes.scene import Scene
from pipeline.errors import ReadError

T = TypeVar("T")
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
READERS = 4
"""Bands of a scene that are read at once: one decodes while others wait for their bytes."""
LOWEST_STRIP_PX = 256
"""Rows that are read at once of a file without tiles."""
Coordinates = dict[tuple[str, int], Centers]
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


def read_bands(scene: Scene, bands: Sequence[str], cells: Sequence[Cell], *, shared: Coordinates) -> Iterator[Chips]:
    """`read_band` of each of `bands`, in order, some at once.

    Raises:
        ReadError: as there.
    """
    waiting = iter(bands)
    with ThreadPoolExecutor(READERS) as pool:

        def begin(count: int) -> list[Future[Chips]]:
            return [pool.submit(read_band, scene, band, cells, shared=shared) for band in islice(waiting, count)]

        running = deque(begin(READERS))
        while running:
            yield running.popleft().result()
            running += begin(1)


def read_band(scene: Scene, band: str, cells: Sequence[Cell], *, shared: Coordinates, classes: bool = False) -> Chips:
    """Band `band` of `scene` on `cells`.

    Args:
        scene: where the file is.
        band: which of its assets.
        cells: n cells, all near each other.
        shared: pixel centres that other bands computed; added to.
        classes: values are classes, never to be averaged.

    Raises:
        SceneRefused: the file is not what its item says, on no map grid, or radar in another unit.
        ReadError: the file is missing or damaged, which is permanent; or its server kept failing.
    """

    def read(dataset: rasterio.DatasetReader, epsg: int) -> Chips:
        a, b, c, d, e, f = dataset.transform[:6]
        places = [locate(cell, epsg, (a, b, c, d, e, f), known=shared) for cell in cells]
        return _read(dataset, places, scene, classes=classes)

    return _opened(scene, band, read)


def _opened(scene: Scene, band: str, read: Callable[[rasterio.DatasetReader, int], T]) -> T:
    """What `read` makes of an asset, opened and checked, and of its EPSG code; patiently."""
    href = scene.assets[band].href

    def attempt(fresh: bool, address: str) -> T:
        options = {**GDAL_OPTIONS, **signing.options(href), **(FRESH_OPTIONS if fresh else {})}
        with rasterio.Env(**options), rasterio.open(address) as dataset:
            return read(dataset, check(dataset, scene, band))

    try:
        return patiently(
            lambda fresh: signing.reading(href, partial(attempt, fresh)), href, errors=(RasterioError, OSError)
        )
    except GaveUp as error:
        raise ReadError(scene.scene_id, band, href, error, permanent=error.permanent) from error
    except NotPowerError as error:
        raise SceneRefused(scene.scene_id, band, href, error) from error


def read_small(scene: Scene, band: str, *, shape_px: tuple[int, int] | None = None) -> NDArray[np.generic]:
    """(h, w) the whole of a band at the resolution of its smallest overview, or at `shape_px`: one small request.

    Raises:
        SceneRefused: the file is not what its item says.
        ReadError: as `read_band`.
    """

    def look(dataset: rasterio.DatasetReader) -> NDArray[np.generic]:
        factor = max(dataset.overviews(1), default=1)
        small = shape_px or (-(-dataset.height // factor), -(-dataset.width // factor))
        values: NDArray[np.generic] = dataset.read(1, out_shape=small)
        return values

    return _opened(scene, band, lambda dataset, _: look(dataset))


def check(dataset: rasterio.DatasetReader, scene: Scene, band: str) -> int:
    """The file's EPSG code, if the file is what its item says.

    Raises:
        SceneRefused: it is not, or it is on no map grid.
    """
    asset, epsg = scene.assets[band], dataset.crs.to_epsg() if dataset.crs else None
    if not epsg:
        why = "ground control points only: not geocoded" if dataset.gcps[0] else "the file has no EPSG code"
        raise SceneRefused(scene.scene_id, band, asset.href, why)
    found = Header(
        epsg=epsg,
        transform=affine(dataset.transform),
        shape_px=dataset.shape,
        dtype=dataset.dtypes[0],
        nodata=None if dataset.nodata is None else value_text(dataset.nodata),
    )
    said = asset.declared
    wrong = said and (type_disagreement(said, found) or grid_disagreement(said, found))
    if wrong:
        raise SceneRefused(scene.scene_id, band, asset.href, wrong)
    return int(epsg)


def _read(dataset: rasterio.DatasetReader, places: Sequence[Copy | Pixels], scene: Scene, *, classes: bool) -> Chips:
    """The chips at `places`."""
    size = places[0].size_px
    data, valid = np.zeros((len(places), size, size), dataset.dtypes[0]), np.zeros((len(places), size, size), bool)
    for source, origin, members in _strips(dataset, [place.window for place in places]):
        for i in members:
            place = places[i]
            if isinstance(place, Copy):
                values, (row0, row1, col0, col1) = copy(source, place, origin)
                here = i, slice(row0, row1), slice(col0, col1)
                valid[here] = _valid(values, scene, dataset.nodata)
                np.copyto(data[here], values, where=valid[here])
            else:
                data[i], valid[i] = _warped(source, origin, place, scene=scene, nodata=dataset.nodata, nearest=classes)
    return Chips(data=data, valid=valid, warped=np.array([isinstance(place, Pixels) for place in places]))


def _strips(
    dataset: rasterio.DatasetReader, windows: Sequence[Rows]
) -> Iterator[tuple[NDArray[Any], tuple[int, int], Sequence[int]]]:
    """Pixels of a strip, its first row and column, and the positions of the windows that it holds.

    The next strip overwrites them.
    """
    steps = list(strips(windows, shape=dataset.shape, block=_block(dataset)))
    edges = np.array([step.window for step in steps], dtype=int).reshape(-1, 4)
    held = np.empty((edges[:, 1::2] - edges[:, ::2]).max(axis=0, initial=0), dataset.dtypes[0])
    top = bottom = 0
    for step in steps:
        first, last, left, _ = step.window
        if first < bottom:
            held[: bottom - first] = held[first - top : bottom - top]
        top, bottom = first, last
        for row0, row1, col0, col1 in step.reads:
            part = held[row0 - top : row1 - top, col0 - left : col1 - left]
            dataset.read(1, window=Window(col0, row0, col1 - col0, row1 - row0), out=part)
        yield held[: bottom - top], (top, left), step.members


def _block(dataset: rasterio.DatasetReader) -> tuple[int, int]:
    """Height and width of what is read at once: a block, or several rows of a file without tiles."""
    height, width = dataset.block_shapes[0]
    return (max(1, LOWEST_STRIP_PX // height) * height if width == dataset.width else height), width


def _warped(
    source: NDArray[Any], origin: tuple[int, int], place: Pixels, *, scene: Scene, nodata: float | None, nearest: bool
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """One cell's values, from its own part of the strip."""
    first_row, last_row, first_col, last_col = place.window
    row0, col0 = max(origin[0], first_row), max(origin[1], first_col)
    part = source[row0 - origin[0] : last_row - origin[0], col0 - origin[1] : last_col - origin[1]]
    row, col = spread(place.row - row0, place.size_px), spread(place.col - col0, place.size_px)
    return sample(part, row, col, valid=_valid(part, scene, nodata), nearest=nearest)


def _valid(source: NDArray[Any], scene: Scene, nodata: float | None) -> NDArray[np.bool_]:
    """Where the source has data, by rule and not by tag alone: tags are missing in real catalogs.

    Sentinel-2: 0 is nodata. Sentinel-1: linear power is above 0, whatever the tag says.

    Raises:
        NotPowerError: an image of Sentinel-1 has another unit.
    """
    if scene.sensor == "s1":
        check_power(source, nodata)
    measured = scene.sensor in {"s1", "s2"}
    valid: NDArray[np.bool_] = source > 0 if measured else np.ones(source.shape, bool)
    if source.dtype.kind == "f":
        valid &= np.isfinite(source)
    if nodata is not None and not (measured and nodata <= 0):
        valid &= source != nodata
    return valid
