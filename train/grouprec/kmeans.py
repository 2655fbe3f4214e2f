"""k-means on directions; where the number of groups is not given, the one with the best silhouette."""

import numpy as np

from train.grouprec import agreement, sphere
from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

SAMPLE = 2048
"""Vectors that centres are found on, where there are more."""
MOST = 64
"""Groups that are tried where their number is not given."""
_ROUNDS = 30
_RESTARTS = 8
_QUICK = 5
"""Restarts while the number of groups is looked for."""


def centers(x_ND: Vectors, groups: int | None, random: np.random.Generator) -> Vectors:
    """(G, D) Means of the groups of some unit vectors.

    Args:
        x_ND: unit vectors, at least one.
        groups: G, at most N; None: from 2 to `MOST`, by silhouette.
        random: decides on the sample and on the seeds.
    """
    if len(x_ND) > SAMPLE:
        x_ND = x_ND[np.sort(random.choice(len(x_ND), SAMPLE, replace=False))]
    chosen = _by_silhouette(x_ND, random) if groups is None else min(groups, len(x_ND))
    return _best(x_ND, chosen, _RESTARTS, random)[0]


def _by_silhouette(x_ND: Vectors, random: np.random.Generator) -> int:
    """How many groups part best: numbers a third apart are tried, then those around the best one."""
    dis_NN = sphere.distances(x_ND, x_ND)
    widths: dict[int, float] = {}

    def attempt(groups: int) -> None:
        widths[groups] = agreement.width(dis_NN, _best(x_ND, groups, _QUICK, random)[1]) or 0.0

    most = min(MOST, len(x_ND) - 1)
    coarse = sorted({min(round(2 * 1.33**step), most) for step in range(14)}) if most >= 2 else [1]
    for groups in coarse:
        attempt(groups)
    at = coarse.index(max(widths, key=lambda groups: widths[groups]))
    for groups in range(coarse[max(at - 1, 0)] + 1, coarse[min(at + 1, len(coarse) - 1)]):
        if groups not in widths:
            attempt(groups)
    return max(widths, key=lambda groups: widths[groups])


def _best(x_ND: Vectors, groups: int, starts: int, random: np.random.Generator) -> tuple[Vectors, Ints]:
    """Of several starts, the one whose vectors lie nearest to their centres."""
    runs = [_lloyd(x_ND, _seeds(x_ND, groups, random)) for _ in range(starts)]
    return min(runs, key=lambda run: float(np.square(x_ND - run[0][run[1]]).sum()))


def _lloyd(x_ND: Vectors, found: Vectors) -> tuple[Vectors, Ints]:
    assigned = sphere.nearest(x_ND, found)
    for _ in range(_ROUNDS):
        filled = np.bincount(assigned, minlength=len(found)) > 0
        found = np.where(filled[:, None], sphere.means(x_ND, assigned, len(found)), found)
        before, assigned = assigned, sphere.nearest(x_ND, found)
        if np.array_equal(before, assigned):
            break
    return found, assigned


def _seeds(x_ND: Vectors, groups: int, random: np.random.Generator) -> Vectors:
    """k-means++: vectors drawn as often as they are far from those before; of a few draws the one that helps most."""
    far_N = np.ones(len(x_ND))
    chosen: list[int] = []
    for _ in range(groups):
        total = far_N.sum()
        share = far_N / total if total > 0 else None
        drawn = random.choice(len(x_ND), 2 + int(np.log(groups)), p=share)
        options = np.minimum(far_N, sphere.distances(x_ND[drawn], x_ND).astype(np.float64))
        best = int(np.argmin(options.sum(axis=1)))
        far_N = options[best]
        chosen.append(int(drawn[best]))
    return x_ND[chosen]
