"""Chains of dates against trying every choice of dates."""

from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.scenes.spacing import Spacing, chain, lengths

pytestmark = pytest.mark.ingest
START = datetime(2023, 11, 20, tzinfo=UTC)
TIMES = st.lists(st.integers(0, 420), max_size=9, unique=True).map(
    lambda days: [START + timedelta(days=day) for day in sorted(days)]
)
SPACINGS = st.builds(
    Spacing,
    min_gap_hours=st.sampled_from([0.0, 24.0 * 20, 24.0 * 50]),
    max_gap_hours=st.sampled_from([None, 24.0 * 60, 24.0 * 100]),
    seasons=st.booleans(),
)


def _is_chain(dates: tuple[datetime, ...], spacing: Spacing) -> bool:
    """Written out, without `links`."""
    for one, other in pairwise(dates):
        gap = (other - one).total_seconds() / 3600
        if gap < spacing.min_gap_hours or gap > (spacing.max_gap_hours or 1e9):
            return False
        if spacing.seasons and (_season(other) - _season(one)) % 4 != 1:
            return False
        if spacing.seasons and gap > 24 * 200:  # the next season, but of another year
            return False
    return True


def _season(when: datetime) -> int:
    return {12: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2, 9: 3, 10: 3, 11: 3}[when.month]


def _longest(times: list[datetime], spacing: Spacing) -> int:
    sizes = range(len(times), 0, -1)
    return next((n for n in sizes if any(_is_chain(dates, spacing) for dates in combinations(times, n))), 0)


@settings(max_examples=200)
@given(TIMES, SPACINGS, st.integers(1, 4))
def test_a_chain_is_found_where_one_exists(times: list[datetime], spacing: Spacing, frames: int) -> None:
    assert max(lengths(times, spacing), default=0) == _longest(times, spacing)
    found = chain(times, spacing, frames)
    assert (found is not None) == (_longest(times, spacing) >= frames)
    if found is not None:
        dates = tuple(times[i] for i in found)
        assert len(dates) == frames
        assert _is_chain(dates, spacing)
        assert _longest(times[: found[-1]], spacing) < frames, "one ended earlier"


@settings(max_examples=200)
@given(TIMES, SPACINGS, st.integers(1, 4), st.sets(st.integers(0, 8)))
def test_looking_only_at_dates_that_help_finds_all_that_looking_at_all_finds(
    times: list[datetime], spacing: Spacing, frames: int, cloudy: set[int]
) -> None:
    good: list[datetime] = []
    for i, when in enumerate(times):
        if spacing.helps(when, list(zip(good, lengths(good, spacing), strict=True))) and i not in cloudy:
            good.append(when)
    clear = [when for i, when in enumerate(times) if i not in cloudy]
    assert (chain(good, spacing, frames) is None) == (chain(clear, spacing, frames) is None)
    if spacing.max_gap_hours is None and not spacing.seasons:
        assert len(good) == max(lengths(good, spacing), default=0), "a date was looked at in vain"
