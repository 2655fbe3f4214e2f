"""RMSprop and Adam that touch only the rows with a gradient: a step costs its batch, not the number of users.

RMSprop is exact: a row without a gradient does not move, and its mean square is decayed when it is touched again. Adam
leaves the moments of untouched rows alone, as torch's SparseAdam does; where all rows have a gradient it is Adam.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

OptimizerName = Literal["rmsprop", "adam"]
_ALPHA, _BETA1, _BETA2, _EPSILON = 0.99, 0.9, 0.999, 1e-8
"""Torch's defaults."""


@dataclass(slots=True, kw_only=True)
class Moments:
    """The optimizer's memory of one (N, D) array."""

    first: Vectors
    """Mean gradient; empty for RMSprop."""
    second: Vectors
    """Mean square of the gradient."""
    last: NDArray[np.float32]
    """(N,) Step at which a row was touched last, in float32, so exact up to 16 million; empty for Adam."""
    step: int = 0
    """Steps done."""


def moments(parameter: Vectors, optimizer: OptimizerName) -> Moments:
    """A memory without memories."""
    adam = optimizer == "adam"
    return Moments(
        first=np.zeros_like(parameter) if adam else np.zeros(0, np.float32),
        second=np.zeros_like(parameter),
        last=np.zeros(0 if adam else len(parameter), np.float32),
    )


def step(parameter: Vectors, memory: Moments, rows: Ints | None, gradient: Vectors, *, lr: float) -> None:
    """Move some rows, each at most once.

    Args:
        parameter: (N, D), changed in place.
        memory: of this array, changed in place; it knows which optimizer it is of.
        rows: (R,) distinct numbers; None: all.
        gradient: (R, D) of these rows.
        lr: learning rate.
    """
    memory.step += 1
    change = (_adam if len(memory.first) else _rmsprop)(memory, rows, gradient)
    change *= lr
    _keep(parameter, rows, np.subtract(_taken(parameter, rows), change, out=change))


def _rmsprop(memory: Moments, rows: Ints | None, gradient: Vectors) -> Vectors:
    steps_R = memory.step - _taken(memory.last, rows)
    second = _taken(memory.second, rows)
    second *= np.exp(math.log(_ALPHA) * steps_R)[:, None]
    square = np.square(gradient)
    square *= 1 - _ALPHA
    second += square
    _keep(memory.second, rows, second)
    memory.last[... if rows is None else rows] = memory.step
    return _over_root(gradient, second, square)


def _adam(memory: Moments, rows: Ints | None, gradient: Vectors) -> Vectors:
    first, second = _taken(memory.first, rows), _taken(memory.second, rows)
    first += (1 - _BETA1) * (gradient - first)
    second *= _BETA2
    square = np.square(gradient)
    square *= 1 - _BETA2
    second += square
    _keep(memory.first, rows, first)
    _keep(memory.second, rows, second)
    unbiased = np.divide(second, 1 - _BETA2**memory.step, out=square)
    return _over_root(first / (1 - _BETA1**memory.step), unbiased, square)


def _over_root(over: Vectors, square: Vectors, out: Vectors) -> Vectors:
    np.sqrt(square, out=out)
    out += _EPSILON
    return np.divide(over, out, out=out)


def _taken(whole: NDArray[np.float32], rows: Ints | None) -> NDArray[np.float32]:
    """All of an array itself, or a copy of some rows."""
    return whole if rows is None else whole.take(rows, axis=0)


def _keep(whole: NDArray[np.float32], rows: Ints | None, part: NDArray[np.float32]) -> None:
    if part is not whole:
        whole[... if rows is None else rows] = part
