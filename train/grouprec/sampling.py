"""An epoch of training pairs: every positive with items its user does not have, in random order.

An epoch is a pure function of (positives, seed, epoch), so a resumed run sees what an undisturbed one would have seen.
"""

from dataclasses import dataclass

import numpy as np

from train.grouprec.interactions import Ints, Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Pairs in the order in which they are learned from."""

    users_P: Ints
    """Users."""
    liked_P: Ints
    """Items that they have."""
    others_P: Ints
    """Items that they do not have."""


def epoch(positives: Pairs, negatives: int, *, seed: int, number: int) -> Epoch:
    """The pairs of one epoch: `negatives` for each positive.

    Args:
        positives: (U, I) what users have; those who have every item are left out.
        negatives: drawn for each positive, uniformly among what its user does not have.
        seed: of the run.
        number: of the epoch.
    """
    random = np.random.default_rng((seed, number))
    users, items = positives.split()
    usable = positives.counts[users] < positives.n_columns
    users, items = np.repeat(users[usable], negatives), np.repeat(items[usable], negatives)
    others = unknown(positives, users, random)
    order = random.permutation(len(users))
    return Epoch(users_P=users[order], liked_P=items[order], others_P=others[order])


def unknown(positives: Pairs, users: Ints, random: np.random.Generator) -> Ints:
    """An item for each user, uniform among those that it does not have; each must lack some.

    Draw t and take the t-th item that the user lacks: before it lie those of its own items before which it lacks t
    items or fewer. One binary search each, and nothing is drawn twice. Users in order make the search fast.
    """
    rows, own = positives.split()
    lacked_before = own - (np.arange(len(own)) - positives.starts[rows])
    drawn = (random.random(len(users)) * (positives.n_columns - positives.counts)[users]).astype(np.int64)
    ends = np.searchsorted(
        rows * positives.n_columns + lacked_before, users * positives.n_columns + drawn, side="right"
    )
    found: Ints = drawn + ends - positives.starts[users]
    return found
