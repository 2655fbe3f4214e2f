"""Which dates may follow each other in a stack, and how long a chain of them can be. Pure.

A stack is a chain of dates in order of time. Two dates may be neighbours in it when they are far enough apart, not too
far, and, where seasons are asked for, when the later one lies in the next season.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """What neighbours in a stack must keep to."""

    min_gap_hours: float
    """Hours between them, at least."""
    max_gap_hours: float | None = None
    """Hours between them, at most; None for any."""
    seasons: bool = False
    """Each date lies in the meteorological season (December to February, and so on) after the one before it."""

    def links(self, earlier: datetime, later: datetime) -> bool:
        """Whether the two may be neighbours."""
        gap_hours = (later - earlier).total_seconds() / 3600
        near = self.max_gap_hours is None or gap_hours <= self.max_gap_hours
        return self.min_gap_hours <= gap_hours and near and self.season(later) - self.season(earlier) == self.seasons

    def season(self, when: datetime) -> int:
        """Number of the season since year 0; 0 where seasons do not count.

        >>> spacing = Spacing(min_gap_hours=0, seasons=True)
        >>> spacing.season(datetime(2024, 1, 5)) == spacing.season(datetime(2023, 12, 5))
        True
        """
        return (when.year * 12 + when.month) // 3 if self.seasons else 0

    def length(self, when: datetime, before: Sequence[tuple[datetime, int]]) -> int:
        """Dates in the longest chain that ends at `when`; `before` are earlier dates with the same of theirs."""
        return 1 + max((length for date, length in before if self.links(date, when)), default=0)

    def helps(self, when: datetime, before: Sequence[tuple[datetime, int]]) -> bool:
        """Whether a chain through `when` can do what none through `before` can.

        Of two dates with chains of one length the earlier can be followed by all that can follow the later, unless
        there is a maximum gap.
        """
        rivals = [length for date, length in before if self.season(date) == self.season(when)]
        return self.max_gap_hours is not None or self.length(when, before) > max(rivals, default=0)


def lengths(times: Sequence[datetime], spacing: Spacing) -> list[int]:
    """Dates in the longest chain that ends at each of `times`, which ascend."""
    found: list[tuple[datetime, int]] = []
    for when in times:
        found.append((when, spacing.length(when, found)))
    return [length for _, length in found]


def chain(times: Sequence[datetime], spacing: Spacing, frames: int) -> list[int] | None:
    """Positions of the chain of `frames` dates that ends first, each date in it the earliest possible; None if none."""
    known = lengths(times, spacing)
    last = next((i for i, length in enumerate(known) if length >= frames), None)
    if last is None:
        return None
    found = [last]
    for length in range(frames - 1, 0, -1):
        follower = times[found[0]]
        found.insert(0, next(i for i, when in enumerate(times) if known[i] >= length and spacing.links(when, follower)))
    return found
