"""Merged statistics against numpy over everything at once."""

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pipeline import record
from pipeline.errors import BandMismatch
from pipeline.stats import BINS, BandStats, measure, merge

RANGE = (0.0, 100.0)
_CHIPS = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 1))


def _chip(recipe: tuple[int, int, float]) -> tuple[np.ndarray, np.ndarray]:
    seed, size, share = recipe
    random = np.random.default_rng(seed)
    return random.normal(50, 40, (2, size, size)), random.random((size, size)) < share


def _measure(data: np.ndarray, valid: np.ndarray) -> BandStats:
    return measure(("A", "B"), data, valid, bin_range=RANGE)


@settings(max_examples=60)
@given(st.lists(_CHIPS, min_size=1, max_size=6))
def test_merged_is_numpy_over_the_whole(recipes: list[tuple[int, int, float]]) -> None:
    chips = [_chip(recipe) for recipe in recipes]
    merged = merge([_measure(*chip) for chip in chips])
    assert merged is not None
    for i in range(2):
        whole = np.concatenate([data[i][valid] for data, valid in chips])
        assert merged.count[i] == whole.size
        assert sum(merged.histogram[i]) == whole.size
        if whole.size:
            assert_allclose(
                (merged.mean[i], merged.std[i], merged.minimum[i], merged.maximum[i]),
                (whole.mean(), whole.std(), whole.min(), whole.max()),
                rtol=1e-9,
                atol=1e-9,
            )
            counts, _ = np.histogram(whole.clip(*RANGE), BINS, RANGE)
            assert merged.histogram[i] == tuple(counts.tolist())
        else:
            assert (merged.mean[i], merged.std[i], merged.minimum[i], merged.maximum[i]) == (0, 0, 0, 0)


@settings(max_examples=60)
@given(st.tuples(_CHIPS, _CHIPS, _CHIPS))
def test_merging_is_associative(recipes: tuple[tuple[int, int, float], ...]) -> None:
    a, b, c = (_measure(*_chip(recipe)) for recipe in recipes)
    left, right = merge([merge([a, b]), c]), merge([a, merge([b, c])])
    for name in ("count", "minimum", "maximum", "histogram"):
        assert getattr(left, name) == getattr(right, name)
    assert_allclose((left.mean, left.m2), (right.mean, right.m2), rtol=1e-9, atol=1e-6)


def test_integers_do_not_overflow() -> None:
    data = np.full((1, 64, 64), 65535, np.uint16)
    stats = measure(("A",), data, np.ones((64, 64), bool), bin_range=(0, 12000))
    assert (stats.mean, stats.std, stats.maximum) == ((65535.0,), (0.0,), (65535.0,))
    assert stats.histogram[0][-1] == 64 * 64


@pytest.mark.parametrize("bin_range", [RANGE, (0.0, 12000.0), (-40.0, 10.0), (30.0, 1001.5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_histogram_of_integers_is_numpys_with_every_value_there_is(
    dtype: type[np.unsignedinteger], bin_range: tuple[float, float]
) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).repeat(2).reshape(1, -1, 2)
    valid = np.random.default_rng(0).random(values.shape[1:]) < 0.7
    for seen in (valid, np.ones_like(valid), np.zeros_like(valid)):
        counts, _ = np.histogram(values[0][seen].astype(float).clip(*bin_range), BINS, bin_range)
        assert measure(("A",), values, seen, bin_range=bin_range).histogram == (tuple(counts.tolist()),)


def test_empty_parts_leave_no_trace() -> None:
    some = _measure(np.full((2, 2, 2), -7.0), np.ones((2, 2), bool))
    empty = _measure(np.full((2, 2, 2), np.nan), np.zeros((2, 2), bool))
    assert merge([empty, some, empty]) == some
    assert merge([]) is None
    assert merge([some]) is some


def test_other_bands_or_bins_do_not_merge() -> None:
    some = _measure(np.zeros((2, 2, 2)), np.ones((2, 2), bool))
    for other in (
        measure(("B", "A"), np.zeros((2, 2, 2)), np.ones((2, 2), bool), bin_range=RANGE),
        measure(("A", "B"), np.zeros((2, 2, 2)), np.ones((2, 2), bool), bin_range=(0, 1)),
    ):
        with pytest.raises(BandMismatch, match="cannot be merged"):
            merge([some, other])


def test_round_trip_is_exact() -> None:
    stats = reduce(lambda a, b: merge([a, b]), [_measure(*_chip((seed, 5, 0.7))) for seed in range(4)])
    assert record.loads(BandStats, record.dumps(stats), where="stats") == stats
    assert set(json.loads(record.dumps(stats))) == set(BandStats.__slots__)
