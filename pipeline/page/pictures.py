"""Pixels → what an eye can compare: S2 in true colour, S1 as VV, VH and their difference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRUE_COLOUR = ("B04", "B03", "B02")
S1_RANGES = ((-20.0, 0.0), (-27.0, -7.0), (0.0, 15.0))
"""dB. Black and full of VV, VH, and VV - VH."""
_TAILS = (2, 98)
"""Percentiles of a picture's valid pixels that become black and full."""
Ends = tuple[float, float]
"""What becomes black and what becomes full; one for all three colours, so that hues are real."""


def optical(s2: NDArray[np.uint16], bands: Sequence[str]) -> NDArray[np.uint8]:
    """(H, W, 3) of (C, H, W) digital numbers: true colour, or the first band in grey where bands are missing."""
    names = TRUE_COLOUR if set(TRUE_COLOUR) <= set(bands) else (bands[0],) * 3
    picked = s2[[list(bands).index(name) for name in names]].astype(np.float32)
    return stretched(picked, tails(picked))


def tails(picked: NDArray[np.float32]) -> Ends:
    """The ends of (3, H, W) digital numbers without their tails; pixels that are 0 do not count."""
    valid = picked[:, (picked > 0).all(axis=0)]
    low, high = np.percentile(valid, _TAILS) if valid.size else (0.0, 1.0)
    return float(low), float(high)


def stretched(picked: NDArray[np.floating], ends: Ends) -> NDArray[np.uint8]:
    """(H, W, 3) of (3, H, W) digital numbers between `ends`."""
    low, high = ends
    return _bytes((picked - low) / max(high - low, 1.0))


def radar(s1: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, 3) of (2, H, W) dB; black where there is no data."""
    channels = np.stack([s1[0], s1[1], s1[0] - s1[1]])
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*S1_RANGES, strict=True))
    return _bytes(np.nan_to_num((channels - low) / (high - low), nan=0.0))


def _bytes(channels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(3, H, W) from 0 to 1 → (H, W, 3) bytes."""
    return np.ascontiguousarray((channels.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
