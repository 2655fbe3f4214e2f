"""A step whose samples do not fit into memory at once: micro-batches, with the gradient of the whole.

A loss that is a mean over samples adds up by itself. A contrastive loss compares each sample with all others, so it is
computed first, over the features of all micro-batches and all ranks, without activations; each micro-batch then passes
its share of the features' gradient on (GradCache, Gao et al. 2021). The number of negatives does not shrink.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from train.batch import Batch, Losses
from train.objective import Objective


def backward(
    accelerator: Accelerator, objective: Objective, wrapped: nn.Module, batch: Batch, *, rows: int | None
) -> Losses:
    """Gradients of a batch, averaged over ranks, from micro-batches of at most `rows` samples; its losses."""
    pieces = micro_batches(batch, rows or len(batch.sample_ids_B))
    if len(pieces) == 1:
        losses = objective.losses(wrapped, batch)
        accelerator.backward(losses.total)
        return losses
    with accelerator.autocast():
        contrasts = objective.contrasts(pieces)
    weights = [len(piece.sample_ids_B) / len(batch.sample_ids_B) for piece in pieces]
    made = []
    for number, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
        last = number == len(pieces) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
            losses = objective.losses(wrapped, piece, contrast=contrasts[number])
            accelerator.backward(losses.total * weight)
        made.append(replace(losses, total=losses.total.detach()))
    return _mean(made, weights)


def micro_batches(batch: Batch, rows: int) -> list[Batch]:
    """The batch in pieces of `rows` samples, the last one with what is left."""
    total = len(batch.sample_ids_B)
    return [_piece(batch, slice(first, min(first + rows, total))) for first in range(0, total, rows)]


def _piece(batch: Batch, part: slice) -> Batch:
    return Batch(
        images={name: image[part] for name, image in batch.images.items()},
        dates_BT3=None if batch.dates_BT3 is None else batch.dates_BT3[part],
        keys=batch.keys[part],
        hashes_B=batch.hashes_B[part],
        sample_ids_B=batch.sample_ids_B[part],
        epochs_B=batch.epochs_B[part],
        valid_B=batch.valid_B[part],
    )


def _mean(made: Sequence[Losses], weights: Sequence[float]) -> Losses:
    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum()

    parts = {name: mean([one.parts[name] for one in made]) for name in made[0].parts}
    return Losses(total=mean([one.total for one in made]), parts=parts)
