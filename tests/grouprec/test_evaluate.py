"""Candidates and tables against plain loops, and the baselines' figures against those of the specification."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.grouprec import benchmark, candidates, evaluate, planted
from train.grouprec.baselines import Ease, Popularity
from train.grouprec.evaluate import Result
from train.grouprec.interactions import Cases, Ints, Pairs
from train.grouprec.intervals import interval
from train.grouprec.names import Protocol
from train.grouprec.planted import Planted
from train.grouprec.ties import Figures, Floats

pytestmark = pytest.mark.train
KNOWN = Pairs.of(np.array([0, 0, 1]), np.array([2, 5, 1]), (2, 8))
CASES = Cases(
    ids_R=np.array([0, 1]),
    positives_R=np.array([3, 1]),
    negatives_RN=np.array([[3, 2, 4, 4, 5, 6], [0, 1, 2, 2, 2, 7]]),
)


class _Flat:
    """Scores that saturate."""

    def users(self, ids_B: Ints, items_BC: Ints) -> Floats:
        return np.ones(items_BC.shape, np.float32)

    groups = users


def _counted(protocol: Protocol) -> list[list[int]]:
    (batch,) = candidates.batches(CASES, KNOWN, protocol)
    return [items[valid].tolist() for items, valid in zip(batch.items_BC, batch.valid_BC, strict=True)]


def test_listed_candidates_are_the_files() -> None:
    assert _counted("listed") == [[3, 3, 2, 4, 4, 5, 6], [1, 0, 1, 2, 2, 2, 7]]


def test_clean_candidates_lack_copies_training_items_and_repeats() -> None:
    assert _counted("clean") == [[3, 4, 6], [1, 0, 2, 7]]


def test_full_ranking_lacks_training_items_only() -> None:
    assert _counted("full") == [[3, 0, 1, 4, 6, 7], [1, 0, 2, 3, 4, 5, 6, 7]]


def test_batches_are_bounded_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_SCORES_AT_ONCE", 8)
    parts = list(candidates.batches(CASES, KNOWN, "listed"))
    assert [part.ids_B.tolist() for part in parts] == [[0], [1]]


def test_ties_warn_and_leaked_rows_are_told_apart() -> None:
    data, _ = planted.dataset(Planted(users=20, items=40, groups=2, per_user=4))
    leaky = replace(data, user_items=KNOWN, user_cases=CASES)
    whole, rest = evaluate.results(_Flat(), leaky)
    assert (whole.rows, whole.without_leaked, rest.rows, rest.without_leaked) == (2, False, 1, True)
    assert whole.ties == 7
    assert whole.warning is not None
    assert "by 1.000 (7.0 of" in whole.warning


def _numbers(found: Figures) -> tuple[float, ...]:
    return (*found.hr.values(), *found.ndcg.values())


def _of(lines: list[Result], who: str) -> tuple[float, ...]:
    return _numbers(next(line for line in lines if line.who == who and not line.without_leaked).expected)


@pytest.mark.parametrize(
    ("name", "group", "user"),
    [
        ("mafengwo", (0.0995, 0.1804, 0.0541, 0.0803), (0.6359, 0.7433, 0.4577, 0.4926)),
        ("camra2011", (0.5869, 0.7758, 0.4003, 0.4615), (0.6230, 0.7896, 0.4200, 0.4742)),
    ],
)
def test_popularity_is_that_of_the_specification(
    benchmarks: Path, name: str, group: tuple[float, ...], user: tuple[float, ...]
) -> None:
    """Source: itr.md, section 5.1."""
    data, _ = benchmark.read(str(benchmarks / name))
    lines = evaluate.results(Popularity.of(data), data)
    assert _of(lines, "group") == pytest.approx(group, abs=5e-5)
    assert _of(lines, "user") == pytest.approx(user, abs=5e-5)


def test_ease_is_that_of_the_specification(benchmarks: Path) -> None:
    """Source: itr.md, section 9.2; its published-order figure is section 8's mark of ties."""
    data, _ = benchmark.read(str(benchmarks / "mafengwo"))
    lines = evaluate.results(Ease.of(data), data)
    assert _of(lines, "group") == pytest.approx((0.1032, 0.1843, 0.0614, 0.0876), abs=5e-5)
    assert _of(lines, "user") == pytest.approx((0.7490, 0.8559, 0.5603, 0.5950), abs=5e-5)
    (group,) = (line for line in lines if line.who == "group")
    assert group.first.hr["5"] > group.expected.hr["5"] + 0.08


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_ease_solves_its_equations(shape: tuple[int, int]) -> None:
    """B = 1 - P / diag(P), P = (X'X + penalty)^-1, whichever side is smaller."""
    data, _ = planted.dataset(Planted(users=shape[0], items=shape[1], groups=2, per_user=6))
    x = np.zeros(shape)
    x[data.user_items.split()] = 1
    inverse = np.linalg.inv(x.T @ x + 3 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = Ease.of(data, penalty=3).users(np.arange(shape[0]), np.tile(np.arange(shape[1]), (shape[0], 1)))
    assert scores == pytest.approx(x @ weights, abs=1e-6)


def test_a_group_scores_as_the_mean_of_its_members() -> None:
    data, _ = planted.dataset(Planted(users=10, items=8, groups=2, per_user=3))
    ease = Ease.of(data, penalty=1)
    scores = ease.groups(np.array([1]), np.array([[2, 5]]))
    assert scores[0] == pytest.approx(ease.scores_UI[data.members.row(1)][:, [2, 5]].mean(axis=0))


def test_intervals_are_students() -> None:
    found = interval([0.42, 0.44, 0.43])
    assert found.mean == pytest.approx(0.43)
    assert found.half == pytest.approx(4.303 * 0.01 / 3**0.5)
    assert interval([0.5]).half is None
