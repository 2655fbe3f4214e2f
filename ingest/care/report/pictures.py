"""Samples → the pictures of each, side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.page.pictures import optical, radar
from pipeline.sample import PairSample, Sample


def strips(sample: Sample, bands: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The pictures of a sample, each (H, T x W, 3): S2 of all dates, then S1 where there is some."""
    if isinstance(sample, PairSample):
        return [optical(sample.s2, bands), radar(sample.s1)]
    dates = [_row([optical(frame, bands) for frame in sample.s2])]
    return dates if sample.s1 is None else [*dates, _row([radar(frame) for frame in sample.s1])]


def _row(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures beside each other, two white pixels between."""
    gap = np.full((pictures[0].shape[0], 2, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)
