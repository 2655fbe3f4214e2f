"""What one build was asked for: a value, printed, hashed and kept beside the result."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from ingest.areas.aoi import Aoi, DateRange
from ingest.areas.block_grid import check_block
from ingest.areas.grid import MOST_CELLS, check_chip_px
from ingest.catalogs.profiles import Profile
from ingest.scenes.spacing import Spacing
from pipeline.bands import L1C_NAMES, S2_NAMES
from pipeline.codec import Codec, Kind
from pipeline.errors import UsageError

GridKind = Literal["utm", "aoi", "scene", "blocks"]
OrbitKind = Literal["any", "ascending", "descending"]
LAST_TRACK = 175
"""Sentinel-1 repeats its ground track after so many orbits."""
LEVELS = ("l2a", "l1c")
"""Of Sentinel-2, that `--s2` may name."""
PRODUCTS = ("rtc", "grd")
"""Of Sentinel-1, that `--s1` may name."""
MOST_GUARD_KM = 200.0
"""Kilometres. Beyond, distances in the plane of a UTM zone are no longer those on the ground."""
_UNITS_H = {"h": 1.0, "d": 24.0}
_UNITS_M = {"m": 1.0, "km": 1000.0}


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


def parse_gap(text: str, flag: str) -> float:
    """Hours of `3d` or `12h`, given to `flag`.

    Raises:
        UsageError: not a positive number of days or hours.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"{flag} {text!r}: write days or hours, as 3d or 12h.")
    return float(match[1]) * _UNITS_H[match[2]]


def parse_distance(text: str, flag: str) -> float:
    """Metres of `5km` or `500m`, given to `flag`.

    Raises:
        UsageError: not a number of metres or kilometres.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(km|m)", text.strip())
    if not match:
        raise UsageError(f"{flag} {text!r}: write metres or kilometres, as 500m or 5km.")
    return float(match[1]) * _UNITS_M[match[2]]


def parse_sampling(
    count: int | None, sampler: SamplerKind | None, *, weights: str | None, shares: str | None, spread: str | None
) -> Sampling | None:
    """What `--sample` and its companions say.

    Raises:
        UsageError: a companion is missing, or one too many is there.
    """
    if count is None:
        if (sampler, weights, shares, spread) == (None, None, None, None):
            return None
        raise UsageError("--sampler, --weights, --shares and --spread say how to draw: add --sample N, or drop them.")
    sampler = sampler or "grid"
    if not 1 <= count <= MOST_CELLS:
        raise UsageError(f"--sample {count}: from 1 to {MOST_CELLS:,} cells.")
    _check_companions(sampler, {"--weights": weights, "--shares": shares, "--spread": spread})
    return Sampling(
        count=count,
        sampler=sampler,
        weights=weights or "",
        shares=parse_shares(shares or ""),
        spread_m=parse_distance(spread, "--spread") if spread else 0.0,
    )


def _check_companions(sampler: SamplerKind, given: Mapping[str, str | None]) -> None:
    needed, allowed = {
        "grid": ((), ()),
        "blocks": ((), ()),
        "land": (("--weights",), ("--weights",)),
        "classes": (("--weights",), ("--weights", "--shares")),
        "points": (("--weights", "--spread"), ("--weights", "--spread")),
    }[sampler]
    missing = [flag for flag in needed if not given[flag]]
    extra = [flag for flag, value in given.items() if value is not None and flag not in allowed]
    if missing:
        raise UsageError(f"--sampler {sampler} needs {' and '.join(missing)}.")
    if extra:
        raise UsageError(f"--sampler {sampler} takes no {' or '.join(extra)}. Leave them out, or take another sampler.")


def parse_shares(text: str) -> dict[str, float]:
    """Share by class of `1=0.5,2=0.25`.

    Raises:
        UsageError: not such a list, a class twice, or a share that is not above 0.
    """
    pairs = [part.strip() for part in text.split(",") if part.strip()]
    matches = [re.fullmatch(r"(\d+)=(\d+(?:\.\d+)?)", pair) for pair in pairs]
    shares = {str(int(match[1])): float(match[2]) for match in matches if match}
    if len(shares) < len(pairs) or not all(shares.values()):
        raise UsageError(f"--shares {text!r}: write each class once with a share above 0, as 1=0.5,2=0.5.")
    return shares


def parse_s2(text: str, profile: Profile) -> str:
    """The collection of `l2a`, of `l1c`, or of its own id.

    Raises:
        UsageError: the catalog is known not to have that level, or the text is empty.
    """
    name = text.strip()
    if not name or (name in LEVELS and name not in profile.s2):
        raise UsageError(f"--s2 {text!r}: choose from {', '.join(profile.s2)}, or give a collection's id.")
    return profile.s2.get(name, name)


def parse_s1(text: str, profile: Profile) -> tuple[str, ...]:
    """Collections of `rtc,grd`.

    Raises:
        UsageError: an unknown product, or one that the catalog is known not to have.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PRODUCTS]
    if unknown or not names:
        raise UsageError(f"--s1 {text!r}: choose from {', '.join(PRODUCTS)}, the preferred first.")
    absent = [name for name in names if name not in profile.s1]
    if absent:
        raise UsageError(
            f"--s1 {text!r}: {profile.name} has {', '.join(profile.s1)} only. "
            "Use --catalog planetary-computer, or --kind stack, which needs no Sentinel-1."
        )
    return tuple(profile.s1[name] for name in names)


def parse_tracks(text: str) -> tuple[int, ...]:
    """Relative orbits of `44,117`; all of them for an empty text.

    Raises:
        UsageError: not numbers of Sentinel-1's tracks.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if not (name.isdecimal() and 1 <= int(name) <= LAST_TRACK)]
    if wrong:
        raise UsageError(
            f"--tracks {text!r}: {wrong} are no relative orbits of Sentinel-1, which are 1 to {LAST_TRACK}."
        )
    return tuple(sorted({int(name) for name in names}))


def parse_bands(text: str, s2: str) -> tuple[str, ...]:
    """S2 bands of `B02,B03,B04`, in storage order; all that collection `s2` has for an empty text.

    Raises:
        UsageError: an unknown band, or B10 of Level-2A.
    """
    offered = L1C_NAMES if "l1c" in s2 else S2_NAMES
    names = {name.strip().upper() for name in text.split(",") if name.strip()}
    unknown = sorted(names - {*offered})
    if unknown:
        hint = " B10 is a band of Level-1C: --s2 l1c." if unknown == ["B10"] else ""
        raise UsageError(f"--bands {text!r}: {unknown} are no bands of {s2}. Choose from {','.join(offered)}.{hint}")
    return tuple(name for name in offered if name in names) or offered


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
