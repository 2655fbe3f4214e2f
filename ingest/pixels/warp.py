"""Where a cell's pixels lie in a source image, and their values there. Pure numpy: exact where others approximate.

On the source's own grid a chip is a slice, repeated where the source's pixels are larger. Elsewhere the transformation
is known at every pixel centre to a millionth of a pixel, and the value is the plain bilinear one. GDAL's warper
approximates the transformation within an eighth of a pixel by default, and widens its kernel where the scales differ a
little. With GDAL's `XSCALE=1, YSCALE=1` and no tolerance the two agree to the last digit (tested).
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import PIXEL_M, Affine6, Cell, transformer
from ingest.pixels.blocks import Window

_ON_GRID_PX = 1e-3
"""Pixels. Closer than this to the source's grid is on it: origins are rounded to a millimetre or so in metadata."""
_NODES = (4, 8)
"""Points a side at which projections are computed, more where these are too few; polynomials give the rest."""
_TOLERANCE_PX = 1e-6
"""Pixels. By how much the polynomials may miss; those of a chip of 2.6 km miss by 1e-9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centers:
    """Pixel centres of a cell in some CRS."""

    x: NDArray[np.float64]
    """In the cell's own CRS (1, W) and exact; in another (k, k) at nodes that `spread` extends to (H, W)."""
    y: NDArray[np.float64]
    """The same, (H, 1) in the cell's own CRS."""
    size_px: int
    """H and W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A cell whose pixels each lie wholly in one source pixel."""

    row: int
    """First row, in pixels of 10 m from the source's upper edge."""
    col: int
    """First column, likewise."""
    factor: int
    """Pixels of 10 m in one of the source, a side."""
    size_px: int
    """H and W."""

    @property
    def window(self) -> Window:
        """Source pixels that hold the cell."""
        last = self.size_px - 1
        ends = [(start // self.factor, (start + last) // self.factor + 1) for start in (self.row, self.col)]
        return (*ends[0], *ends[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Source coordinates of a cell's pixel centres, for interpolation."""

    col: NDArray[np.float64]
    """Source columns, as `Centers.x`; the centre of the first is 0.5."""
    row: NDArray[np.float64]
    """Source rows."""
    size_px: int
    """H and W."""

    @property
    def window(self) -> Window:
        """What any kernel here touches: a continuous map takes the cell's edge to the edge of its image."""
        ends = [_range(each, self.size_px) for each in (self.row, self.col)]
        return (*ends[0], *ends[1])


def centers(cell: Cell, epsg: int) -> Centers:
    """Pixel centres of the cell in `epsg`.

    Between projections the coordinates are smooth, so few points give them all; where they are not (the antimeridian
    in degrees), which points between the nodes tell, every centre is transformed.
    """
    size = cell.size_px
    if epsg == cell.epsg:
        x, y = _own(cell, _pixels(size))
        return Centers(x=x[None, :], y=y[:, None], size_px=size)
    for count in _NODES:
        x, y = _moved(cell, epsg, _nodes(size, count))
        if count < size and _is_smooth(cell, epsg, (x, y)):
            return Centers(x=x, y=y, size_px=size)
    x, y = _moved(cell, epsg, _pixels(size))
    return Centers(x=x, y=y, size_px=size)


def locate(cell: Cell, epsg: int, transform: Affine6, *, known: dict[tuple[str, int], Centers]) -> Copy | Pixels:
    """Where `cell` lies in the image with `transform` in `epsg`.

    Args:
        cell: which.
        epsg: CRS of the image.
        transform: of the image.
        known: centres by cell id and CRS that were computed before; added to.
    """
    a, b, c, d, e, f = transform
    if epsg == cell.epsg and _is_on_grid(cell, transform):
        col, row = round((cell.left_m - c) / PIXEL_M), round((f - cell.top_m) / PIXEL_M)
        return Copy(row=row, col=col, factor=round(a / PIXEL_M), size_px=cell.size_px)
    if (cell.cell_id, epsg) not in known:
        known[cell.cell_id, epsg] = centers(cell, epsg)
    at = known[cell.cell_id, epsg]
    x, y = at.x - c, at.y - f
    if b == d == 0:
        return Pixels(col=x / a, row=y / e, size_px=at.size_px)
    determinant = a * e - b * d
    return Pixels(col=(e * x - b * y) / determinant, row=(a * y - d * x) / determinant, size_px=at.size_px)


def copy(source: NDArray[np.generic], place: Copy, origin: tuple[int, int]) -> tuple[NDArray[np.generic], Window]:
    """The source's own values on a cell.

    Args:
        source: (h, w) part of the image.
        place: where the cell lies in the image.
        origin: row and column of the image at which `source` begins.

    Returns:
        (H', W') values, and the window of the (H, W) chip that they fill: what lies inside `source`.
    """
    first_row, rows = _inside(place.row, place, start=origin[0], length=source.shape[0])
    first_col, cols = _inside(place.col, place, start=origin[1], length=source.shape[1])
    values = source[_span(rows), _span(cols)]
    if place.factor > 1:
        values = values.take(cols - cols[:1], axis=1).take(rows - rows[:1], axis=0)
    return values, (first_row, first_row + len(rows), first_col, first_col + len(cols))


def spread(at: NDArray[np.float64], size_px: int) -> NDArray[np.float64]:
    """Coordinates at every centre, where `at` has them at nodes; (1, W), (H, 1) and (H, W) stay as they are.

    Summed in a fixed order and not by a matrix product, whose last digit depends on the library and its threads.
    """
    if 1 in at.shape or len(at) == size_px:
        return at
    weights = _weights(size_px, len(at))
    rows = _combined(weights.T, at)
    return _combined(rows.T, weights.T)


def sample(
    source: NDArray[np.generic],
    row: NDArray[np.float64],
    col: NDArray[np.float64],
    *,
    valid: NDArray[np.bool_],
    nearest: bool,
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Values of `source` at places between its pixels.

    Args:
        source: (h, w) part of the image.
        row: rows relative to it, (H, W) or (H, 1).
        col: columns, (H, W) or (1, W).
        valid: (h, w) False where the source has no data; such pixels never enter a mean.
        nearest: take the pixel that holds the centre, as for classes.

    Returns:
        (H, W) values in the source's dtype, and (H, W) whether the pixel that holds the centre is valid; integers are
        rounded half up. Elsewhere the value is 0.
    """
    if nearest:
        good = _holders(valid, row, col)
        return np.where(good, _holders(source, row, col), np.zeros((), source.dtype)), good
    mean, whole = _bilinear(source, row - 0.5, col - 0.5, valid)
    if np.issubdtype(source.dtype, np.integer):
        mean += 0.5
        np.floor(mean, out=mean)
    good = np.ones(mean.shape, bool) if whole else _holders(valid, row, col)
    return np.where(good, mean, 0).astype(source.dtype), good


def _own(cell: Cell, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the cell's own CRS at `at` pixels from its corner."""
    return cell.left_m + at * PIXEL_M, cell.top_m - at * PIXEL_M


def _moved(cell: Cell, epsg: int, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(k, k) x and y in `epsg` at `at` pixels from the cell's corner, down and to the right."""
    x, y = transformer(cell.epsg, epsg).transform(*np.meshgrid(*_own(cell, at)))
    return np.asarray(x), np.asarray(y)


def _is_on_grid(cell: Cell, transform: Affine6) -> bool:
    a, b, c, d, e, f = transform
    factor = a / PIXEL_M
    offsets = ((cell.left_m - c) / PIXEL_M, (cell.top_m - f) / PIXEL_M)
    whole = (factor, *offsets)
    square = b == d == 0 and e == -a and factor >= 1 - _ON_GRID_PX
    return square and all(abs(value - round(value)) < _ON_GRID_PX for value in whole)


def _inside(first: int, place: Copy, *, start: int, length: int) -> tuple[int, NDArray[np.intp]]:
    """The first pixel of a cell's side that lies inside a source, and where each that does lies in it."""
    at = (first + np.arange(place.size_px)) // place.factor - start
    begin, end = np.searchsorted(at, (0, length)).tolist()
    return begin, at[begin:end]


def _span(at: NDArray[np.intp]) -> slice:
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0)


def _pixels(size_px: int) -> NDArray[np.float64]:
    """(size,) centres of all pixels of a side, in pixels from the corner."""
    return np.arange(size_px, dtype=np.float64) + 0.5


def _nodes(size_px: int, count: int) -> NDArray[np.float64]:
    """(k,) Chebyshev points from the first pixel's centre to the last one's, in pixels from the corner."""
    return np.asarray(0.5 + (size_px - 1) * (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2)


def _lagrange(nodes: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) weights of the values at `nodes` (k,) in those at `at` (n,)."""
    weights = np.ones((len(at), len(nodes)))
    for i, j in permutations(range(len(nodes)), 2):
        weights[:, i] *= (at - nodes[j]) / (nodes[i] - nodes[j])
    return weights


@cache
def _weights(size_px: int, count: int) -> NDArray[np.float64]:
    """(size, k) weights of the nodes' values in those of all pixels."""
    return _lagrange(_nodes(size_px, count), _pixels(size_px))


def _is_smooth(cell: Cell, epsg: int, known: tuple[NDArray[np.float64], NDArray[np.float64]]) -> bool:
    """Whether polynomials through the nodes' values `known` give the coordinates between them."""
    nodes = _nodes(cell.size_px, len(known[0]))
    between = (nodes[1:] + nodes[:-1]) / 2
    weights, pixel = _lagrange(nodes, between), max(float(np.ptp(at)) for at in known) / cell.size_px
    return all(
        float(np.abs(weights @ at @ weights.T - exact).max()) <= _TOLERANCE_PX * pixel
        for at, exact in zip(known, _moved(cell, epsg, between), strict=True)
    )


def _combined(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m): the sum over k of the outer products of `weights[k]` (n,) and `rows[k]` (m,)."""
    total: NDArray[np.float64] = weights[0][:, None] * rows[0]
    part = np.empty_like(total)
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        total += np.multiply(weight[:, None], row, out=part)
    return total


def _range(at: NDArray[np.float64], size_px: int) -> tuple[int, int]:
    """First source pixel that a kernel touches, and the one behind the last."""
    if 1 not in at.shape and len(at) != size_px:
        weights = _weights(size_px, len(at))
        at = _combined(weights.T, np.stack([at[0], at[-1], at[:, 0], at[:, -1]], axis=1))
    return int(np.floor(at.min() - 0.5)), int(np.floor(at.max() + 0.5)) + 1


def _clipped(at: NDArray[np.float64], length: int) -> NDArray[np.intp]:
    """Positions in a side that got an edge of one pixel; what lies outside is in the edge."""
    return (np.clip(at, -1, length) + 1).astype(np.intp)


def _holders(image: NDArray[Any], row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[Any]:
    """(H, W) the pixels that hold the places; 0 outside."""
    rows, cols = (_clipped(np.floor(at), length) for at, length in zip((row, col), image.shape, strict=True))
    taken: NDArray[Any] = np.pad(image, 1).ravel().take(rows * (image.shape[1] + 2) + cols, mode="clip")
    return taken


def _bilinear(
    source: NDArray[np.generic], row: NDArray[np.float64], col: NDArray[np.float64], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], bool]:
    """Mean of the four nearest pixels, weighted by overlap; those without data or outside have no weight.

    Also whether there were none of these: then half of the work does.
    """
    row0, col0 = np.floor(row), np.floor(col)
    shares = row - row0, col - col0
    height, width = source.shape
    if valid.all() and row0.min() >= 0 and col0.min() >= 0 and row0.max() < height - 1 and col0.max() < width - 1:
        corner = (row0 * width + col0).astype(np.intp)
        return _blend(source.astype(np.float64), corner, shares), True
    corner = _clipped(row0, height) * (width + 3) + _clipped(col0, width)
    weights, values = (np.pad(image, ((1, 2), (1, 2))).astype(np.float64) for image in (valid, source))
    values[weights == 0] = 0
    weight = _blend(weights, corner, shares)
    return _blend(values, corner, shares) / np.where(weight > 0, weight, 1), False


def _blend(
    image: NDArray[np.float64], corner: NDArray[np.intp], shares: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Between the pixels at `corner` (upper left, in the flat image), to its right and below."""
    down, right = shares
    flat, width = image.ravel(), image.shape[1]
    upper, lower = (
        _mixed(flat.take(first, mode="clip"), flat.take(first + 1, mode="clip"), right)
        for first in (corner, corner + width)
    )
    return _mixed(upper, lower, down)


def _mixed(first: NDArray[np.float64], second: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """`first` where `share` is 0, `second` where it is 1; in the memory of the first."""
    second -= first
    second *= share
    first += second
    return first
