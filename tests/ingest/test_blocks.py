"""Each block that a chip needs is read once, no other, and it is held while a chip needs it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.pixels.blocks import rectangles, strips, touch

pytestmark = pytest.mark.ingest
SPANS = st.tuples(st.integers(-20, 110), st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(SPANS, SPANS), max_size=12),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_every_needed_pixel_is_held_and_every_block_read_once(
    spans: list, shape: tuple[int, int], block: tuple[int, int]
) -> None:
    windows = [(row, row + height, col, col + width) for (row, height), (col, width) in spans]
    image = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
    reads, held, seen = np.zeros(shape, int), np.zeros(shape, int), []
    bottom = 0
    for strip in strips(windows, shape=shape, block=block):
        row0, row1, col0, col1 = strip.window
        assert bottom <= row1, "strips go down"
        held[:row0] = 0  # what lies above is let go
        for r0, r1, c0, c1 in strip.reads:
            assert row0 <= r0 < r1 <= row1
            assert col0 <= c0 < c1 <= col1
            reads[r0:r1, c0:c1] += 1
            held[r0:r1, c0:c1] = image[r0:r1, c0:c1]
        for i in strip.members:
            r0, r1, c0, c1 = (max(0, edge) for edge in windows[i])
            np.testing.assert_array_equal(held[r0:r1, c0:c1], image[r0:r1, c0:c1])
        seen += strip.members
        bottom = row1
    is_inside = [r1 > 0 and r0 < shape[0] and c1 > 0 and c0 < shape[1] for r0, r1, c0, c1 in windows]
    assert sorted(seen) == np.flatnonzero(is_inside).tolist()
    _, touched = touch(windows, shape=shape, block=block)
    wanted = np.zeros(shape, int)
    for row, col in np.argwhere(touched).tolist():
        wanted[row * block[0] : (row + 1) * block[0], col * block[1] : (col + 1) * block[1]] = 1
    np.testing.assert_array_equal(reads, wanted)
    for r0, r1, c0, c1 in (windows[i] for i in seen):
        assert wanted[max(0, r0) : r1, max(0, c0) : c1].all()
    assert wanted.sum() == 0 or touched.sum() <= sum(
        (-(-(r1 - r0) // block[0]) + 1) * (-(-(c1 - c0) // block[1]) + 1) for r0, r1, c0, c1 in windows
    )


@given(st.integers(0, 2**16 - 1))
def test_rectangles_tile_what_is_wanted(bits: int) -> None:
    wanted = np.array([bits >> i & 1 for i in range(16)], bool).reshape(4, 4)
    covered = np.zeros((4, 4), int)
    for row0, row1, col0, col1 in rectangles(wanted):
        covered[row0:row1, col0:col1] += 1
    np.testing.assert_array_equal(covered, wanted)


def test_whole_rows_become_one_rectangle() -> None:
    assert rectangles(np.ones((3, 5), bool)) == [(0, 3, 0, 5)]
