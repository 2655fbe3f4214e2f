"""Where a cell's pixels lie in a source image, and their values there. Pure numpy: exact where others approximate.

GDAL's warper approximates the transformation within an eighth of a pixel by default, and widens its kernel where the
scales differ a little; this evaluates the transformation at every pixel centre, once for all bands, and takes the
plain bilinear value. With GDAL's `XSCALE=1, YSCALE=1` and no tolerance the two agree to the last digit (tested).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.grid import PIXEL_M, Affine6, Cell, transformer

_ON_GRID_PX = 1e-3
"""Pixels. Closer than this to the source's grid is on it: origins are rounded to a millimetre or so in metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Source coordinates of a cell's pixel centres."""

    col: NDArray[np.float64]
    """(H, W) source columns; the centre of the first is 0.5."""
    row: NDArray[np.float64]
    """(H, W) source rows."""
    on_grid: bool
    """Each pixel lies wholly in one source pixel, so its value is the source's own."""

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Rows and columns (row0, row1, col0, col1) that any kernel here touches; may reach outside the source."""
        row0, row1 = int(np.floor(self.row.min() - 0.5)), int(np.floor(self.row.max() + 0.5)) + 1
        col0, col1 = int(np.floor(self.col.min() - 0.5)), int(np.floor(self.col.max() + 0.5)) + 1
        return row0, row1, col0, col1


def centers(cell: Cell, epsg: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(H, W) x and y of the cell's pixel centres in `epsg`."""
    steps = (np.arange(cell.size_px) + 0.5) * PIXEL_M
    x, y = np.meshgrid(cell.left_m + steps, cell.top_m - steps)
    if epsg == cell.epsg:
        return x, y
    moved = transformer(cell.epsg, epsg).transform(x, y)
    return np.asarray(moved[0]), np.asarray(moved[1])


def locate(cell: Cell, epsg: int, transform: Affine6, *, xy: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Pixels:
    """Where the pixel centres `xy` of `cell` lie in the image with `transform` in `epsg`."""
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    x, y = xy[0] - c, xy[1] - f
    return Pixels(
        col=(e * x - b * y) / determinant,
        row=(a * y - d * x) / determinant,
        on_grid=epsg == cell.epsg and _is_on_grid(cell, transform),
    )


def sample(
    source: NDArray[np.generic], pixels: Pixels, *, valid: NDArray[np.bool_], nearest: bool
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Values of `source` at `pixels`.

    Args:
        source: (h, w) window of the image, with `pixels` relative to it.
        pixels: where to look.
        valid: (h, w) False where the source has no data; such pixels never enter a mean.
        nearest: take the pixel that holds the centre, as for classes and for images on the cell's own grid.

    Returns:
        (H, W) values in the source's dtype, and (H, W) whether the pixel that holds the centre is valid; integers are
        rounded half up. Elsewhere the value is 0.
    """
    row, col = np.floor(pixels.row).astype(np.int64), np.floor(pixels.col).astype(np.int64)
    inside = (row >= 0) & (col >= 0) & (row < source.shape[0]) & (col < source.shape[1])
    row, col = np.where(inside, row, 0), np.where(inside, col, 0)
    good = inside & valid[row, col]
    if nearest:
        return np.where(good, source[row, col], np.zeros((), source.dtype)), good
    mean = _bilinear(source, pixels, valid)
    if np.issubdtype(source.dtype, np.integer):
        mean = np.floor(mean + 0.5)
    return np.where(good, mean, 0).astype(source.dtype), good


def _is_on_grid(cell: Cell, transform: Affine6) -> bool:
    a, b, c, d, e, f = transform
    factor = a / PIXEL_M
    offsets = ((cell.left_m - c) / PIXEL_M, (cell.top_m - f) / PIXEL_M)
    whole = (factor, *offsets)
    square = b == d == 0 and e == -a and factor >= 1 - _ON_GRID_PX
    return square and all(abs(value - round(value)) < _ON_GRID_PX for value in whole)


def _bilinear(source: NDArray[np.generic], pixels: Pixels, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the four nearest pixels, weighted by overlap; those without data or outside have no weight."""
    values = np.where(valid, source, 0).astype(np.float64)
    row0, col0 = np.floor(pixels.row - 0.5), np.floor(pixels.col - 0.5)
    down, right = pixels.row - 0.5 - row0, pixels.col - 0.5 - col0
    total, weights = np.zeros_like(down), np.zeros_like(down)
    for step_row, weight_row in ((0, 1 - down), (1, down)):
        for step_col, weight_col in ((0, 1 - right), (1, right)):
            row, col = (row0 + step_row).astype(np.int64), (col0 + step_col).astype(np.int64)
            inside = (row >= 0) & (col >= 0) & (row < source.shape[0]) & (col < source.shape[1])
            row, col = np.where(inside, row, 0), np.where(inside, col, 0)
            weight = weight_row * weight_col * (inside & valid[row, col])
            total += weight * values[row, col]
            weights += weight
    return total / np.where(weights > 0, weights, 1)
