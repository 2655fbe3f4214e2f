"""How well found groups agree with known ones (adjusted Rand index), and how well they part (silhouette)."""

import numpy as np
from numpy.typing import NDArray

from train.grouprec import sphere
from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

_SMALLEST = 1e-12


def adjusted_rand(one_N: Ints, other_N: Ints) -> float:
    """1 for equal partitions, about 0 for unrelated ones (Hubert and Arabie, 1985)."""
    table = np.unique(np.stack([one_N, other_N]), axis=1, return_counts=True)[1]
    both, first, second = (
        _pairs(counts)
        for counts in (table, np.unique(one_N, return_counts=True)[1], np.unique(other_N, return_counts=True)[1])
    )
    total = _pairs(np.array([len(one_N)]))
    expected = first * second / total if total else 0.0
    most = (first + second) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def silhouette(x_ND: Vectors, assignment_N: Ints, *, sample: int = 2000, seed: int = 0) -> float | None:
    """Mean of (b - a) / max(a, b), a and b the mean cosine distances to the own and to the nearest other group.

    Everything is over a sample, so memory is bounded whatever N is. Vectors assigned to -1 are left out, those alone in
    their group count 0; None for fewer than two groups.
    """
    taken = np.flatnonzero(assignment_N >= 0)
    if len(taken) > sample:
        taken = np.sort(np.random.default_rng(seed).choice(taken, sample, replace=False))
    unit_ND = sphere.units(x_ND[taken])
    return width(sphere.distances(unit_ND, unit_ND), assignment_N[taken])


def width(dis_NN: NDArray[np.float32], assignment_N: Ints) -> float | None:
    """The silhouette of groups under given distances; None for fewer than two groups."""
    _, own_N = np.unique(assignment_N, return_inverse=True)
    groups = int(own_N.max(initial=-1)) + 1
    if groups < 2:
        return None
    member_NG = np.eye(groups, dtype=np.float32)[own_N]
    sizes_G = member_NG.sum(axis=0)
    sums_NG = dis_NN @ member_NG
    rows = np.arange(len(own_N))
    inner_N = sums_NG[rows, own_N] / np.maximum(sizes_G[own_N] - 1, 1)
    outer_NG = sums_NG / sizes_G
    outer_NG[rows, own_N] = np.inf
    outer_N = outer_NG.min(axis=1)
    parts_N = (outer_N - inner_N) / np.maximum(np.maximum(inner_N, outer_N), _SMALLEST)
    return float(np.where(sizes_G[own_N] > 1, parts_N, 0).mean())


def _pairs(counts: Ints) -> float:
    return float((counts * (counts - 1) / 2).sum())
