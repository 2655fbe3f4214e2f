"""The texts of flags → values; what cannot be meant is refused at the door, in words."""

import re
from collections.abc import Mapping

from ingest.areas.grid import MOST_CELLS
from ingest.catalogs.profiles import Profile
from ingest.request import SamplerKind, Sampling
from pipeline.bands import L1C_NAMES, S2_NAMES
from pipeline.errors import UsageError

LAST_TRACK = 175
"""Sentinel-1 repeats its ground track after so many orbits."""
LEVELS = ("l2a", "l1c")
"""Of Sentinel-2, that `--s2` may name."""
PRODUCTS = ("rtc", "grd")
"""Of Sentinel-1, that `--s1` may name."""
_UNITS_H = {"h": 1.0, "d": 24.0}
_UNITS_M = {"m": 1.0, "km": 1000.0}


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
