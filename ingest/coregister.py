"""How far Sentinel-1 lies from Sentinel-2 on one chip: estimated and recorded, never applied.

Field borders, shores and roads are edges in both sensors though their contrast differs, so gradient magnitudes are
compared, by phase correlation. Source: Kuglin and Hines (1975); the peak is refined by a parabola in each direction.
"""

import numpy as np
from numpy.typing import NDArray

REACH_PX = 8
"""Pixels. Larger shifts are not looked for."""
_SOFTEN_PX = 1.5
"""Pixels. Gaussian that takes speckle out of the spectrum before the peak is looked for."""


def estimate_shift(s1_db: NDArray[np.float32], s2_dn: NDArray[np.uint16]) -> tuple[float, float, float] | None:
    """Shift of S1 against S2 in pixels.

    Args:
        s1_db: (2, H, W) dB, NaN where there is no data.
        s2_dn: (12, H, W) digital numbers.

    Returns:
        (dy, dx, peak): a structure at (y, x) in S2 stands at (y + dy, x + dx) in S1; `peak` is the height of the
        correlation peak, from about 0 (chance) to 1. None where a chip is too small or without any structure.
    """
    radar, optical = _edges(np.nan_to_num(s1_db, nan=float(np.nanmean(s1_db)))), _edges(s2_dn.astype(np.float64))
    if min(radar.shape) < 4 * REACH_PX or not (radar.any() and optical.any()):
        return None
    surface = _phase_correlation(radar, optical)
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    if not (0 < row < 2 * REACH_PX and 0 < col < 2 * REACH_PX):
        return None
    dy = row - REACH_PX + _vertex(surface[row - 1 : row + 2, col])
    dx = col - REACH_PX + _vertex(surface[row, col - 1 : col + 2])
    return float(dy), float(dx), float(surface[row, col])


def _edges(bands: NDArray[np.floating]) -> NDArray[np.float64]:
    """(H, W) gradient magnitude, each band scaled to unit deviation, without its mean, faded out to the border."""
    deviation = bands.std(axis=(1, 2), keepdims=True)
    scaled = bands / np.where(deviation > 0, deviation, np.inf)
    rows, cols = np.gradient(scaled, axis=(1, 2))
    edges = np.hypot(rows, cols).sum(axis=0)
    fade = np.outer(np.hanning(edges.shape[0]), np.hanning(edges.shape[1]))
    return np.asarray((edges - edges.mean()) * fade, dtype=np.float64)


def _phase_correlation(moved: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2R+1, 2R+1) correlation at shifts -R..R, scaled so that identical images peak at 1."""
    cross = np.fft.rfft2(moved) * np.conj(np.fft.rfft2(fixed))
    phase = cross / np.maximum(np.abs(cross), 1e-12)
    rows, cols = np.fft.fftfreq(moved.shape[0]), np.fft.rfftfreq(moved.shape[1])
    soften = np.exp(-2 * (np.pi * _SOFTEN_PX) ** 2 * (rows[:, None] ** 2 + cols[None, :] ** 2))
    surface = np.fft.irfft2(phase * soften, s=moved.shape) / np.fft.irfft2(soften, s=moved.shape)[0, 0]
    around = np.arange(-REACH_PX, REACH_PX + 1)
    return np.asarray(surface[np.ix_(around, around)])


def _vertex(values: NDArray[np.float64]) -> float:
    """Where the parabola through three values at -1, 0, 1 peaks."""
    left, middle, right = values.tolist()
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else 0.5 * (left - right) / bend
