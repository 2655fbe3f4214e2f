"""What to add to a scene's digital numbers, and by which rule: no single field of any catalog can be trusted for it.

In this order: the catalog took the offset off already; the item states it; the processing baseline implies it. Where
they disagree, and where Earth Search says that it did not take it off, the pixels are asked (`witness`): there are
records of both kinds whose pixels say otherwise. Dates say nothing: scenes of 2015 to 2021 were reprocessed with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["boa_offset_applied", "item", "baseline", "none", "witness"]
"""Who decides. `none`: nobody says anything. `witness`: the pixels, when they are read."""
OFFSET_DN = -1000
"""Digital numbers. What baselines from 04.00 on ask to be added."""
SCALE = 1e-4
"""Reflectance of one digital number, where an item states an offset without its scale."""
_DARK_CLASSES = (2, 3, 4, 6)
"""Of the scene classification: dark, shadow, vegetation, water."""
_FEW = 200
"""Pixels. Less decide nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Testimony:
    """What the pixels of one band say."""

    dn_offset: int | None
    """Digital numbers to add; None where they do not tell."""
    evidence: str
    """What was seen, with its numbers."""


def decide(properties: Mapping[str, Any], asset: Mapping[str, Any], baseline: str | None) -> tuple[int, Rule]:
    """Digital numbers to add so that reflectance = DN x 1e-4, and who says so.

    With `witness` the number is what would have to be added if the offset is there.
    """
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    if applied:
        return 0, "boa_offset_applied"
    stated, implied = _stated(asset), _implied(baseline)
    said = {dn for dn in (stated, implied) if dn is not None}
    if len(said) > 1 or (applied is False and said != {0}):
        return min(said, default=OFFSET_DN) or OFFSET_DN, "witness"
    if stated is not None:
        return stated, "item"
    return (implied, "baseline") if implied is not None else (0, "none")


@cache
def baseline_rank(baseline: str | None) -> tuple[int, int]:
    """A processing baseline as numbers that sort, however it is written: `05.10`, `N0510`.

    >>> baseline_rank("N0510"), baseline_rank("05.10"), baseline_rank(None)
    ((5, 10), (5, 10), (0, 0))
    """
    match = re.search(r"(\d{1,2})\.(\d{1,2})|(\d{2})(\d{2})", str(baseline or ""))
    if not match:
        return 0, 0
    major, minor = (int(group) for group in match.groups() if group)
    return major, minor


def testify_cirrus(dn: NDArray[Any], dn_offset: int) -> Testimony:
    """What B10 of a Level-1C scene says: the air hides the ground there, so that nearly all is dark.

    It cannot tell where high cloud covers nearly the whole scene.
    """
    seen = dn[dn > 0]
    low, floor = _share(seen < 500), _share((seen >= 950) & (seen <= 1100))
    evidence = f"B10: {low:.1%} of {seen.size} pixels below 500, {floor:.1%} from 950 to 1100"
    if seen.size >= _FEW and low >= 0.2:
        return Testimony(dn_offset=0, evidence=evidence)
    on = seen.size >= _FEW and floor >= 0.2 and _share(seen < 900) < 0.01
    return Testimony(dn_offset=dn_offset if on else None, evidence=evidence)


def testify_coastal(dn: NDArray[Any], scl: NDArray[Any] | None, dn_offset: int) -> Testimony:
    """What B01 of a Level-2A scene says: dark over all that is not sand, snow, roof or cloud.

    Without offset many pixels lie below 700, which with it would be reflectances below -0.03. With it water, shadow and
    vegetation end near 1000. It cannot tell of a scene of snow, bright sand or cloud alone; nor, where the offset is
    there, without a classification, since such a scene without offset looks the same.

    Args:
        dn: (H, W) digital numbers as they lie in the file, 0 is nodata.
        scl: (H, W) classification of the same ground; None where there is none or it is not needed.
        dn_offset: digital numbers to add if the offset is there.
    """
    seen = dn[dn > 0]
    low = _share(seen < 700)
    evidence = f"B01: {low:.1%} of {seen.size} pixels below 700"
    if seen.size < _FEW or low >= 0.02:
        return Testimony(dn_offset=None if seen.size < _FEW else 0, evidence=evidence)
    if scl is None:
        return Testimony(dn_offset=None, evidence=evidence)
    dark = dn[(dn > 0) & np.isin(scl, _DARK_CLASSES)]
    below = _share(dark < 900)
    evidence += f", {below:.1%} of {dark.size} dark ones below 900"
    on = dark.size >= _FEW and below < 0.01
    return Testimony(dn_offset=dn_offset if on else None, evidence=evidence)


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if flags.size else 0.0


def _stated(asset: Mapping[str, Any]) -> int | None:
    band = (asset.get("raster:bands") or [{}])[0]
    offset = band.get("offset", asset.get("raster:offset"))
    if offset is None:
        return None
    return round(float(offset) / float(band.get("scale", asset.get("raster:scale")) or SCALE))


def _implied(baseline: str | None) -> int | None:
    rank = baseline_rank(baseline)
    return None if rank == (0, 0) else OFFSET_DN if rank >= (4, 0) else 0
