"""What flows through the loop: batches in, losses out.

Axes: B batch, C bands, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairBatch:
    """A batch of co-registered Sentinel-1/Sentinel-2 pairs, normalised and on the device."""

    s1_BCHW: Tensor
    """float32, bands VV VH."""
    s2_BCHW: Tensor
    """float32, the twelve optical bands in the order of `pipeline.bands`."""
    keys: tuple[str, ...]
    """One sample key per row."""
    sample_ids_B: Tensor
    """int64, the sample's number in the manifest: the seed of everything random about it."""
    epochs_B: Tensor
    """int64, the epoch a row belongs to: one batch may hold the end of one and the start of the next."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """What a training forward returns: the loop minimises `total` and only reports `parts`."""

    total: Tensor
    """Scalar float32 with gradient."""
    parts: Mapping[str, Tensor]
    """Scalar float32 each, detached, by name."""
