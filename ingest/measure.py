"""Samples → statistics of their valid pixels, one sample at a time: S2 without nodata and cloud, S1 without nodata."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import stats
from pipeline.bands import S1_NAMES
from pipeline.sample import MaskBit, PairSample, Sample
from pipeline.stats import BandStats

S2_RANGE = (0.0, 12000.0)
"""Digital numbers. Ends of the histogram."""
S1_RANGE = (-40.0, 10.0)
"""dB. Ends of the histogram."""
_NOT_GROUND = MaskBit.S2_NODATA | MaskBit.CLOUD


@dataclass(slots=True, kw_only=True)
class Tally:
    """Statistics so far. Equal samples in equal order give equal bits."""

    s2_bands: Sequence[str]
    """Names along the band axis of `s2`."""
    s2: BandStats | None = None
    """Digital numbers; None before the first sample."""
    s1: BandStats | None = None
    """dB; None before the first sample with radar."""
    samples: int = 0
    """Samples seen."""

    def add(self, sample: Sample) -> None:
        """Count a sample's pixels."""
        self.samples += 1
        for pixels, mask in _frames(sample):
            valid = (mask & _NOT_GROUND) == 0
            self.s2 = _sum(self.s2, stats.measure(tuple(self.s2_bands), pixels, valid, bin_range=S2_RANGE))
        for radar, mask in _radar_frames(sample):
            valid = (mask & MaskBit.S1_NODATA) == 0
            self.s1 = _sum(self.s1, stats.measure(S1_NAMES, radar, valid, bin_range=S1_RANGE))

    def merge(self, other: "Tally") -> None:
        """Count all that `other` counted."""
        self.samples += other.samples
        self.s2, self.s1 = _sum(self.s2, other.s2), _sum(self.s1, other.s1)


def _sum(total: BandStats | None, more: BandStats | None) -> BandStats | None:
    return stats.merge([part for part in (total, more) if part is not None])


def _frames(sample: Sample) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]]:
    """S2 pixels and mask of every date."""
    if isinstance(sample, PairSample):
        yield sample.s2, sample.mask
    else:
        yield from zip(sample.s2, sample.mask, strict=True)


def _radar_frames(sample: Sample) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """S1 pixels and mask of every date; none without radar."""
    if isinstance(sample, PairSample):
        yield sample.s1, sample.mask
    elif sample.s1 is not None:
        yield from zip(sample.s1, sample.mask, strict=True)
