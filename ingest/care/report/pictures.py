"""Samples → what an eye can compare: S2 in true colour, S1 as VV, VH and their difference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.sample import PairSample, Sample

TRUE_COLOUR = ("B04", "B03", "B02")
S1_RANGES = ((-20.0, 0.0), (-27.0, -7.0), (0.0, 15.0))
"""dB. Black and full of VV, VH, and VV - VH."""
_TAILS = (2, 98)
"""Percentiles of a picture's valid pixels that become black and full."""


def optical(s2: NDArray[np.uint16], bands: Sequence[str]) -> NDArray[np.uint8]:
    """(H, W, 3) of (C, H, W) digital numbers: true colour, or the first band in grey where bands are missing."""
    names = TRUE_COLOUR if set(TRUE_COLOUR) <= set(bands) else (bands[0],) * 3
    picked = s2[[list(bands).index(name) for name in names]].astype(np.float32)
    valid = picked[:, (picked > 0).all(axis=0)]
    low, high = np.percentile(valid, _TAILS) if valid.size else (0.0, 1.0)
    return _bytes((picked - low) / max(high - low, 1.0))


def radar(s1: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, 3) of (2, H, W) dB; black where there is no data."""
    channels = np.stack([s1[0], s1[1], s1[0] - s1[1]])
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*S1_RANGES, strict=True))
    return _bytes(np.nan_to_num((channels - low) / (high - low), nan=0.0))


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


def _bytes(channels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(3, H, W) from 0 to 1 → (H, W, 3) bytes."""
    return np.ascontiguousarray((channels.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
