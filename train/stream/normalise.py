"""From stored values to a model's input: mostly two standard deviations around the mean, as SeCo and SatMAE do.

A missing pixel (S1 NaN, S2 digital number 0) becomes the band's mean: it carries no signal, where the lowest value
would be the darkest ground there is.

Axes: C bands, H W pixels; any leading axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.bands import positions
from pipeline.errors import UsageError
from pipeline.stats import BandStats

Scale = Literal["two_sigma", "uint8", "standard"]
"""`two_sigma`: mean - 2 std to mean + 2 std is 0..1, clipped. `uint8`: the same, truncated to 256 levels, as CROMA and
SatMAE were trained on Sentinel-2. `standard`: (value - mean) / std, as SatMAE was on RGB."""
MISSING: Mapping[Scale, float] = {"two_sigma": 0.5, "uint8": 0.5, "standard": 0.0}
"""What a missing pixel becomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Mean and standard deviation of each band of one sensor, in the stored unit (S2 digital numbers, S1 dB)."""

    mean: tuple[float, ...]
    """One per band."""
    std: tuple[float, ...]
    """One per band."""


def constants(stats: BandStats | None, bands: tuple[str, ...]) -> Constants:
    """The constants of `bands` from a data set's statistics.

    Raises:
        UsageError: the data set has none.
    """
    if stats is None:
        raise UsageError(
            f"the data set has no statistics of {list(bands)}: its train split is empty. "
            "Give the recipe constants of its own, or ingest a larger area."
        )
    at = positions(stats.bands, bands)
    return Constants(mean=tuple(stats.mean[i] for i in at), std=tuple(stats.std[i] for i in at))


def normalise(image_CHW: Tensor, stretch: Constants, *, scale: Scale = "two_sigma") -> Tensor:
    """Stored values to a model's input, missing pixels to `MISSING`.

    Args:
        image_CHW: (..., C, H, W) float32 dB, where NaN is missing, or uint16 digital numbers, where 0 is.
        stretch: of the same bands.
        scale: how.

    Returns:
        (..., C, H, W) float32.
    """
    # Cast first: torch's uint16 knows hardly any other operation. In place from there: memory is what it costs.
    values_CHW = image_CHW.to(torch.float32, copy=True)
    dtype = torch.float64 if scale == "uint8" else torch.float32  # a level must not depend on rounding
    mean, std = _tensors(stretch, image_CHW.device, dtype)
    scaled_CHW = _SCALES[scale](values_CHW, mean, std)
    if image_CHW.device.type != "cpu":
        missing_CHW = values_CHW.isnan() if image_CHW.is_floating_point() else values_CHW == 0
        return scaled_CHW.masked_fill_(missing_CHW, MISSING[scale])
    # On a CPU torch takes ten times as long for this as numpy does, and longer than for all the rest.
    pixels = image_CHW.numpy()
    scaled_CHW.numpy()[np.isnan(pixels) if image_CHW.is_floating_point() else pixels == 0] = MISSING[scale]
    return scaled_CHW


@lru_cache(maxsize=64)
def _tensors(stretch: Constants, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and std on `device`; kept, because the host waits for a GPU's queue to copy them."""
    return torch.tensor(stretch.mean, device=device, dtype=dtype), torch.tensor(stretch.std, device=device, dtype=dtype)


def denormalise(image_CHW: Tensor, stretch: Constants, *, scale: Scale = "two_sigma") -> Tensor:
    """A model's input, or what it predicts of it, in the stored unit; what `normalise` clipped is lost.

    Args:
        image_CHW: (..., C, H, W) float.
        stretch: of the same bands.
        scale: how it was normalised.
    """
    mean, std = (x[:, None, None] for x in _tensors(stretch, image_CHW.device, torch.float32))
    return image_CHW * std + mean if scale == "standard" else image_CHW * (4 * std) + (mean - 2 * std)


def two_sigma(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """`x` stretched so that mean - 2 std is 0 and mean + 2 std is 1, clipped (CROMA's README, float path).

    Args:
        x_CHW: (..., C, H, W) float.
        mean_C: (C,) in the units of `x_CHW`; statistics of the corpus, not of the batch.
        std_C: (C,); a band that is constant (0) comes out as 0 at its mean, never as NaN.

    Returns:
        (..., C, H, W) float in 0..1.
    """
    return _stretch(x_CHW, mean_C, std_C).clamp_(0, 1)


def to_uint8(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """The same in 256 levels, truncated and not rounded (CROMA's README, 8-bit path; SatMAE in float64).

    Returns:
        (..., C, H, W) uint8; divided by 255 it is a model's input.
    """
    return _stretch(x_CHW, mean_C, std_C).mul_(255).clamp_(0, 255).to(torch.uint8)


def standard(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """(x - mean) / std, (..., C, H, W) float; a band that is constant comes out as 0 at its mean."""
    tiny = torch.finfo(torch.float32).tiny
    return (x_CHW - mean_C[:, None, None]).div_(std_C[:, None, None].clamp(min=tiny))


def _levels(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    return to_uint8(x_CHW, mean_C, std_C) / 255


_SCALES = {"two_sigma": two_sigma, "uint8": _levels, "standard": standard}


def _stretch(x_CHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    low = (mean_C - 2 * std_C)[:, None, None]
    high = (mean_C + 2 * std_C)[:, None, None]
    return (x_CHW - low).div_((high - low).clamp(min=torch.finfo(torch.float32).tiny))
