"""A known shift is found, with its sign; nothing is invented where there is nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.pixels import coregister
from ingest.pixels.coregister import REACH_PX, SIGNIFICANT, estimate_shift

pytestmark = pytest.mark.ingest


def _ground(seed: int, size: int = 200) -> np.ndarray:
    """Fields: rectangles of one value each, the same for both sensors but in another contrast."""
    random = np.random.default_rng(seed)
    image = np.zeros((size, size))
    for _ in range(120):
        y, x = random.integers(0, size, 2)
        h, w = random.integers(8, 40, 2)
        image[y : y + h, x : x + w] = random.random()
    return image


def _chips(seed: int, dy: int, dx: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    ground, start = _ground(seed), 40
    s2 = np.stack([500 + 3000 * ground[start : start + size, start : start + size] * (1 + 0.1 * i) for i in range(12)])
    # what stands at (y, x) in S2 stands at (y + dy, x + dx) in S1
    moved = ground[start - dy : start - dy + size, start - dx : start - dx + size]
    noise = np.random.default_rng(seed + 1).normal(0, 0.5, (2, size, size))
    return (-20 + 10 * (1 - moved)[None] + noise).astype("<f4"), s2.astype("<u2")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(-5, 5), st.integers(-5, 5))
def test_a_known_shift_is_found(seed: int, dy: int, dx: int) -> None:
    found = estimate_shift(*_chips(seed, dy, dx))
    assert found is not None
    assert found[:2] == pytest.approx((dy, dx), abs=0.35)
    assert found[2] >= SIGNIFICANT


@pytest.mark.parametrize("seed", range(10))
def test_noise_against_noise_has_no_shift(seed: int) -> None:
    random = np.random.default_rng(seed)
    s1 = random.normal(-12, 3, (2, 96, 96)).astype("<f4")
    assert estimate_shift(s1, random.integers(1, 4000, (12, 96, 96), dtype=np.uint16)) is None


def test_holes_in_the_radar_are_survived() -> None:
    s1, s2 = _chips(3, 2, -3)
    s1[:, :4, :4] = np.nan
    found = estimate_shift(s1, s2)
    assert found is not None
    assert found[:2] == pytest.approx((2, -3), abs=0.5)


@pytest.mark.parametrize("what", ["flat s1", "flat s2", "small", "all nan"])
def test_where_nothing_can_be_said_there_is_none(what: str) -> None:
    s1, s2 = _chips(1, 0, 0)
    if what == "flat s1":
        s1[:] = -12
    if what == "flat s2":
        s2[:] = 700
    if what == "small":
        s1, s2 = s1[:, : 4 * REACH_PX - 1], s2[:, : 4 * REACH_PX - 1]
    if what == "all nan":
        s1[:] = np.nan
    assert estimate_shift(s1, s2) is None


def test_a_shift_beyond_reach_is_not_reported_as_the_edge() -> None:
    for seed in range(5):
        found = estimate_shift(*_chips(seed, 14, 0))
        assert found is None or abs(found[0]) < REACH_PX


@pytest.mark.parametrize("shape", [(32, 32), (33, 50)])
def test_edges_are_to_the_bit_those_of_numpys_own_functions(shape: tuple[int, int]) -> None:
    bands = np.random.default_rng(2).integers(1, 4000, (3, *shape), dtype=np.uint16)
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    blur = np.exp(-2 * (np.pi * coregister._SMOOTH_PX) ** 2 * (y**2 + x**2)).astype("f4")
    total = np.zeros(shape)
    for band in bands.astype("f4"):
        values = (band - band.mean(dtype="f8")).astype("f4")
        smooth = np.fft.irfft2(np.fft.rfft2(values / values.std(dtype="f8").astype("f4")) * blur, s=shape)
        rows, cols = np.gradient(smooth)
        total += np.sqrt(rows * rows + cols * cols)
    fade = np.outer(np.hanning(shape[0]), np.hanning(shape[1]))
    assert np.array_equal(coregister._edges(bands), (total - total.mean()) * fade)


@pytest.mark.parametrize("seed", [3, 4])
def test_rows_and_columns_are_alike(seed: int) -> None:
    """The mirror image across the diagonal has the mirrored shift, and edges of either direction count as much."""
    s1, s2 = _chips(seed, 3, -2)
    found, mirrored = estimate_shift(s1, s2), estimate_shift(s1.transpose(0, 2, 1), s2.transpose(0, 2, 1))
    assert found is not None
    assert mirrored is not None
    assert mirrored == pytest.approx((found[1], found[0], found[2]), abs=1e-3)
