"""From physical values to the model's 0..1: two standard deviations around the mean, as SeCo and SatMAE do.

Axes: C bands, H W pixels; any leading axes.
"""

import torch
from torch import Tensor


def two_sigma(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """`x` stretched so that mean - 2 std is 0 and mean + 2 std is 1, clipped (CROMA's README, float path).

    Args:
        x_CHW: (..., C, H, W) float.
        mean_C: (C,) in the units of `x_CHW`; statistics of the corpus, not of the batch.
        std_C: (C,); a band that is constant (0) comes out as 0 at its mean, never as NaN.

    Returns:
        (..., C, H, W) float in 0..1.
    """
    return _stretch(x_CHW, mean_C, std_C).clamp(0, 1)


def to_uint8(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """The same in 256 levels, truncated and not rounded (CROMA's README, 8-bit path).

    Returns:
        (..., C, H, W) uint8; divided by 255 it is a model's input.
    """
    return (255 * _stretch(x_CHW, mean_C, std_C)).clamp(0, 255).to(torch.uint8)


def _stretch(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    low = (mean_C - 2 * std_C)[:, None, None]
    high = (mean_C + 2 * std_C)[:, None, None]
    return (x_CHW - low) / (high - low).clamp(min=torch.finfo(x_CHW.dtype).tiny)
