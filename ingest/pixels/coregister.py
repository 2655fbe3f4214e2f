"""How far Sentinel-1 lies from Sentinel-2 on one chip: estimated and recorded, never applied.

Field borders, shores and roads are edges in both sensors though their contrast differs, so gradient magnitudes are
compared, by phase correlation. Source: Kuglin and Hines (1975); the peak is refined by a parabola in each direction.

The widths below are the best of nine tried on real and on synthetic chips of 120 px. Speckle hides the edges of many
chips; a peak that does not stand out of the surface is not reported as a shift.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

REACH_PX = 8
"""Pixels. Larger shifts are not looked for."""
SIGNIFICANT = 8.0
"""Standard deviations of the correlation surface. Lower peaks are chance: above 2 px off as often as not."""
_SMOOTH_PX = 3.0
"""Pixels. Gaussian that takes speckle out before gradients are taken."""
_FLAT = 1e-6
"""DN or dB. Below this deviation a band is constant, but for rounding."""
_SOFTEN_PX = 1.5
"""Pixels. Gaussian that the correlation peak is widened to, so that a parabola fits it."""


def estimate_shift(s1_db: NDArray[np.float32], s2_dn: NDArray[np.uint16]) -> tuple[float, float, float] | None:
    """Shift of S1 against S2 in pixels.

    Args:
        s1_db: (2, H, W) dB, NaN where there is no data.
        s2_dn: (C, H, W) digital numbers.

    Returns:
        (dy, dx, peak): a structure at (y, x) in S2 stands at (y + dy, x + dx) in S1; `peak` is the height of the
        correlation peak in standard deviations of the surface. None where the chip is too small or no peak stands out.
    """
    if min(s1_db.shape[1:]) < 4 * REACH_PX or np.isnan(s1_db).all():
        return None
    radar, optical = _edges(np.nan_to_num(s1_db, nan=float(np.nanmean(s1_db)))), _edges(s2_dn)
    if not (radar.any() and optical.any()):
        return None
    surface = _phase_correlation(radar, optical)
    around = np.arange(-REACH_PX, REACH_PX + 1)
    near = surface[np.ix_(around, around)]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    peak = float((near[row, col] - surface.mean()) / surface.std())
    if peak < SIGNIFICANT or not (0 < row < 2 * REACH_PX and 0 < col < 2 * REACH_PX):
        return None
    dy = row - REACH_PX + _vertex(near[row - 1 : row + 2, col])
    dx = col - REACH_PX + _vertex(near[row, col - 1 : col + 2])
    return float(dy), float(dx), peak


def _edges(bands: NDArray[np.generic]) -> NDArray[np.float64]:
    """(H, W) gradient magnitude, each band scaled to unit deviation, without its mean, faded out to the border."""
    size = height, width = bands.shape[1], bands.shape[2]
    blur = _gaussian(size, _SMOOTH_PX).astype(np.float32)
    edges = np.zeros(size, np.float64)
    rows, cols = np.empty(size, np.float32), np.empty(size, np.float32)
    for band in bands:  # one at a time stays in the processor's cache; single precision is far finer than speckle
        values = band.astype(np.float32)
        values -= values.mean(dtype=np.float64)
        deviation = values.std(dtype=np.float64)
        if deviation > _FLAT:
            values /= np.float32(deviation)
            spectrum = np.fft.rfft2(values)
            spectrum *= blur
            smooth = np.fft.irfft2(spectrum, s=size)
            _slopes(smooth, out=rows)
            _slopes(smooth.T, out=cols.T)
            edges += np.sqrt(np.square(rows, out=rows) + np.square(cols, out=cols), out=rows)
    fade = np.outer(np.hanning(height), np.hanning(width))
    return np.asarray((edges - edges.mean()) * fade, dtype=np.float64)


def _slopes(image: NDArray[np.floating], *, out: NDArray[np.float32]) -> None:
    """`np.gradient` along the first axis, without its temporaries."""
    np.subtract(image[2:], image[:-2], out=out[1:-1])
    out[1:-1] /= 2
    np.subtract(image[1], image[0], out=out[0])
    np.subtract(image[-1], image[-2], out=out[-1])


@cache
def _gaussian(shape: tuple[int, ...], width_px: float) -> NDArray[np.float64]:
    """Transfer function of a Gaussian for `rfft2` of images of `shape`."""
    rows, cols = np.fft.fftfreq(shape[-2]), np.fft.rfftfreq(shape[-1])
    return np.asarray(np.exp(-2 * (np.pi * width_px) ** 2 * (rows[:, None] ** 2 + cols[None, :] ** 2)))


def _phase_correlation(moved: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W) correlation at every circular shift, from 0 in the upper left corner."""
    cross = np.fft.rfft2(moved) * np.conj(np.fft.rfft2(fixed))
    phase = cross / np.maximum(np.abs(cross), 1e-12)
    return np.asarray(np.fft.irfft2(phase * _gaussian(moved.shape, _SOFTEN_PX), s=moved.shape))


def _vertex(values: NDArray[np.float64]) -> float:
    """Where the parabola through three values at -1, 0, 1 peaks."""
    left, middle, right = values.tolist()
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else 0.5 * (left - right) / bend
