"""RMSprop and Adam that touch only the rows with a gradient: a step costs its batch, not the number of users.

RMSprop is exact: a row without a gradient does not move, and its mean square is decayed when it is touched again. Adam
leaves the moments of untouched rows alone, as torch's SparseAdam does; where all rows have a gradient it is Adam.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

OptimizerName = Literal["rmsprop", "adam"]
OPTIMIZERS: tuple[OptimizerName, ...] = ("rmsprop", "adam")
_ALPHA, _BETA1, _BETA2, _EPSILON = 0.99, 0.9, 0.999, 1e-8
"""Torch's defaults."""


@dataclass(slots=True, kw_only=True)
class Moments:
    """The optimizer's memory of one (N, D) tensor."""

    first: Tensor
    """Mean gradient; empty for RMSprop."""
    second: Tensor
    """Mean square of the gradient."""
    last: Tensor
    """(N,) Step at which a row was touched last, in float32, so exact up to 16 million; empty for Adam."""
    step: int = 0
    """Steps done."""


def moments(parameter: Tensor, optimizer: OptimizerName) -> Moments:
    """A memory without memories."""
    adam = optimizer == "adam"
    return Moments(
        first=torch.zeros_like(parameter) if adam else parameter.new_zeros(0),
        second=torch.zeros_like(parameter),
        last=parameter.new_zeros(0 if adam else len(parameter)),
    )


def step(parameter: Tensor, memory: Moments, rows: Tensor | None, gradient: Tensor, *, lr: float) -> None:
    """Move some rows, each at most once.

    Args:
        parameter: (N, D), changed in place.
        memory: of this tensor, changed in place; it knows which optimizer it is of.
        rows: (R,) distinct numbers; None: all.
        gradient: (R, D) of these rows.
        lr: learning rate.
    """
    memory.step += 1
    change = (_adam if len(memory.first) else _rmsprop)(memory, rows, gradient).mul_(-lr)
    if rows is None:
        parameter.add_(change)
    else:
        parameter.scatter_add_(0, rows.unsqueeze(1).expand_as(change), change)  # a third of index_add_'s time


def _rmsprop(memory: Moments, rows: Tensor | None, gradient: Tensor) -> Tensor:
    age_R1 = (memory.step - _taken(memory.last, rows)).unsqueeze(1)
    second = _taken(memory.second, rows).mul_(_ALPHA**age_R1).addcmul_(gradient, gradient, value=1 - _ALPHA)
    _kept(memory.second, rows, second)
    if rows is None:
        memory.last.fill_(memory.step)
    else:
        memory.last.index_fill_(0, rows, memory.step)
    return gradient / second.sqrt().add_(_EPSILON)


def _adam(memory: Moments, rows: Tensor | None, gradient: Tensor) -> Tensor:
    first = _taken(memory.first, rows).lerp_(gradient, 1 - _BETA1)
    second = _taken(memory.second, rows).mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
    _kept(memory.first, rows, first)
    _kept(memory.second, rows, second)
    unbiased = second.sqrt().div_((1 - _BETA2**memory.step) ** 0.5).add_(_EPSILON)
    return (first / unbiased).div_(1 - _BETA1**memory.step)


def _taken(whole: Tensor, rows: Tensor | None) -> Tensor:
    """All of a tensor itself, or a copy of some rows."""
    return whole if rows is None else whole.index_select(0, rows)


def _kept(whole: Tensor, rows: Tensor | None, part: Tensor) -> None:
    if rows is not None:
        whole.index_copy_(0, rows, part)
