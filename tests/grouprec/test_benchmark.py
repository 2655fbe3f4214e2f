"""The benchmark's files: counts that others published, each defect on a hand-made split, errors that quote the line."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from train.grouprec import benchmark

pytestmark = pytest.mark.train

GOOD = {
    "groupMember.txt": "0 0,1\n2 3,1\n",
    "userRatingTrain.txt": "0 0 80\n0 1 50\n0 1 40\n1 2 0\n1 3 10\n",
    "userRatingTest.txt": "0 4 90\n1 3 0\n",
    "userRatingNegative.txt": "(0,4) 4 1 6 6\r\n(1,3) 0 1 2 4\r\n",
    "groupRatingTrain.txt": "0 5 60\n2 1 0\n",
    "groupRatingTest.txt": "0 5 60\n0 5 60\n2 3 70\n",
    "groupRatingNegative.txt": "(0,5) 1 2\n(0,5) 1 2\n(2,3) 5 8\n",
}


def _write(folder: Path, **changes: str) -> str:
    for name, text in GOOD.items():
        (folder / name).write_text(changes.get(name.removesuffix(".txt"), text))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "sizes", "rows", "pairs"),
    [
        ("mafengwo", (5275, 1513, 995), (1754, 995), (38011, 2600)),
        ("camra2011", (602, 7710, 290), (3010, 1450), (111845, 112659)),
    ],
)
def test_counts_are_those_of_the_specification(
    benchmarks: Path, *, name: str, sizes: tuple[int, ...], rows: tuple[int, ...], pairs: tuple[int, ...]
) -> None:
    """Source: itr.md, section 1."""
    data, _ = benchmark.read(str(benchmarks / name))
    assert (data.n_users, data.n_items, data.n_groups) == sizes
    assert (len(data.user_cases), len(data.group_cases)) == rows
    assert (len(data.user_items), len(data.group_items)) == pairs
    assert data.user_cases.negatives_RN.shape[1] == data.group_cases.negatives_RN.shape[1] == 100


def test_defects_of_mafengwo(benchmarks: Path) -> None:
    """Source: the README of the files."""
    data, found = benchmark.read(str(benchmarks / "mafengwo"))
    assert (found.user.own_positive, found.group.own_positive) == (333, 33)
    assert found.user.train_positives / 1754 == pytest.approx(3.75, abs=0.005)
    assert found.group.train_positives / 995 == pytest.approx(0.11, abs=0.005)
    assert (found.user.repeated_negatives, found.group.repeated_negatives) == (589, 355)
    assert (found.user.leaked, found.group.leaked) == (0, 0)
    assert data.n_users - found.user.without_items == 2017
    assert found.group.without_items == 95
    assert 1 - found.unreachable / 995 == pytest.approx(0.092, abs=0.0005)


def test_defects_of_camra2011(benchmarks: Path) -> None:
    """Source: the README of the files."""
    _, found = benchmark.read(str(benchmarks / "camra2011"))
    assert (found.user.own_positive, found.group.own_positive) == (42, 24)
    assert found.user.train_positives / 3010 == pytest.approx(2.46, abs=0.005)
    assert found.group.train_positives / 1450 == pytest.approx(5.22, abs=0.005)
    assert (found.user.leaked, found.group.leaked) == (0, 571)
    assert 1450 - found.group.repeated_tests == 1444
    assert (found.user.lines.unrated, found.user.lines.repeated_train) == (113334 - 111845, 0)
    assert found.group.lines.unrated + found.group.lines.repeated_train == 143618 - 112659


def test_each_defect_is_counted(tmp_path: Path) -> None:
    _, found = benchmark.read(_write(tmp_path))
    user, group = found.user, found.group
    assert (user.own_positive, user.train_positives, user.repeated_negatives, user.leaked) == (1, 1, 1, 1)
    assert (user.lines.repeated_train, user.lines.unrated, user.lines.unrated_tests) == (1, 1, 1)
    assert (group.leaked, group.repeated_tests, group.without_items) == (2, 1, 1)
    assert (found.cold_members, found.groups_without_members, found.unreachable) == (1, 1, 2)
    assert "user: 1 test rows list a negative twice." in found.sentences()
    assert not any(" 0 " in sentence for sentence in found.sentences() if "rated 0" not in sentence)


def test_ids_with_gaps_and_users_without_items(tmp_path: Path) -> None:
    """Group 1, users 2 and 3, and item 7 are named nowhere or have nothing."""
    data, found = benchmark.read(_write(tmp_path))
    assert (data.n_users, data.n_items, data.n_groups) == (4, 9, 3)
    assert data.user_items.counts.tolist() == [2, 1, 0, 0]
    assert data.members.counts.tolist() == [2, 0, 2]
    assert found.user.without_items == 2


def test_only_ratings_above_zero_are_positives(tmp_path: Path) -> None:
    data, _ = benchmark.read(_write(tmp_path))
    assert data.user_items.row(1).tolist() == [3]
    assert data.group_items.row(2).tolist() == []


@pytest.mark.parametrize(
    ("file", "text", "number", "quoted"),
    [
        ("userRatingTrain", "0 0 80\n0 x 50\n", 2, "'0 x 50'"),
        ("userRatingTrain", "0 0 80\n\n0 1\n", 3, "'0 1'"),
        ("userRatingTrain", "0\n", 1, "'0'"),
        ("userRatingTrain", "0 -1 5\n", 1, "'0 -1 5'"),
        ("userRatingTrain", "0 99999999999 5\n", 1, "'0 99999999999 5'"),
        ("groupMember", "0 0,1\n2 3,,b\n", 2, "'2 3,,b'"),
        ("userRatingNegative", "(0,4) 4 1\n1,3 0 1\n", 2, "'1,3 0 1'"),
        ("userRatingNegative", "(0,4) 4 1\n(1,2) 0 1\n", 2, "'(1,2) 0 1'"),
        ("userRatingNegative", "(0,4) 4 1\n(1,3) 0\n", 2, "'(1,3) 0'"),
        ("userRatingNegative", "(0,4) 4\n(1,3) 0\n(1,3) 0\n", 3, "'(1,3) 0'"),
    ],
)
def test_a_malformed_line_is_named_and_quoted(
    tmp_path: Path, *, file: str, text: str, number: int, quoted: str
) -> None:
    url = _write(tmp_path, **{file: text})
    with pytest.raises(UsageError) as error:
        benchmark.read(url)
    assert f"{url}/{file}.txt, line {number}: {quoted}" in str(error.value)


def test_missing_files_and_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"userRatingTrain\.txt is not there"):
        benchmark.read(str(tmp_path))
    with pytest.raises(UsageError, match="has 1 rows, the test file 2"):
        benchmark.read(_write(tmp_path, userRatingNegative="(0,4) 4 1\n"))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    url = _write(tmp_path)
    (tmp_path / "userRatingTrain.txt").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(UsageError, match=r"userRatingTrain\.txt, line 1"):
        benchmark.read(url)
