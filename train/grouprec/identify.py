"""Users' vectors → groups: by GIM, HDBSCAN or k-means, then small groups dropped and everyone put to the nearest.

The same vectors, configuration and seed give the same groups, on one thread.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from train.grouprec import gim, hdbscan, kmeans, sphere
from train.grouprec.gim import GimConfig
from train.grouprec.interactions import Ints
from train.grouprec.names import Identifier
from train.grouprec.sphere import Vectors
from train.grouprec.threads import one_thread

_SAMPLE = 4096
"""Vectors that HDBSCAN is run on: it takes 3 s for them, and four times as long for twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyConfig:
    """How groups are found."""

    identifier: Identifier = "gim"
    """`gim` and `hdbscan` find the number of groups; `kmeans` is told, or takes the best silhouette."""
    gim: GimConfig = field(default_factory=GimConfig)
    """Of `gim`."""
    groups: int | None = None
    """Of `kmeans`; None: by silhouette."""
    neighbours: int = 5
    """Of `hdbscan`: users that make a user's density."""
    smallest_share: float = 0.01
    """Of `hdbscan`: a cluster holds at least this share of the vectors, and at least `smallest` of them."""
    smallest: int = 5
    """Users. Groups with fewer are dropped, and their users join the nearest that stays."""
    warm_only: bool = True
    """Users without items are in no group: their vectors are noise. Source: itr.md, section 6, row 18."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoGroups:
    """Groups that were found."""

    centers_GD: Vectors
    """Their directions: means of unit vectors."""
    assignment_U: Ints
    """Group of each user, -1 for none."""

    @property
    def sizes(self) -> Ints:
        """(G,) Users of each."""
        return np.bincount(self.assignment_U[self.assignment_U >= 0], minlength=len(self.centers_GD))


@one_thread()
def identify(x_UD: Vectors, warm_U: NDArray[np.bool_], config: IdentifyConfig, *, seed: int) -> PseudoGroups:
    """The groups among users.

    Args:
        x_UD: users' vectors, of any length.
        warm_U: who has items.
        config: how groups are found.
        seed: of all that is drawn.
    """
    users = np.flatnonzero(warm_U) if config.warm_only else np.arange(len(x_UD))
    unit_ND = sphere.units(x_UD[users])
    found = _centers(unit_ND, config, np.random.default_rng(seed))
    assignment_U = np.full(len(x_UD), -1, np.int64)
    if len(found):
        found, assignment_U[users] = _settled(unit_ND, found, config.smallest)
    return PseudoGroups(centers_GD=found, assignment_U=assignment_U)


def drifted(
    before: PseudoGroups, x_UD: Vectors, changed_U: NDArray[np.bool_], config: IdentifyConfig, *, seed: int
) -> PseudoGroups:
    """The groups of the day after: only users that changed are looked at, and no group disappears.

    Those no farther from a group than its farthest unchanged member join it; among the rest new groups are looked for.

    Args:
        before: the groups of the day before, over as many users or fewer.
        x_UD: vectors of all users of today.
        changed_U: whose interactions changed; users that are new must be among them.
        config: how groups are found.
        seed: of all that is drawn.
    """
    if not changed_U.any():
        return before
    if not len(before.centers_GD):
        return identify(x_UD, changed_U, config, seed=seed)
    unit_UD = sphere.units(x_UD)
    assignment_U = np.full(len(x_UD), -1, np.int64)
    assignment_U[: len(before.assignment_U)] = before.assignment_U
    assignment_U[changed_U] = -1
    changed = np.flatnonzero(changed_U)
    closest = sphere.nearest(unit_UD[changed], before.centers_GD)
    reach_G = _reach(unit_UD, assignment_U, before.centers_GD)
    stray = _apart(unit_UD[changed], before.centers_GD[closest]) > reach_G[closest]
    if stray.sum() < config.smallest:
        stray[:] = False
    assignment_U[changed[~stray]] = closest[~stray]
    fresh = _among_strays(unit_UD[changed[stray]], before.centers_GD, config, seed=seed)
    assignment_U[changed[stray]] = fresh + len(before.centers_GD)
    return PseudoGroups(centers_GD=_moved(unit_UD, assignment_U, before.centers_GD), assignment_U=assignment_U)


def _among_strays(unit_ND: Vectors, old_GD: Vectors, config: IdentifyConfig, *, seed: int) -> Ints:
    """(N,) New groups from 0. The old centres are there, too: they tell how far apart groups are."""
    if not len(unit_ND):
        return np.zeros(0, np.int64)
    vectors = np.concatenate([unit_ND, sphere.units(old_GD)])
    found = identify(vectors, np.ones(len(vectors), np.bool_), config, seed=seed).assignment_U[: len(unit_ND)]
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _moved(unit_UD: Vectors, assignment_U: Ints, old_GD: Vectors) -> Vectors:
    """(G, D) Means of the groups; those that nobody is left in stay where they were."""
    total = max(len(old_GD), int(assignment_U.max()) + 1)
    found = sphere.means(unit_UD, assignment_U, total)
    empty = np.flatnonzero(np.bincount(assignment_U[assignment_U >= 0], minlength=total) == 0)
    found[empty] = old_GD[empty]
    return found


def _centers(unit_ND: Vectors, config: IdentifyConfig, random: np.random.Generator) -> Vectors:
    if not len(unit_ND):
        return unit_ND
    if config.identifier == "gim":
        return gim.centers(unit_ND, config.gim, random)
    if config.identifier == "kmeans":
        return kmeans.centers(unit_ND, config.groups, random)
    return _by_hdbscan(unit_ND, config, random)


def _by_hdbscan(unit_ND: Vectors, config: IdentifyConfig, random: np.random.Generator) -> Vectors:
    """Centres of the clusters of the vectors, or of a sample of them; one group of all where there is no cluster."""
    if len(unit_ND) > _SAMPLE:
        unit_ND = unit_ND[np.sort(random.choice(len(unit_ND), _SAMPLE, replace=False))]
    smallest = max(config.smallest, round(config.smallest_share * len(unit_ND)), 2)
    labels = hdbscan.labels(unit_ND, smallest, config.neighbours)
    groups = int(labels.max()) + 1
    return sphere.means(unit_ND, labels, groups) if groups else unit_ND.mean(axis=0, keepdims=True)


def _settled(unit_ND: Vectors, centers_GD: Vectors, smallest: int) -> tuple[Vectors, Ints]:
    """Centres of groups that are large enough once everyone is put to the nearest, and who is where.

    The largest is kept whatever its size.
    """
    assigned = sphere.nearest(unit_ND, centers_GD)
    sizes = np.bincount(assigned, minlength=len(centers_GD))
    kept = sizes >= min(smallest, int(sizes.max()))
    centers_GD = centers_GD[kept]
    return centers_GD, sphere.nearest(unit_ND, centers_GD)


def _reach(unit_UD: Vectors, assignment_U: Ints, centers_GD: Vectors) -> NDArray[np.float32]:
    """(G,) Cosine distance of the farthest member, 0 for a group without one."""
    reach = np.zeros(len(centers_GD), np.float32)
    members = np.flatnonzero(assignment_U >= 0)
    np.maximum.at(reach, assignment_U[members], _apart(unit_UD[members], centers_GD[assignment_U[members]]))
    return reach


def _apart(unit_ND: Vectors, center_ND: Vectors) -> NDArray[np.float32]:
    found: NDArray[np.float32] = 1 - np.einsum("nd,nd->n", unit_ND, sphere.units(center_ND))
    return found
