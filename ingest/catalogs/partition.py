"""Areas, dates and collections → the questions that an API is asked: about a degree, a month, one collection each.

Public APIs fail at wide boxes and deep pages, and repeat items over them; a question of this size fits on a page or
two. Together the parts cover what was asked for; what they cover beyond it is filtered by who asks.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import product

import shapely
from shapely.geometry.base import BaseGeometry

from ingest.areas.aoi import DateRange

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""
MONTH_DAYS = 31
"""Days. A range of dates that is not longer stays whole."""
FIRST_YEAR = 2015
"""Of the archives, nearly: what lies before is one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question."""

    collection: str
    """STAC collection."""
    box: Box
    """Where."""
    dates: DateRange
    """When."""

    @property
    def is_open(self) -> bool:
        """Whether the dates have no beginning or no end: how much there is cannot be guessed."""
        return self.dates.start is None or self.dates.end is None

    def stac_datetime(self) -> str | None:
        """As a STAC interval that ends with the midnight after the last day: APIs take ends to the second only."""
        if self.dates == DateRange(start=None, end=None):
            return None
        start, end = self.dates.start, self.dates.end
        last = ".." if end is None else f"{_next(end)}T00:00:00Z"
        return f"{'..' if start is None else f'{start}T00:00:00Z'}/{last}"


def parts(collections: Sequence[str], areas: Sequence[BaseGeometry], dates: DateRange, *, today: date) -> list[Part]:
    """The questions; one where everything is small. Open dates are not cut: there may be little in them."""
    whole = [Part(collection=name, box=where, dates=dates) for name, where in product(collections, boxes(areas))]
    if dates.start is None or dates.end is None or (dates.end - dates.start).days < MONTH_DAYS:
        return whole
    return [month for part in whole for month in cut(part, today)]


def boxes(areas: Sequence[BaseGeometry]) -> list[Box]:
    """Boxes of about a degree that hold all areas: small areas near each other share one."""
    if _is_small(bounds := _bounds(areas)):
        return [bounds]
    found: dict[tuple[int, int], list[BaseGeometry]] = defaultdict(list)
    for area in shapely.get_parts(areas):
        for piece in [area] if _is_small(_bounds([area])) else _cells(area):
            west, south, east, north = piece.bounds
            found[math.floor((west + east) / 2), math.floor((south + north) / 2)].append(piece)
    return [_bounds(found[place]) for place in sorted(found)]


def cut(part: Part, today: date) -> list[Part]:
    """A part as calendar months from `FIRST_YEAR` to `today`; what lies before and after them stays whole."""
    start, end = part.dates.start, part.dates.end
    first_days = [date(year, month, 1) for year in range(FIRST_YEAR, today.year + 1) for month in range(1, 13)]
    inside = [
        day for day in first_days if day <= today and (start is None or day > start) and (end is None or day <= end)
    ]
    firsts, lasts = [start, *inside], [*(day - timedelta(days=1) for day in inside), end]
    return [replace(part, dates=DateRange(start=first, end=last)) for first, last in zip(firsts, lasts, strict=True)]


def _cells(area: BaseGeometry) -> Iterator[BaseGeometry]:
    west, south, east, north = area.bounds
    for x, y in product(range(math.floor(west), math.ceil(east)), range(math.floor(south), math.ceil(north))):
        piece = shapely.clip_by_rect(area, x, y, x + 1, y + 1)
        if not piece.is_empty:
            yield piece


def _bounds(areas: Sequence[BaseGeometry]) -> Box:
    west, south, east, north = (float(side) for side in shapely.total_bounds(areas))
    return west, south, east, north


def _is_small(sides: Box) -> bool:
    west, south, east, north = sides
    return east - west <= 1 and north - south <= 1


def _next(day: date) -> date:
    return day + timedelta(days=1) if day < date.max else day
