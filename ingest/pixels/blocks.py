"""Which blocks of an image to read, in which order, so that each is read once and few are held. Pure: no file.

In: the windows that chips need. Out: strips, from the top down. A strip is a row of blocks and those below it that its
chips reach into; what the strip above has read of it is not read again, and blocks that no chip needs are not read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int, int, int]
"""Rows and columns (row0, row1, col0, col1) of an image, ends excluded; may reach outside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Rows that are held at one time."""

    window: Window
    """In pixels; whole blocks, inside the image."""
    reads: tuple[Window, ...]
    """In pixels; what to read of it. The rest was read for the strip above, or nobody needs it."""
    members: tuple[int, ...]
    """Positions of the windows that lie in it."""


def strips(windows: Sequence[Window], *, shape: tuple[int, int], block: tuple[int, int]) -> Iterator[Strip]:
    """Strips that hold all of `windows` as far as they lie inside an image.

    Args:
        windows: in pixels.
        shape: (H, W) of the image.
        block: (h, w) of its blocks.
    """
    held, touched = touch(windows, shape=shape, block=block)
    is_inside = held[:, 1] > 0
    if not is_inside.any():
        return
    left, right, read_to = int(held[is_inside, 2].min()), int(held[is_inside, 3].max()), 0
    for top in np.unique(held[is_inside, 0]).tolist():
        members = np.flatnonzero(is_inside & (held[:, 0] == top))
        start, read_to = max(top, read_to), max(read_to, int(held[members, 1].max()))
        found = rectangles(touched[start:read_to])
        yield Strip(
            window=_pixels((top, read_to, left, right), shape, block),
            reads=tuple(_pixels((start + r0, start + r1, c0, c1), shape, block) for r0, r1, c0, c1 in found),
            members=tuple(members.tolist()),
        )


def touch(
    windows: Sequence[Window], *, shape: tuple[int, int], block: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which blocks hold the windows.

    Returns:
        (n, 4) rows and columns of blocks for each window, 0 where it lies outside the image; and (R, C) whether any
        window needs a block.
    """
    (height, width), counts = block, [-(-size // step) for size, step in zip(shape, block, strict=True)]
    row0, row1, col0, col1 = np.array(windows, dtype=np.int64).reshape(-1, 4).T
    is_inside = (row0 < shape[0]) & (row1 > 0) & (col0 < shape[1]) & (col1 > 0)
    held = np.stack([row0 // height, -(-row1 // height), col0 // width, -(-col1 // width)], axis=1)
    held = held.clip(0, np.repeat(counts, 2)) * is_inside[:, None]
    touched = np.zeros(counts, bool)
    for row0, row1, col0, col1 in held.tolist():
        touched[row0:row1, col0:col1] = True
    return held, touched


def rectangles(wanted: NDArray[np.bool_]) -> list[Window]:
    """Rectangles that cover what is True, each once: runs of a row, joined to equal runs of the row above."""
    found: list[Window] = []
    above: dict[tuple[int, int], int] = {}
    for row, line in enumerate(wanted):
        edges = np.flatnonzero(np.diff(np.pad(line.astype(np.int8), 1))).tolist()
        runs = set(zip(edges[::2], edges[1::2], strict=True))
        found += [(start, row, *run) for run, start in above.items() if run not in runs]
        above = {run: above.get(run, row) for run in sorted(runs)}
    return found + [(start, len(wanted), *run) for run, start in above.items()]


def _pixels(blocks: Window, shape: tuple[int, int], block: tuple[int, int]) -> Window:
    row0, row1, col0, col1 = blocks
    height, width = block
    return row0 * height, min(row1 * height, shape[0]), col0 * width, min(col1 * width, shape[1])
