"""Questions cover what is asked for, are small, and are one where that is small."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from ingest.areas.aoi import DateRange
from ingest.catalogs.partition import Part, boxes, cut, parts

pytestmark = pytest.mark.ingest
TODAY = date(2026, 11, 26)
DAYS = st.dates(date(2014, 1, 1), date(2027, 12, 31))
AREAS = st.builds(
    lambda x, y, width, height: box(x, y, min(180, x + width), min(84, y + height)),
    st.floats(-180, 179.9), st.floats(-80, 83.9), st.floats(0.01, 6), st.floats(0.01, 6),
)  # fmt: skip


def _part(start: date | None, end: date | None) -> Part:
    return Part(collection="c", box=(0.0, 0.0, 1.0, 1.0), dates=DateRange(start=start, end=end))


@given(areas=st.lists(AREAS, min_size=1, max_size=5))
def test_boxes_cover_the_areas_and_are_small(areas: list[shapely.Geometry]) -> None:
    found = boxes(areas)
    assert shapely.union_all([box(*one) for one in found]).buffer(1e-9).covers(shapely.union_all(areas))
    assert max(max(east - west, north - south) for west, south, east, north in found) <= 2


def test_small_areas_share_a_box() -> None:
    many = [box(10 + 0.009 * i, 47.3, 10.005 + 0.009 * i, 47.305) for i in range(100)]
    assert boxes(many) == [pytest.approx((10, 47.3, 10.896, 47.305))]
    assert len(boxes([*many, box(-60, -3, -59.5, -2.5)])) == 2


def test_an_area_with_a_hole_asks_for_nothing_in_it() -> None:
    frame = box(0, 0, 5, 5).difference(box(1, 1, 4, 4))
    assert len(boxes([frame])) == 16


@given(start=st.none() | DAYS, days=st.integers(0, 4000), is_open=st.booleans())
def test_months_follow_each_other_and_cover_the_dates(start: date | None, days: int, is_open: bool) -> None:
    end = None if is_open else (start or date(2014, 1, 1)) + timedelta(days=days)
    spans = [part.dates for part in cut(_part(start, end), TODAY)]
    assert (spans[0].start, spans[-1].end) == (start, end)
    for before, after in pairwise(spans):
        assert before.end is not None
        assert after.start == before.end + timedelta(days=1)
        assert after.start.day == 1
    inner = [span for span in spans if span.start and span.end and date(2015, 1, 1) <= span.start and span.end <= TODAY]
    assert all((span.end - span.start).days < 31 for span in inner)


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [
        (date(2023, 6, 20), date(2023, 7, 20), 1),
        (date(2023, 6, 1), date(2023, 8, 31), 3),
        (date(2023, 6, 20), date(2023, 8, 1), 3),
        (None, date(2023, 6, 30), 1),
        (date(2015, 1, 1), None, 1),
        (date(1, 1, 1), date(9999, 12, 31), 144),
    ],
)
def test_how_many_questions(start: date | None, end: date | None, count: int) -> None:
    areas = [box(10, 47, 10.5, 47.5)]
    assert len(parts(["c"], areas, DateRange(start=start, end=end), today=TODAY)) == count
    assert len(parts(["c", "d"], areas, DateRange(start=start, end=end), today=TODAY)) == 2 * count


@pytest.mark.parametrize(
    ("start", "end", "want"),
    [
        (None, None, None),
        (date(2023, 6, 1), date(2023, 6, 30), "2023-06-01T00:00:00Z/2023-07-01T00:00:00Z"),
        (None, date(2023, 12, 31), "../2024-01-01T00:00:00Z"),
        (date(2023, 6, 1), None, "2023-06-01T00:00:00Z/.."),
        (date(2023, 6, 1), date(9999, 12, 31), "2023-06-01T00:00:00Z/9999-12-31T00:00:00Z"),
    ],
)
def test_intervals(start: date | None, end: date | None, want: str | None) -> None:
    """The last fraction of a second of a day is a part of it: the interval ends with the next midnight."""
    part = _part(start, end)
    assert part.stac_datetime() == want
    if start and end and want and end < date.max:
        last = datetime.combine(end, datetime.max.time(), UTC)
        assert last < datetime.fromisoformat(want.partition("/")[2])
