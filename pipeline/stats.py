"""Per-band statistics that merge: count, mean, standard deviation, range, histogram.

Partial statistics of units are merged in unit order, so that the result does not depend on which worker finished first.
Source: Chan, Golub, LeVeque (1979), updating formulae for the pairwise merge of means and second moments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BandMismatch

BINS = 64
"""Bins of a histogram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStats:
    """Statistics of the valid pixels of each band."""

    bands: tuple[str, ...]
    """Names, in storage order."""
    count: tuple[int, ...]
    """Valid pixels."""
    mean: tuple[float, ...]
    """In the stored unit (DN or dB)."""
    m2: tuple[float, ...]
    """Sum of squared deviations from the mean."""
    minimum: tuple[float, ...]
    """0 where no pixel was valid."""
    maximum: tuple[float, ...]
    """0 where no pixel was valid."""
    bin_range: tuple[float, float]
    """Histogram's first and last edge, stored unit; values outside fall into the end bins."""
    histogram: tuple[tuple[int, ...], ...]
    """Counts in `BINS` equal bins for each band."""

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation with the N divisor; 0 where no pixel was valid."""
        return tuple((m2 / n) ** 0.5 if n else 0.0 for m2, n in zip(self.m2, self.count, strict=True))


def measure(
    bands: Sequence[str], data: NDArray[Any], valid: NDArray[np.bool_], *, bin_range: tuple[float, float]
) -> BandStats:
    """Statistics of one chip.

    Args:
        bands: C names.
        data: (C, H, W) stored values.
        valid: (H, W) True where a pixel counts.
        bin_range: first and last edge of the histogram.
    """
    at = None if valid.all() else np.flatnonzero(valid)
    stored = [band.ravel() if at is None else band.ravel().take(at) for band in data]
    picked = [np.asarray(values, dtype=np.float64) for values in stored]
    means = [float(values.mean()) if values.size else 0.0 for values in picked]
    return BandStats(
        bands=tuple(bands),
        count=tuple(values.size for values in picked),
        mean=tuple(means),
        m2=tuple(float(((values - mean) ** 2).sum()) for values, mean in zip(picked, means, strict=True)),
        minimum=tuple(float(values.min()) if values.size else 0.0 for values in picked),
        maximum=tuple(float(values.max()) if values.size else 0.0 for values in picked),
        bin_range=bin_range,
        histogram=tuple(_histogram(values, bin_range) for values in stored),
    )


def merge(parts: Sequence[BandStats]) -> BandStats | None:
    """The statistics of all `parts` together; None where there are none.

    Raises:
        BandMismatch: the parts are of different bands or histograms.
    """
    return reduce(_merge, parts) if parts else None


def _histogram(values: NDArray[Any], bin_range: tuple[float, float]) -> tuple[int, ...]:
    """As `np.histogram` of the clipped values; of short integers a fifth of its time."""
    if values.dtype in (np.uint8, np.uint16):
        below = np.concatenate([[0], np.bincount(values).cumsum()])
        edges = np.ceil(np.linspace(*bin_range, BINS + 1)).clip(0, len(below) - 1).astype(int)
        edges[0], edges[-1] = 0, len(below) - 1
        return tuple(np.diff(below[edges]).tolist())
    counts, _ = np.histogram(values.astype(np.float64, copy=False).clip(*bin_range), bins=BINS, range=bin_range)
    return tuple(counts.tolist())


def _merge(a: BandStats, b: BandStats) -> BandStats:
    if (a.bands, a.bin_range) != (b.bands, b.bin_range):
        raise BandMismatch(f"statistics of {a.bands} {a.bin_range} cannot be merged with {b.bands} {b.bin_range}.")
    count_a, count_b = np.array(a.count), np.array(b.count)
    count = count_a + count_b
    total = np.maximum(count, 1)
    delta = np.array(b.mean) - np.array(a.mean)
    mean = np.array(a.mean) + delta * count_b / total
    m2 = np.array(a.m2) + np.array(b.m2) + delta**2 * count_a * count_b / total
    return BandStats(
        bands=a.bands,
        count=tuple(count.tolist()),
        mean=tuple(mean.tolist()),
        m2=tuple(m2.tolist()),
        minimum=_extreme(min, (a, a.minimum), (b, b.minimum)),
        maximum=_extreme(max, (a, a.maximum), (b, b.maximum)),
        bin_range=a.bin_range,
        histogram=tuple(
            tuple(x + y for x, y in zip(left, right, strict=True))
            for left, right in zip(a.histogram, b.histogram, strict=True)
        ),
    )


def _extreme(pick: Any, *parts: tuple[BandStats, tuple[float, ...]]) -> tuple[float, ...]:
    """The extreme over the parts that saw any pixel of the band."""
    bands = range(len(parts[0][0].bands))
    seen = [[values[i] for stats, values in parts if stats.count[i]] for i in bands]
    return tuple(pick(values) if values else 0.0 for values in seen)
