"""Among which items a held-out one is ranked: the listed negatives, the clean ones of them, or all items.

Axes: B rows of a batch, C candidates; candidate 0 is the held-out item.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.grouprec.interactions import Cases, Ints, Pairs
from train.grouprec.names import Protocol

_SCORES_AT_ONCE = 1 << 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some test rows."""

    ids_B: Ints
    """Users or groups."""
    items_BC: Ints
    """Items."""
    valid_BC: NDArray[np.bool_]
    """Whether a candidate counts."""


def batches(cases: Cases, known: Pairs, protocol: Protocol) -> Iterator[Batch]:
    """The rows with their candidates, a bounded number of scores at a time.

    Args:
        cases: test rows.
        known: training positives of users, or of groups.
        protocol: which candidates.
    """
    width = 1 + (known.n_columns if protocol == "full" else cases.negatives_RN.shape[1])
    step = max(1, _SCORES_AT_ONCE // width)
    for start in range(0, len(cases), step):
        part = cases.where(slice(start, start + step))
        yield _batch(part, known, protocol)


def _batch(cases: Cases, known: Pairs, protocol: Protocol) -> Batch:
    own_B1, ids_B1 = cases.positives_R[:, None], cases.ids_R[:, None]
    if protocol == "full":
        others_BN = np.broadcast_to(np.arange(known.n_columns), (len(cases), known.n_columns))
    else:
        others_BN = cases.negatives_RN
    valid_BN = np.ones(others_BN.shape, np.bool_)
    if protocol != "listed":
        valid_BN = (others_BN != own_B1) & ~known.has(ids_B1, others_BN)
    if protocol == "clean":
        valid_BN &= ~_repeats(others_BN)
    return Batch(
        ids_B=cases.ids_R,
        items_BC=np.concatenate([own_B1, others_BN], axis=1),
        valid_BC=np.concatenate([np.ones(own_B1.shape, np.bool_), valid_BN], axis=1),
    )


def _repeats(items_BN: Ints) -> NDArray[np.bool_]:
    """Whether an item stands further left in its row, too."""
    order_BN = np.argsort(items_BN, axis=1, kind="stable")
    sorted_BN = np.take_along_axis(items_BN, order_BN, axis=1)
    again_BN = np.zeros(items_BN.shape, np.bool_)
    np.put_along_axis(again_BN, order_BN[:, 1:], sorted_BN[:, 1:] == sorted_BN[:, :-1], axis=1)
    return again_BN
