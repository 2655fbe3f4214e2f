"""Means over seeds with confidence intervals of 95 percent."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""0.975 quantiles of Student's t for 1, 2, ... degrees of freedom; behind them the last, which is too wide, is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean, and how far the true one may be."""

    mean: float
    """Over the seeds."""
    half: float | None
    """Half of the interval's width; None for one seed, which tells nothing of it."""
    seeds: int
    """How many."""


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, half=2.484..., seeds=3)
    """
    count = len(values)
    half = None if count < 2 else _QUANTILES[min(count, 10) - 2] * stdev(values) / count**0.5
    return Interval(mean=fmean(values), half=half, seeds=count)
