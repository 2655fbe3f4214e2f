"""HR@K and NDCG@K of one held-out item among candidates of which some score the same.

A score that saturates makes ties, and whoever breaks them decides the figure: with 101 equal scores HR@5 is 1 where the
held-out item stands first and 0 where it stands last. The expected value over a random order is what the scores know.
Axes: R test rows, C candidates; candidate 0 is the held-out item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from train.grouprec.interactions import Ints

Floats = NDArray[np.floating]
Order = Literal["expected", "first", "last", "argsort"]
"""Random order · held-out item before its equals · behind them · as numpy's `argsort` happens to leave them."""
ORDERS: tuple[Order, ...] = ("expected", "first", "last", "argsort")
CUTS = (5, 10)
"""K."""
SUSPICIOUS = 0.005
"""A gap between `first` and `last` above it means that ties decide the figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the held-out items stand."""

    higher_R: Ints
    """Candidates that score strictly higher."""
    tied_R: Ints
    """Candidates that score the same, the held-out item included."""
    sorted_R: Ints
    """How many stand before it in numpy's default `argsort` of the negated scores, which is not stable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over test rows, of one order of ties."""

    hr: Mapping[str, float]
    """HR@K by K: share of rows whose item is among the first K."""
    ndcg: Mapping[str, float]
    """NDCG@K by K: 1/log2(rank + 1) where it is among the first K, else 0."""


def standing(scores_RC: Floats, valid_RC: NDArray[np.bool_]) -> Standing:
    """Count who stands before and beside candidate 0.

    Args:
        scores_RC: higher is better; candidate 0 is the held-out item.
        valid_RC: whether a candidate counts; candidate 0 always does.

    Raises:
        UsageError: a score is not finite; NaN would compare as worse than everything and win unnoticed.
    """
    if not np.isfinite(scores_RC).all():
        raise UsageError("scores are not finite: the training diverged. Use a lower --lr.")
    own_R1 = scores_RC[:, :1]
    shown_RC = np.where(valid_RC, scores_RC, -np.inf)
    order_RC = np.argsort(-shown_RC, axis=1)
    return Standing(
        higher_R=((scores_RC > own_R1) & valid_RC).sum(axis=1),
        tied_R=((scores_RC == own_R1) & valid_RC).sum(axis=1),
        sorted_R=np.argmin(order_RC, axis=1),
    )


def joined(parts: list[Standing]) -> Standing:
    """The standings of several batches of rows as one."""
    return Standing(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Standing.__dataclass_fields__}
    )


def hit(found: Standing, cut: int, order: Order) -> NDArray[np.float64]:
    """(R,) HR@K of each row.

    Source: itr.md, section 1: clip(K - h, 0, e) / e.
    """
    before, tied = _span(found, order)
    return np.clip(cut - before, 0, tied) / tied


def ndcg(found: Standing, cut: int, order: Order) -> NDArray[np.float64]:
    """(R,) NDCG@K of each row.

    Source: itr.md, section 1: the mean over the e places of 1/log2(rank + 1), 0 behind K.
    """
    before, tied = _span(found, order)
    gained = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, cut + 2)))])
    gain: NDArray[np.float64] = (gained[np.minimum(before + tied, cut)] - gained[np.minimum(before, cut)]) / tied
    return gain


def figures(found: Standing, order: Order) -> Figures:
    """Means over the rows, 0 where there are none."""
    rows = max(len(found.higher_R), 1)
    return Figures(
        hr={str(cut): float(hit(found, cut, order).sum()) / rows for cut in CUTS},
        ndcg={str(cut): float(ndcg(found, cut, order).sum()) / rows for cut in CUTS},
    )


def _span(found: Standing, order: Order) -> tuple[Ints, Ints]:
    """How many stand surely before the item, and among how many places it is drawn."""
    one = np.ones_like(found.tied_R)
    if order == "expected":
        return found.higher_R, found.tied_R
    if order == "argsort":
        return found.sorted_R, one
    return found.higher_R + (found.tied_R - 1 if order == "last" else 0), one
