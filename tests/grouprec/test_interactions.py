"""Sets of pairs against Python's sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.grouprec.interactions import Pairs

pytestmark = pytest.mark.train
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30)


def _of(pairs: list[tuple[int, int]]) -> Pairs:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Pairs.of(table[:, 0], table[:, 1], (5, 7))


@given(PAIRS)
def test_rows_are_those_of_a_set(pairs: list[tuple[int, int]]) -> None:
    found = _of(pairs)
    assert [found.row(row).tolist() for row in range(5)] == [
        sorted({column for at, column in pairs if at == row}) for row in range(5)
    ]
    assert found.counts.sum() == len(found) == len(set(pairs))
    assert list(zip(*(part.tolist() for part in found.split()), strict=True)) == sorted(set(pairs))


@given(PAIRS)
def test_has_says_what_a_set_says(pairs: list[tuple[int, int]]) -> None:
    rows, columns = np.indices((5, 7))
    expected = [[(row, column) in set(pairs) for column in range(7)] for row in range(5)]
    assert _of(pairs).has(rows, columns).tolist() == expected


@given(PAIRS)
def test_transposed_twice_is_the_same(pairs: list[tuple[int, int]]) -> None:
    found = _of(pairs)
    assert found.transposed().transposed().keys_E.tolist() == found.keys_E.tolist()
    assert found.transposed().has(np.array([3]), np.array([2])) == found.has(np.array([2]), np.array([3]))
