"""Directions: unit vectors, cosine distances, the nearest of some centres; never more than a few megabytes at once.

Axes: N vectors, S others, G centres, D width.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from train.grouprec.interactions import Ints

Vectors = NDArray[np.float32]
CHUNK_BYTES = 8 << 20
"""Of a block of distances: it stays in the cache, which halves the time of 128 MB blocks."""
_SHORTEST = 1e-12


def units(x_ND: Vectors) -> Vectors:
    """Each vector with length 1; zero vectors stay zero, at distance 1 from everything."""
    lengths = np.linalg.norm(x_ND, axis=1, keepdims=True)
    found: Vectors = (x_ND / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return found


def distances(x_ND: Vectors, y_SD: Vectors) -> NDArray[np.float32]:
    """(N, S) Cosine distances of unit vectors, from 0 to 2.

    Source: itr.md, section 2.2.
    """
    found: NDArray[np.float32] = x_ND @ y_SD.T
    np.subtract(1, found, out=found)
    return np.clip(found, 0, 2, out=found)


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows whose blocks of float32 stay below `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES // (4 * max(columns, 1)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def nearest(x_ND: Vectors, centers_GD: Vectors) -> Ints:
    """(N,) The centre in the most similar direction, whatever the lengths; the first of equals."""
    found, units_DG = np.empty(len(x_ND), np.int64), units(centers_GD).T
    for rows in chunks(len(x_ND), len(centers_GD)):
        np.argmax(x_ND[rows] @ units_DG, axis=1, out=found[rows])
    return found


def means(x_ND: Vectors, assignment_N: Ints, groups: int) -> Vectors:
    """(G, D) Mean vector of each group; those assigned to -1 are in none, empty groups are zero."""
    taken = assignment_N >= 0
    own, x_ND = assignment_N[taken], x_ND[taken]
    sums = np.stack([np.bincount(own, weights=column, minlength=groups) for column in x_ND.T], axis=1)
    return (sums / np.maximum(np.bincount(own, minlength=groups), 1)[:, None]).astype(np.float32)
