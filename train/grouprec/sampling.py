"""An epoch of training pairs: every positive with items its user does not have, in random order.

An epoch is a pure function of (positives, seed, epoch), so a resumed run sees what an undisturbed one would have seen.
"""

from dataclasses import dataclass

import numpy as np

from train.grouprec.interactions import Ints, Pairs

_DRAWS = 50
"""How often what was refused is drawn again; then what a user lacks is listed and drawn from."""


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

    Draw, look the pairs up in the sorted keys, draw again those that were found. Users in order make the look-ups fast.
    """
    items = random.integers(0, positives.n_columns, len(users))
    bad = np.flatnonzero(positives.has(users, items))
    for _ in range(_DRAWS):
        if not len(bad):
            return items
        items[bad] = random.integers(0, positives.n_columns, len(bad))
        bad = bad[positives.has(users[bad], items[bad])]
    for at in bad.tolist():
        items[at] = random.choice(np.setdiff1d(np.arange(positives.n_columns), positives.row(int(users[at]))))
    return items
