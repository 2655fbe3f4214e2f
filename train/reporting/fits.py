"""How well hidden pixels are predicted, band by band.

Axes: R rows, C bands, H W pixels, L patches, P pixels of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.models.blocks import patchify
from train.pictures import Reconstruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Of one band."""

    band: str
    """Its name."""
    error: float
    """Root of the mean squared error over hidden pixels, in the stored unit."""
    correlation: float
    """Of true and predicted hidden pixels; NaN where one is constant."""
    within: float
    """The same once each patch's own mean is taken off both: the pattern within patches."""


def fits(made: Reconstruction, bands: Sequence[str], *, patch: int) -> list[Fit]:
    """One for each band.

    Args:
        made: in the stored unit.
        bands: of it.
        patch: side of a patch, px.
    """
    found = []
    for number, band in enumerate(bands):
        cut = (patchify(x[:, number : number + 1].double(), patch) for x in (made.images, made.predicted, made.hidden))
        true_RLP, guess_RLP, hidden_RLP = cut
        there_RL = hidden_RLP.bool().all(dim=-1)
        true, guess = true_RLP[there_RL], guess_RLP[there_RL]
        found.append(
            Fit(
                band=band,
                error=float((true - guess).square().mean().sqrt()),
                correlation=correlation(true, guess),
                within=correlation(*(x - x.mean(dim=-1, keepdim=True) for x in (true, guess))),
            )
        )
    return found


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, over all numbers; NaN where one is constant."""
    flat = torch.stack((one.flatten(), other.flatten()))
    left, right = flat - flat.mean(dim=1, keepdim=True)
    scale = float(left.norm() * right.norm())
    return float(left @ right) / scale if scale > 0 else float("nan")
