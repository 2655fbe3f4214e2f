"""The two losses that need no labels: pull users to centres and centres apart, and fit what pseudo-groups like.

Axes: U users, I items, G centres, D width, Z non-zero targets.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.errors import UsageError
from train.grouprec import sphere
from train.grouprec.identify import PseudoGroups
from train.grouprec.interactions import Ints, Pairs
from train.grouprec.sphere import Vectors

Pull = Literal["nearest", "all"]
Membership = Literal["nearest", "near_mean", "far_mean"]
"""The nearest centre · all nearer than the mean distance, as printed · all farther, as the released code has it."""
Target = Literal["rate", "count", "binary"]
"""Share of the members that have the item · their number, as printed · whether one has, as in the released code."""
_MOST_MEMBERSHIPS = 1 << 28
"""Booleans. Users times centres, of which about half are memberships unless they are the nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretextConfig:
    """Which losses."""

    pull: Pull = "nearest"
    """Users are pulled to their own centre, or, as printed, to all of them alike."""
    pull_weight: float = 0.1
    """a. Of pull and repulsion."""
    membership: Membership = "nearest"
    """Who is in a pseudo-group."""
    target: Target = "rate"
    """What a pseudo-group likes."""
    fit_weight: float = 1.0
    """b. Of fitting it."""
    diagonal: bool = False
    """The repulsion is averaged over a centre's distance to itself, too, as in the released code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Q', without its zeros."""

    groups_Z: Tensor
    """Centres."""
    items_Z: Tensor
    """Items."""
    values_Z: Tensor
    """How much each centre's group likes each item."""


def pull_and_repulsion(user_UD: Tensor, center_GD: Tensor, own_U: Tensor, config: PretextConfig) -> Tensor:
    """L_PAR in O((U + G) D): distances of unit vectors are inner products of means.

    Args:
        user_UD: vectors of the users that are pulled.
        center_GD: at least one centre; one has nothing to repulse.
        own_U: centre of each user, for `pull="nearest"`.
        config: which loss.

    Source: itr.md, section 3.1.
    """
    unit_UD, unit_GD = normalize(user_UD, dim=1), normalize(center_GD, dim=1)
    count, mean_D = len(unit_GD), unit_GD.mean(dim=0)
    lengths_U, lengths_G = unit_UD.square().sum(dim=1), unit_GD.square().sum(dim=1)
    if config.pull == "nearest":
        towards = (unit_UD * unit_GD[own_U]).sum(dim=1).mean()
        ends = lengths_U.mean() + lengths_G[own_U].mean()
    else:
        towards, ends = unit_UD.mean(dim=0) @ mean_D, lengths_U.mean() + lengths_G.mean()
    pull = ends - 2 * towards
    if count < 2:
        return pull
    apart = 2 * count * lengths_G.sum() - 2 * count**2 * mean_D.square().sum()
    return pull - apart / (count**2 if config.diagonal else count * (count - 1))


def fit_groups(center_GD: Tensor, item_ID: Tensor, targets: Targets) -> Tensor:
    """L_PGR = |G I' - Q'|^2 / (G I) in O((G + I) D^2 + Z): the zeros of Q' are never written down.

    Source: itr.md, section 3.2.
    """
    square = ((center_GD.T @ center_GD) * (item_ID.T @ item_ID)).sum()
    cross = (targets.values_Z * (center_GD[targets.groups_Z] * item_ID[targets.items_Z]).sum(dim=1)).sum()
    return (square - 2 * cross + targets.values_Z.square().sum()) / (len(center_GD) * len(item_ID))


def make_targets(
    groups: PseudoGroups, user_UD: NDArray[np.float32], positives: Pairs, config: PretextConfig
) -> Targets:
    """What the members of each pseudo-group have.

    Args:
        groups: centres, and the nearest of each user.
        user_UD: users' vectors, for memberships by distance.
        positives: (U, I) training positives.
        config: who is a member, and what counts.
    """
    users, items = positives.split()
    if config.membership == "nearest":
        own = groups.assignment_U[users]
        keys, counts = _counted(own[own >= 0], items[own >= 0], positives.n_columns)
        sizes = groups.sizes
    else:
        member_UG = _members(groups.centers_GD, user_UD, config.membership)
        keys, counts = _counted_by_group(member_UG, users, items, positives.n_columns)
        sizes = member_UG.sum(axis=0)
    at, liked = keys // positives.n_columns, keys % positives.n_columns
    values = {"rate": counts / np.maximum(sizes[at], 1), "count": counts, "binary": np.ones(len(counts))}
    return Targets(
        groups_Z=torch.from_numpy(at),
        items_Z=torch.from_numpy(liked),
        values_Z=torch.from_numpy(values[config.target].astype(np.float32)),
    )


def _counted(groups: Ints, items: Ints, n_items: int) -> tuple[Ints, Ints]:
    keys, counts = np.unique(groups * n_items + items, return_counts=True)
    return keys, counts


def _counted_by_group(member_UG: NDArray[np.bool_], users: Ints, items: Ints, n_items: int) -> tuple[Ints, Ints]:
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for group in range(member_UG.shape[1]):
        had = np.bincount(items[member_UG[users, group]], minlength=n_items)
        keys.append(group * n_items + np.flatnonzero(had))
        counts.append(had[had > 0])
    return np.concatenate(keys), np.concatenate(counts)


def _members(center_GD: Vectors, user_UD: Vectors, rule: Membership) -> NDArray[np.bool_]:
    """(U, G) Whether a user is nearer (or farther) than the mean over all pairs.

    Printed are Euclidean distances of unit vectors; the released code has their squares, and the other side.

    Raises:
        UsageError: too many pairs.
    """
    if len(user_UD) * len(center_GD) > _MOST_MEMBERSHIPS:
        raise UsageError(
            f"{len(user_UD)} users times {len(center_GD)} centres exceed {_MOST_MEMBERSHIPS} memberships. "
            "Use --mode recommended, where a user is in one group."
        )
    square_UG = 2 * sphere.distances(sphere.units(user_UD), sphere.units(center_GD))
    if rule == "far_mean":
        far: NDArray[np.bool_] = square_UG > square_UG.mean()
        return far
    distance_UG = np.sqrt(square_UG)
    near: NDArray[np.bool_] = distance_UG < distance_UG.mean()
    return near
