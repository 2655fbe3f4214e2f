"""What one build was asked for: a value, printed, hashed and kept beside the result."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from ingest.areas.aoi import Aoi, DateRange
from ingest.areas.block_grid import check_block
from ingest.areas.grid import check_chip_px
from ingest.scenes.spacing import Spacing
from pipeline.codec import Codec, Kind
from pipeline.errors import UsageError

GridKind = Literal["utm", "aoi", "scene", "blocks"]
OrbitKind = Literal["any", "ascending", "descending"]
MOST_GUARD_KM = 200.0
"""Kilometres. Beyond, distances in the plane of a UTM zone are no longer those on the ground."""


SamplerKind = Literal["grid", "land", "classes", "points", "blocks"]
MOST_SPREAD_M = 1_000_000
"""Metres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How some of an area's cells are drawn."""

    count: int
    """Cells."""
    sampler: SamplerKind
    """`grid` all alike, `land` by weight, `classes` so many of each, `points` round places, `blocks` block by block."""
    weights: str
    """The sampler's file, as it was given; empty for those without."""
    shares: Mapping[str, float]
    """Of each class, in any unit; empty for equal shares of those that occur."""
    spread_m: float
    """Metres. Standard deviation round a point, to the east and to the north; 0 for samplers without points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides which bytes a build writes."""

    kind: Kind
    """`pair`: S2 with the S1 nearest in time. `stack`: several dates of S2."""
    areas: tuple[Aoi, ...]
    """Where."""
    dates: DateRange
    """When the S2 scene was acquired."""
    catalog: str
    """STAC API, catalog.json or items.parquet; or the name of a profile."""
    s2: str
    """STAC collection of Sentinel-2."""
    s1: tuple[str, ...]
    """STAC collections of Sentinel-1, the preferred first; none for stacks without radar."""
    max_gap_hours: float
    """Hours between S2 and its S1, at most; 0 without S1."""
    orbit: OrbitKind
    """Pass direction of S1."""
    tracks: tuple[int, ...]
    """Relative orbits of S1; empty takes all."""
    one_to_one: bool
    """Whether each S1 acquisition of a cell may be in one pair only."""
    frames: int
    """Dates of a stack; 1 for pairs."""
    min_gap_hours: float
    """Hours between neighbouring dates of a stack, at least."""
    widest_gap_hours: float | None
    """Hours between neighbouring dates of a stack, at most; None for any."""
    seasons: bool
    """Whether each date of a stack lies in the season after the one before it."""
    s2_bands: tuple[str, ...]
    """Stored S2 bands, in storage order."""
    max_cloud_percent: float
    """Percent of a chip's pixels that may be cloud."""
    cloud_percent: float | None
    """Percent. Probability of cloud from which a pixel is one; None leaves it to the scene classification."""
    cloud_model: str
    """`module:function` of a cloud model of the user's; empty for none."""
    max_nodata_percent: float
    """Percent of a chip's pixels that may have no data in one of the sensors."""
    chip_px: int
    """Pixels of 10 m. Side of a chip."""
    grid: GridKind
    """`utm` fixed lattice, `aoi` one cell centred on each area, `scene` the S2 image's own pixels, `blocks` cells that
    straddle no COG block of S2's tiles."""
    block_px: int
    """Pixels. Side of a COG block of the 10 m bands; 0 on grids that know none."""
    sampling: Sampling | None
    """Which of the cells; all of them without."""
    codec: Codec
    """How arrays are encoded in shards."""
    labels: tuple[str, ...]
    """STAC collections of labels that ride along."""
    val_percent: float
    """Percent of the ground that is kept for validation."""
    guard_km: float
    """Kilometres that training cells keep from validation ground; at 0 they only do not overlap it."""
    seed: int
    """Decides which ground that is, and which cells are drawn."""


def check(request: Request) -> Request:
    """The request itself, if its numbers make sense.

    Raises:
        UsageError: a number is out of range.
    """
    check_chip_px(request.chip_px)
    for flag, value in (
        ("--max-cloud", request.max_cloud_percent),
        ("--max-nodata", request.max_nodata_percent),
        ("--cloud-percent", request.cloud_percent or 0),
        ("--val", request.val_percent),
    ):
        if not 0 <= value <= 100:
            raise UsageError(f"{flag} {value}: a percentage lies between 0 and 100.")
    if not request.guard_km <= MOST_GUARD_KM:
        raise UsageError(f"--guard {request.guard_km:g}km: at most {MOST_GUARD_KM:g}km.")
    if request.sampling:
        _check_sampling(request.sampling, request.grid)
    if request.grid == "blocks":
        check_block(request.chip_px, request.block_px)
    if request.frames < 1:
        raise UsageError(f"--frames {request.frames}: a stack has at least one date.")
    if request.widest_gap_hours is not None and request.widest_gap_hours < request.min_gap_hours:
        raise UsageError(
            f"--max-gap of {request.widest_gap_hours:g} h is below --min-gap of {request.min_gap_hours:g} h. Swap them."
        )
    return request


def _check_sampling(sampling: Sampling, grid: GridKind) -> None:
    if grid not in {"utm", "blocks"}:
        raise UsageError(f"--sample draws cells of --grid utm or blocks; --grid {grid} has none before the catalog.")
    if sampling.sampler == "blocks" and grid != "blocks":
        raise UsageError("--sampler blocks draws cells of --grid blocks. Add that grid.")
    if sampling.sampler == "points" and not 0 < sampling.spread_m <= MOST_SPREAD_M:
        raise UsageError(f"--spread {sampling.spread_m:g}m: above 0 and at most {MOST_SPREAD_M // 1000}km.")


def spacing(request: Request) -> Spacing:
    """What the dates of a stack must keep to."""
    return Spacing(min_gap_hours=request.min_gap_hours, max_gap_hours=request.widest_gap_hours, seasons=request.seasons)


def s1_dates(request: Request) -> DateRange:
    """The dates, widened by the gap: an S1 scene may lie just outside them."""
    days = math.ceil(request.max_gap_hours / 24)
    return DateRange(start=_moved(request.dates.start, -days), end=_moved(request.dates.end, days))


def _moved(day: date | None, days: int) -> date | None:
    """`day` moved; open where the calendar ends."""
    try:
        return day and day + timedelta(days=days)
    except OverflowError:
        return None
