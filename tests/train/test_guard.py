"""Which steps are learned from: a plain loop over the accepted ones says the same, before and after a resume."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StreamError
from train import guard
from train.guard import Guard

pytestmark = pytest.mark.train
CPU = torch.device("cpu")


def plain(values: list[tuple[float, float]], sigmas: float | None, window: int) -> list[bool]:
    """Whether each step is skipped."""
    accepted: list[tuple[float, float]] = []
    told = []
    for loss, norm in values:
        skip = not (math.isfinite(loss) and math.isfinite(norm))
        if not skip and sigmas is not None and len(accepted) >= window:
            last = np.array(accepted[-window:])
            skip = bool((np.array([loss, norm]) > last.mean(axis=0) + sigmas * last.std(axis=0, ddof=1)).any())
        told.append(skip)
        if not skip:
            accepted.append((loss, norm))
    return told


def judged(judge: Guard, values: list[tuple[float, float]]) -> list[bool]:
    return [bool(judge.judge(torch.tensor(loss), torch.tensor(norm))) for loss, norm in values]


NUMBERS = st.sampled_from([1.0, 1.1, 0.9, 1.05, 0.95, 30.0, -30.0, math.nan, math.inf])


@settings(max_examples=60)
@given(
    values=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40),
    sigmas=st.sampled_from([None, 2.0, 6.0]),
    cut=st.integers(0, 40),
)
def test_it_is_a_plain_loop_and_goes_on_after_a_resume(
    values: list[tuple[float, float]], sigmas: float | None, cut: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "WINDOW", 5)
        first, second = Guard(sigmas, CPU), Guard(sigmas, CPU)
        found = judged(first, values[:cut])
        rest = second.load({**first.tensors(), "exp_avg/weight": torch.ones(1)})
        found += judged(second, values[cut:])
    assert found == plain(values, sigmas, 5)
    assert set(rest) == {"exp_avg/weight"}


def test_a_checkpoint_without_it_is_told() -> None:
    with pytest.raises(StreamError, match="older release"):
        Guard(6.0, CPU).load({})
