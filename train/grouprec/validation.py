"""What is held out of training to choose an epoch by."""

import numpy as np

from train.grouprec import sampling
from train.grouprec.interactions import Cases, Dataset, Pairs
from train.grouprec.tables import hold_out

_USERS = 10_000
"""Whose held-out item decides, at most."""
_NEGATIVES = 100


def split(data: Dataset, seed: int) -> tuple[Pairs, Cases | None]:
    """Training positives, and held-out ones of some users among other items; None where nobody has two.

    The other items are such as the test has: where negatives are listed, any at all, training items among them, as in
    both benchmarks; otherwise items that the user lacks.
    """
    random, positives = np.random.default_rng((seed, 0x5E1EC7)), data.user_items
    cases, kept = hold_out(positives, seed=seed)
    chosen = np.sort(random.permutation(len(cases))[:_USERS])
    chosen = chosen[positives.counts[cases.ids_R[chosen]] < positives.n_columns]
    if not len(chosen):
        return positives, None
    users, own = np.repeat(cases.ids_R[chosen], _NEGATIVES), np.repeat(cases.positives_R[chosen], _NEGATIVES)
    if data.user_cases.negatives_RN.size:
        drawn = (own + random.integers(1, positives.n_columns, len(own))) % positives.n_columns
    else:
        drawn = sampling.unknown(positives, users, random)
    return kept, Cases(
        ids_R=cases.ids_R[chosen], positives_R=cases.positives_R[chosen], negatives_RN=drawn.reshape(-1, _NEGATIVES)
    )
