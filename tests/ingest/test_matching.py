"""One-to-one matching against trying every assignment."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.scenes.matching import match

pytestmark = pytest.mark.ingest
MOMENTS = st.lists(st.integers(0, 60), max_size=5).map(sorted)


@settings(max_examples=300)
@given(MOMENTS, MOMENTS, st.integers(0, 30))
def test_most_pairs_and_of_those_the_least_total(rows: list[int], columns: list[int], limit: int) -> None:
    table = [[float(abs(a - b)) if abs(a - b) <= limit else None for b in columns] for a in rows]
    best = (0, 0.0)
    for order in permutations([*range(len(columns)), *[None] * len(rows)], len(rows)):
        chosen = [table[i][j] for i, j in enumerate(order) if j is not None]
        if None not in chosen:
            best = max(best, (len(chosen), -sum(chosen)))
    found = match(table)
    met = [table[i][j] for i, j in enumerate(found) if j is not None]
    assert None not in met
    assert (len(met), -sum(met)) == best
    used = [j for j in found if j is not None]
    assert len(found) == len(rows)
    assert len(set(used)) == len(used)


def test_nothing_to_match() -> None:
    assert match([]) == []
    assert match([[], []]) == [None, None]
    assert match([[None]]) == [None]
