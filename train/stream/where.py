"""Which samples of a split are used, decided from the index alone."""

from dataclasses import dataclass
from datetime import date

from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which samples of a split are used: those that meet all that is given."""

    bbox: tuple[float, float, float, float] | None = None
    """Degrees, EPSG:4326: west, south, east, north. Centres of chips within; west > east crosses the antimeridian."""
    dates: tuple[date, date] | None = None
    """First and last day (UTC), both included."""
    max_cloud: float | None = None
    """Largest share of cloudy pixels, 0..1; where nothing is known of a sample, it is used."""

    def __post_init__(self) -> None:
        """Refuse what no sample can meet."""
        west, south, east, north = self.bbox or (-180, -90, 180, 90)
        if not -90 <= south <= north <= 90:
            raise UsageError(f"a box from {south} to {north} degrees north: give W,S,E,N in degrees, S below N.")
        if not (-180 <= west <= 180 and -180 <= east <= 180):
            raise UsageError(f"a box from {west} to {east} degrees east: give W,S,E,N in degrees, -180 to 180.")
        if self.dates and self.dates[0] > self.dates[1]:
            raise UsageError(f"dates from {self.dates[0]} to {self.dates[1]}: give the first day first.")
        if self.max_cloud is not None and not 0 <= self.max_cloud <= 1:
            raise UsageError(f"a share of clouds of {self.max_cloud}: give 0 to 1 (the flag: 0 to 100).")


def where(bbox: str | None, dates: str | None, max_cloud: float | None) -> Where | None:
    """What a command line asks for; None: all.

    Args:
        bbox: `W,S,E,N` in degrees.
        dates: `START/END`, days.
        max_cloud: percent.

    Raises:
        UsageError: it cannot be read.
    """
    if bbox is None and dates is None and max_cloud is None:
        return None
    share = None if max_cloud is None else max_cloud / 100
    return Where(bbox=_sides(bbox), dates=_days(dates), max_cloud=share)


def _sides(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"--bbox {text}: write W,S,E,N in degrees, as 8.4,47.2,8.6,47.4.") from error
    return west, south, east, north


def _days(text: str | None) -> tuple[date, date] | None:
    if text is None:
        return None
    try:
        first, last = map(date.fromisoformat, text.split("/"))
    except ValueError as error:
        raise UsageError(f"--dates {text}: write START/END, as 2023-04-01/2023-09-30.") from error
    return first, last
