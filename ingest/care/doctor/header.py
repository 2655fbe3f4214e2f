"""The header of one file, and one of its blocks. Beside `raster`, which reads pixels, the only user of rasterio."""

import time
from dataclasses import dataclass

import rasterio
from rasterio.windows import Window

from ingest.areas.grid import Affine6
from ingest.catalogs import signing
from ingest.pixels.raster import GDAL_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself."""

    epsg: int | None
    """CRS; None where it has none."""
    transform: Affine6
    """Units of the CRS. From pixel (col, row) to (x, y)."""
    height_px: int
    """Rows."""
    width_px: int
    """Columns."""
    dtype: str
    """Of the first band."""
    nodata: float | None
    """Tag; None where there is none."""
    block_px: tuple[int, int]
    """Rows and columns of a block."""
    overviews: int
    """Levels."""
    open_ms: float
    """Milliseconds to open it: connection, credentials, header."""
    block_ms: float
    """Milliseconds to fetch and decode its middle block."""
    block_bytes: int
    """Raw."""


def look(href: str) -> Header:
    """Open the file at `href`, signed where its host asks for it, and read its middle block.

    Raises:
        RasterioError: it cannot be opened or read.
    """
    with rasterio.Env(**GDAL_OPTIONS, **signing.options(href)):
        return signing.reading(href, _look)


def _look(address: str) -> Header:
    began_s = time.perf_counter()
    with rasterio.open(address) as file:
        opened_s = time.perf_counter()
        height, width = file.block_shapes[0]
        row, col = file.height // 2 // height * height, file.width // 2 // width * width
        block = file.read(1, window=Window(col, row, min(width, file.width - col), min(height, file.height - row)))
        a, b, c, d, e, f = tuple(file.transform)[:6]
        return Header(
            epsg=file.crs.to_epsg() if file.crs else None,
            transform=(a, b, c, d, e, f),
            height_px=file.height,
            width_px=file.width,
            dtype=file.dtypes[0],
            nodata=file.nodata,
            block_px=(height, width),
            overviews=len(file.overviews(1)),
            open_ms=(opened_s - began_s) * 1e3,
            block_ms=(time.perf_counter() - opened_s) * 1e3,
            block_bytes=block.nbytes,
        )
