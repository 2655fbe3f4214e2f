"""What flows through the loop: batches in, losses out.

Axes: B batch, T frames, C bands, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """A batch of co-registered pairs, or of stacks, normalised and on the device."""

    images: Mapping[str, Tensor]
    """float32, normalised, by sensor (`s1`, `s2`): (B, C, H, W), of stacks (B, T, C, H, W). Those the recipe wants."""
    dates_BT3: Tensor | None
    """int64 year, month and hour (UTC) of each frame of a stack; None for pairs."""
    keys: tuple[str, ...]
    """One sample key per row."""
    hashes_B: Tensor
    """int64, on the host: of each row's (sample id, epoch)."""
    sample_ids_B: Tensor
    """int64, the sample's number in the manifest: the seed of everything random about it."""
    epochs_B: Tensor
    """int64, the epoch a row belongs to: one batch may hold the end of one and the start of the next."""
    valid_B: Tensor
    """bool. Whether a row counts: in training all do; the last batch of a pass is filled up with rows that do not."""
    damaged: tuple[int, ...] = ()
    """Sample ids whose rows these were: their bytes are damaged in the store, and other samples stand there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """What a training forward returns: the loop minimises `total` and only reports `parts`."""

    total: Tensor
    """Scalar float32 with gradient."""
    parts: Mapping[str, Tensor]
    """Scalar float32 each, detached, by name."""
