"""The warp against ten lines for one pixel at a time, and against GDAL at its most exact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from ingest.areas.grid import Affine6, Cell, corner_cell
from ingest.pixels.warp import Copy, Pixels, centers, copy, locate, sample, spread

pytestmark = pytest.mark.ingest
Cells = Callable[..., Cell]


def _plain(source: Any, valid: Any, row: float, col: float) -> tuple[float, bool]:
    """One bilinear value, by the definition."""
    height, width = source.shape
    if not (0 <= row < height and 0 <= col < width and valid[int(row), int(col)]):
        return 0.0, False
    total = weights = 0.0
    for i in range(height):
        for j in range(width):
            weight = max(0, 1 - abs(row - i - 0.5)) * max(0, 1 - abs(col - j - 0.5)) * valid[i, j]
            total += weight * source[i, j]
            weights += weight
    return total / weights, True


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.lists(st.tuples(st.floats(-2, 8), st.floats(-2, 8)), min_size=1, max_size=12),
    st.sampled_from(["f8", "f4", "u2"]),
)
def test_bilinear_is_a_plain_loop(seed: int, shape: tuple[int, int], points: list, dtype: str) -> None:
    random = np.random.default_rng(seed)
    source = (random.random(shape) * 5000).astype(dtype)
    valid = random.random(shape) < 0.8
    row, col = np.array(points).T.reshape(2, 1, -1)
    found, good = sample(source, row, col, valid=valid, nearest=False)
    assert found.dtype == source.dtype
    for i, (r, c) in enumerate(points):
        value, is_good = _plain(source.astype(float), valid, r, c)
        assert good[0, i] == is_good
        if dtype == "u2":
            assert abs(float(found[0, i]) - np.floor(value + 0.5)) <= (abs((value + 0.5) % 1) < 1e-6)
        else:
            assert_allclose(found[0, i], value, rtol=1e-5, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.floats(-2, 8), st.floats(-2, 8)), min_size=1, max_size=12))
def test_nearest_is_the_pixel_that_holds_the_point(seed: int, points: list) -> None:
    random = np.random.default_rng(seed)
    source, valid = random.integers(1, 99, (5, 6), dtype=np.uint8), random.random((5, 6)) < 0.8
    row, col = np.array(points).T.reshape(2, 1, -1)
    found, good = sample(source, row, col, valid=valid, nearest=True)
    for i, (r, c) in enumerate(points):
        inside = 0 <= r < 5 and 0 <= c < 6 and valid[int(r), int(c)]
        assert good[0, i] == inside
        assert found[0, i] == (source[int(r), int(c)] if inside else 0)


def test_a_plane_is_kept_exactly() -> None:
    rows, cols = np.mgrid[0:20, 0:20] + 0.5
    random = np.random.default_rng(0)
    row, col = random.uniform(0.5, 19.5, (2, 10, 10))
    found, good = sample(3 * rows - 7 * cols, row, col, valid=np.ones((20, 20), bool), nearest=False)
    assert good.all()
    assert_allclose(found, 3 * row - 7 * col, atol=1e-10)


@pytest.mark.parametrize("size_px", [8, 16, 264, 2048])
@pytest.mark.parametrize("epsg", [32632, 32633, 4326, 3035, 3857])
def test_centres_are_pixel_centres(epsg: int, size_px: int, make_cell: Cells) -> None:
    cell = make_cell(3, 5, size_px)
    found = centers(cell, epsg)
    xs, ys = (np.broadcast_to(spread(at, size_px), (size_px, size_px)) for at in (found.x, found.y))
    col, row = (each.ravel() for each in np.meshgrid(*[np.arange(0, size_px, max(1, size_px // 97))] * 2))
    forward = Transformer.from_crs(32633, epsg, always_xy=True)
    x, y = forward.transform(cell.left_m + col * 10 + 5, cell.top_m - row * 10 - 5)
    pixel = max(np.ptp(x), np.ptp(y)) / size_px
    assert_allclose(xs[row, col], x, rtol=0, atol=1e-6 * pixel)
    assert_allclose(ys[row, col], y, rtol=0, atol=1e-6 * pixel)


def test_centres_across_the_antimeridian_are_each_transformed() -> None:
    cell = corner_cell(32601, 165000.0, 2000.0, 264)
    xs = spread(centers(cell, 4326).x, 264)
    want = Transformer.from_crs(32601, 4326, always_xy=True)
    x, _ = want.transform(165000 + 10 * np.arange(264) + 5, np.full(264, 2000.0 - 5))
    assert x.min() < -179, "the cell must cross it"
    assert x.max() > 179
    assert_array_equal(xs[0], x)


def test_few_points_give_all_coordinates(make_cell: Cells) -> None:
    assert centers(make_cell(0, 0, 264), 32632).x.shape == (4, 4)


def _located(cell: Cell, epsg: int, transform: Any) -> Copy | Pixels:
    return locate(cell, epsg, tuple(transform)[:6], known={})


@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from([0.0, 0.3, -1.0]), st.sampled_from([32633, 32634]))
def test_locate_inverts_the_affine(b: float, d: float, turn: float, epsg: int) -> None:
    cell = corner_cell(32633, 500040.0, 5300040.0, 24)
    transform = Affine(10, b, 499000, d, -20 + turn, 5400000)
    at, pixels = centers(cell, epsg), _located(cell, epsg, transform)
    assert isinstance(pixels, Pixels)
    rows, cols, x, y = (spread(each, 24) for each in (pixels.row, pixels.col, at.x, at.y))
    assert_allclose(transform.a * cols + b * rows + transform.c, np.broadcast_to(x, (24, 24)), rtol=1e-12)
    assert_allclose(d * cols + transform.e * rows + transform.f, np.broadcast_to(y, (24, 24)), rtol=1e-12)
    row0, row1, col0, col1 = pixels.window
    assert row0 <= rows.min() - 0.5
    assert rows.max() + 0.5 <= row1
    assert col0 <= cols.min() - 0.5
    assert cols.max() + 0.5 <= col1
    assert (row1 - row0, col1 - col0) <= (rows.max() - rows.min() + 4, cols.max() - cols.min() + 4)


@pytest.mark.parametrize(
    ("transform", "epsg", "on_grid"),
    [
        ((10, 0, 500040, 0, -10, 5300040), 32633, True),
        ((20, 0, 500040, 0, -20, 5300040), 32633, True),
        ((20, 0, 500030, 0, -20, 5300050), 32633, True),  # whole 10 m pixels, each in one of 20 m
        ((60, 0, 499980, 0, -60, 5300100), 32633, True),
        ((10, 0, 500040.005, 0, -10, 5300040), 32633, True),  # a rounded origin
        ((10, 0, 500040.5, 0, -10, 5300040), 32633, False),
        ((20, 0, 500045, 0, -20, 5300040), 32633, False),
        ((15, 0, 500040, 0, -15, 5300040), 32633, False),
        ((5, 0, 500040, 0, -5, 5300040), 32633, False),
        ((10, 0, 500040, 0, -20, 5300040), 32633, False),
        ((10, 1e-3, 500040, 0, -10, 5300040), 32633, False),
        ((10, 0, 500040, 0, -10, 5300040), 32632, False),
        ((10, 0, 500040, 0, 10, 5300040), 32633, False),
    ],
)
def test_on_grid(transform: Affine6, epsg: int, on_grid: bool, make_cell: Cells) -> None:
    cell = make_cell()
    assert isinstance(_located(cell, epsg, transform), Copy) == on_grid


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 6]),
    st.tuples(st.integers(-30, 60), st.integers(-30, 60)),
    st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_on_the_grid_a_chip_is_the_source_repeated(
    factor: int, corner: tuple[int, int], origin: tuple[int, int]
) -> None:
    """From any part of the image, for cells that reach outside it, and that begin inside a larger pixel."""
    cell = corner_cell(32633, 500040.0 + 10 * corner[1], 5300040.0 - 10 * corner[0], 24)
    whole = np.random.default_rng(0).integers(1, 9999, (11, 9), dtype=np.uint16)
    place = _located(cell, 32633, (10.0 * factor, 0, 500040, 0, -10.0 * factor, 5300040))
    assert isinstance(place, Copy)
    values, (row0, row1, col0, col1) = copy(whole[origin[0] :, origin[1] :], place, origin)
    found = np.zeros((24, 24), np.uint16)
    found[row0:row1, col0:col1] = values
    hidden = whole.copy()
    hidden[: origin[0]] = 0
    hidden[:, : origin[1]] = 0
    for i, j in np.ndindex(24, 24):
        row, col = (corner[0] + i) // factor, (corner[1] + j) // factor
        assert found[i, j] == (hidden[row, col] if 0 <= row < 11 and 0 <= col < 9 else 0)
    first_row, last_row, first_col, last_col = place.window
    assert (first_row, first_col) == (corner[0] // factor, corner[1] // factor)
    assert (last_row, last_col) == ((corner[0] + 23) // factor + 1, (corner[1] + 23) // factor + 1)


def _gdal(path: Path, cell: Cell) -> NDArray[Any]:
    """GDAL's bilinear value at every pixel centre: no approximation, no widened kernel."""
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            crs=cell.epsg,
            transform=Affine(*cell.transform),
            width=cell.size_px,
            height=cell.size_px,
            resampling=Resampling.bilinear,
            tolerance=1e-6,
            XSCALE=1,
            YSCALE=1,
        ) as vrt,
    ):
        return vrt.read(1)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize(
    ("epsg", "step"), [(32633, (10, 10)), (32633, (20, 20)), (32632, (10, 10)), (4326, (0.00013, 0.00009))]
)
def test_gdal_agrees(*, epsg: int, step: tuple[float, float], dtype: str, tmp_path: Path, make_cell: Cells) -> None:
    cell = make_cell(4, 6, 60)
    x, y = Transformer.from_crs(cell.epsg, epsg, always_xy=True).transform(cell.left_m, cell.top_m)
    transform: Affine6 = (step[0], 0, x - 40.27 * step[0], 0, -step[1], y + 40.61 * step[1])
    random = np.random.default_rng(1)
    source = random.integers(1, 5000, (140, 140)).astype(dtype)
    source[random.random(source.shape) < 0.03] = 0
    source[60:70, 40:60] = 0
    path = tmp_path / "source.tif"
    profile = {"driver": "GTiff", "height": 140, "width": 140, "count": 1, "dtype": dtype, "nodata": 0, "crs": epsg}
    with rasterio.open(path, "w", transform=Affine(*transform), **profile) as file:
        file.write(source, 1)
    pixels = _located(cell, epsg, transform)
    assert isinstance(pixels, Pixels)
    ours, good = sample(source, spread(pixels.row, 60), spread(pixels.col, 60), valid=source != 0, nearest=False)
    theirs = _gdal(path, cell)
    assert good.mean() > 0.7, "the test image must lie under the cell"
    assert_array_equal(theirs != 0, good)
    if dtype == "uint16":
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert (ours == theirs).mean() > 0.999
    else:
        assert_allclose(ours, theirs, rtol=2e-4, atol=2e-2)
