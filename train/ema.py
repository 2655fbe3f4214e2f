"""A moving average of the weights: smoother than the last step's, part of the checkpoint, of no effect on the training.

Its decay is told in samples, as the learning rate is: it is what is left after `REFERENCE_BATCH` samples, and a step of
B samples decays by the power B / 256 of it (Busbridge et al. 2023), so that the batch does not change the average's
reach. In the beginning, n times 256 samples in, the decay is at most (1 + n) / (10 + n): first weights are soon
forgotten. Only weights are averaged, buffers are tables. Of weights in shards each rank averages its own.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pipeline.errors import StreamError, UsageError
from train.choices import Which
from train.optim import REFERENCE_BATCH

PREFIX = "ema/"


class Ema:
    """The average of one module's parameters, on their devices."""

    def __init__(self, module: nn.Module, *, decay: float, batch: int) -> None:
        """Begin with the module's weights; `batch` is the samples of a step over all ranks."""
        self._decay, self._batch = decay, batch
        self._averages = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, *, samples: int, skip: Tensor) -> None:
        """Take in the weights behind a step, unless `skip`, a scalar on the device, holds.

        Args:
            module: whose weights they are.
            samples: consumed up to the end of the step.
            skip: bool. Whether the step was not learned from.
        """
        share = 1 - decay_at(samples, batch=self._batch, decay=self._decay)
        weight = torch.where(skip, 0.0, share).float()
        for name, parameter in module.named_parameters():
            _own(self._averages[name]).lerp_(_own(parameter), weight)

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's state dict with averages for weights, as its parameters lie."""
        return {**module.state_dict(), **self._averages}

    def tensors(self) -> dict[str, Tensor]:
        """The averages by name, `ema/NAME`."""
        return {f"{PREFIX}{name}": average for name, average in self._averages.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take back what `tensors` gave, laid out as the parameters are; returns the tensors that are not its own.

        Raises:
            StreamError: one is missing.
        """
        for name, average in self._averages.items():
            if f"{PREFIX}{name}" not in tensors:
                raise StreamError(f"the checkpoint has no {PREFIX}{name}. Resume with the code that wrote it.")
            _own(average).copy_(_own(tensors[f"{PREFIX}{name}"]))
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}


def decay_at(samples: int, *, batch: int, decay: float) -> float:
    """What the step that ends behind `samples` leaves of the average.

    Args:
        samples: consumed over all ranks, those of the step included.
        batch: samples of the step.
        decay: what `REFERENCE_BATCH` samples leave, once the beginning is over.
    """
    count = samples / REFERENCE_BATCH
    allowed: float = min(decay, (1 + count) / (10 + count)) ** (batch / REFERENCE_BATCH)
    return allowed


def check(decay: float | None) -> None:
    """Raise UsageError unless `decay` is None or a share."""
    if decay is not None and not 0 < decay < 1:
        raise UsageError(f"a moving average that keeps {decay} of itself per {REFERENCE_BATCH} samples: use 0 to 1.")


def chosen(which: Which, model: Mapping[str, Tensor], others: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """The weights of a checkpoint, whole: the last step's, or their average.

    Args:
        which: of the two.
        model: its state dict.
        others: the rest of its tensors.
        where: names the run in the error.

    Raises:
        UsageError: it has no average.
    """
    averages = {name.removeprefix(PREFIX): tensor for name, tensor in others.items() if name.startswith(PREFIX)}
    if which == "model":
        return dict(model)
    if not averages:
        raise UsageError(f"{where} keeps no moving average. Leave --weights out, or train with --ema.")
    return {**model, **averages}


def _own(tensor: Tensor) -> Tensor:
    """What this rank holds, sharing its memory."""
    own: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own.detach()
