"""Data with groups that are known: points around directions, and users who like what their group likes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.grouprec.interactions import Dataset, Ints, Names, Pairs, no_cases
from train.grouprec.tables import hold_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What to plant."""

    users: int
    """U."""
    items: int
    """I."""
    groups: int
    """G; sizes are equal up to one."""
    per_user: int
    """Items drawn for each user; repeated draws are one."""
    noise: float = 0.2
    """Share of the draws that ignore the group."""
    seed: int = 0
    """Of everything."""


def points(sizes: tuple[int, ...], noise: float, *, width: int = 32, seed: int = 0) -> tuple[NDArray[np.float32], Ints]:
    """Points around random directions of length 1.

    Args:
        sizes: points of each group.
        noise: expected distance of a point from its direction.
        width: d.
        seed: of everything.

    Returns:
        (U, d) points in random order, and (U,) their groups.
    """
    random = np.random.default_rng(seed)
    centers = random.standard_normal((len(sizes), width))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    groups = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    scattered = centers[groups] + noise / np.sqrt(width) * random.standard_normal((len(groups), width))
    return scattered.astype(np.float32), groups


def dataset(plan: Planted) -> tuple[Dataset, Ints]:
    """Interactions of users whose groups prefer items of their own, a few of them far more than the rest.

    Group g prefers every G-th item, from g on; the r-th of them is drawn about as often as 1/r says.

    Returns:
        The data set, its membership the planted one, and (U,) the planted groups.
    """
    random = np.random.default_rng(plan.seed)
    groups = random.permutation(np.arange(plan.users) % plan.groups)
    users = np.repeat(np.arange(plan.users), plan.per_user)
    liked = groups[users] + plan.groups * _ranks(random, len(users), plan.items // plan.groups)
    items = np.where(random.random(len(users)) < plan.noise, random.integers(0, plan.items, len(users)), liked)
    cases, kept = hold_out(Pairs.of(users, items, (plan.users, plan.items)), seed=plan.seed)
    data = Dataset(
        user_items=kept,
        members=Pairs.of(groups, np.arange(plan.users), (plan.groups, plan.users)),
        group_items=Pairs.of(np.zeros(0, np.int64), np.zeros(0, np.int64), (plan.groups, plan.items)),
        user_cases=cases,
        group_cases=no_cases(),
        names=Names(users=np.arange(plan.users), items=np.arange(plan.items), groups=np.arange(plan.groups)),
    )
    return data, groups


def _ranks(random: np.random.Generator, draws: int, choices: int) -> Ints:
    """Numbers below `choices`, the density of r falling as 1/(r + 1): the exponential of a uniform number."""
    drawn: Ints = np.exp(random.random(draws) * np.log(choices + 1)).astype(np.int64) - 1
    return np.clip(drawn, 0, choices - 1)
