"""Tie-aware figures against every order of the ties, written out; the acceptance test 1 of itr.md."""

from itertools import permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from train.grouprec import ties

pytestmark = pytest.mark.train
SCORES = st.lists(st.integers(0, 3), min_size=1, max_size=7)


def _found(*scores: list[float]) -> ties.Standing:
    table = np.array(scores, np.float32)
    return ties.standing(table, np.ones(table.shape, np.bool_))


def _rank(order: tuple[int, ...], scores: list[int]) -> int:
    """Of candidate 0, when equals stand as `order` has them."""
    return 1 + sorted(order, key=lambda at: -scores[at]).index(0)


@given(SCORES)
def test_expected_is_the_mean_over_all_orders(scores: list[int]) -> None:
    ranks = [_rank(order, scores) for order in permutations(range(len(scores)))]
    for cut in (1, 2, 5):
        hits = np.mean([rank <= cut for rank in ranks])
        gains = np.mean([1 / log2(rank + 1) if rank <= cut else 0 for rank in ranks])
        assert ties.hit(_found(scores), cut, "expected")[0] == pytest.approx(hits)
        assert ties.ndcg(_found(scores), cut, "expected")[0] == pytest.approx(gains)


@given(SCORES)
def test_first_and_last_are_the_best_and_the_worst_order(scores: list[int]) -> None:
    ranks = [_rank(order, scores) for order in permutations(range(len(scores)))]
    for order, rank in (("first", min(ranks)), ("last", max(ranks))):
        for cut in (1, 2, 5):
            assert ties.hit(_found(scores), cut, order)[0] == (rank <= cut)
            assert ties.ndcg(_found(scores), cut, order)[0] == pytest.approx(1 / log2(rank + 1) if rank <= cut else 0)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_first_expected_last_are_ordered_and_permuting_changes_nothing(scores: list[int], random: object) -> None:
    shuffled = scores[1:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = _found(scores), _found([scores[0], *shuffled])
    for figure in (ties.hit, ties.ndcg):
        for cut in (1, 5, 10):
            first, expected, last = (figure(one, cut, order)[0] for order in ("first", "expected", "last"))
            assert first >= expected - 1e-12
            assert expected >= last - 1e-12
            assert figure(other, cut, "expected")[0] == expected


def test_equal_scores_give_chance() -> None:
    found = ties.figures(_found([0.5] * 101), "expected")
    assert found.hr == pytest.approx({"5": 5 / 101, "10": 10 / 101})
    assert found.ndcg == pytest.approx({"5": 2.948 / 101, "10": 4.544 / 101}, abs=1e-5)


@pytest.mark.parametrize("tied", [1, 2, 7])
def test_a_tie_at_the_top_is_shared(tied: int) -> None:
    assert ties.hit(_found([1.0] * tied + [0.0] * (101 - tied)), 1, "expected")[0] == pytest.approx(1 / tied)


def test_argsort_is_numpys() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (50, 101)).astype(np.float32)
    found = ties.standing(scores, np.ones(scores.shape, np.bool_))
    ranks = [np.argsort(-row).tolist().index(0) + 1 for row in scores]
    assert ties.hit(found, 10, "argsort").tolist() == [rank <= 10 for rank in ranks]


def test_candidates_that_do_not_count_do_not_count() -> None:
    valid = np.array([[True, False, True, False]])
    found = ties.standing(np.array([[1.0, 2.0, 1.0, 1.0]]), valid)
    assert (found.higher_R.tolist(), found.tied_R.tolist()) == ([0], [2])


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UsageError, match="not finite"):
        _found([float("nan"), 1.0])
