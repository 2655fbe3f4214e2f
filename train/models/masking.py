"""Which patches a model sees: a mask as a pure function of noise that the caller made.

Axes: B batch, L patches, K kept patches, P values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """The patches that one sensor keeps, per sample."""

    keep_ids_BK: Tensor
    """int64, the kept patches, ascending in noise and not in position."""
    restore_ids_BL: Tensor
    """int64, the rank of each patch's noise: below K where the patch is kept."""
    removed_BL: Tensor
    """bool, True where the patch is hidden."""


def kept_count(patches: int, ratio: float) -> int:
    """K = int(L * (1 - ratio)), truncated: 56 of 225 at 0.75.

    Raises:
        UsageError: nothing or everything would be kept.
    """
    kept = int(patches * (1 - ratio))
    if not 0 < kept < patches:
        raise UsageError(
            f"mask ratio {ratio} keeps {kept} of {patches} patches: a loss on hidden patches needs some of both. "
            "Choose a ratio strictly between 0 and 1, or a larger image."
        )
    return kept


def mask_from_noise(noise_BL: Tensor, *, ratio: float) -> Mask:
    """Keep the patches with the smallest noise (MAE, He et al. 2022; CROMA section 3.1).

    Args:
        noise_BL: (B, L) float, uniform. The same noise gives the same mask on every device.
        ratio: share of the patches to hide.
    """
    return mask_from_order(noise_BL.argsort(dim=1, stable=True), kept=kept_count(noise_BL.shape[1], ratio))


def mask_from_order(order_BL: Tensor, *, kept: int) -> Mask:
    """Keep the first `kept` patches of an order that the caller chose, (B, L) int64."""
    restore_BL = order_BL.argsort(dim=1)
    return Mask(keep_ids_BK=order_BL[:, :kept], restore_ids_BL=restore_BL, removed_BL=restore_BL >= kept)


def consistent_mask(noise_BL: Tensor, *, slots: int, ratio: float, kept: int | None = None) -> Mask:
    """Hide the same places in every slot: band group or frame (SatMAE's consistent masking).

    Args:
        noise_BL: (B, L) float, uniform, one for each place.
        slots: S. Token `s L + l` is place l of slot s.
        ratio: share of the places to hide.
        kept: tokens to keep; None: as many of every slot. More than that are taken from the first slot (what the
            released temporal code does where `int(S L (1 - ratio))` is no multiple of S).

    Returns:
        A mask of the S * L tokens, kept ones slot by slot.
    """
    places = noise_BL.shape[1]
    each = kept_count(places, ratio)
    order_BL = noise_BL.argsort(dim=1, stable=True)
    starts = [slot * places for slot in range(slots)]
    parts = [order_BL[:, :each] + start for start in starts] + [order_BL[:, each:] + start for start in starts]
    return mask_from_order(torch.cat(parts, dim=1), kept=slots * each if kept is None else kept)


def take_patches(values_BLP: Tensor, ids_BK: Tensor) -> Tensor:
    """The rows `ids_BK` of each sample, (B, K, P)."""
    return torch.take_along_dim(values_BLP, ids_BK[:, :, None], dim=1)
