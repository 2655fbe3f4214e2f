"""Is a chip good enough? Mask bits from validity and scene classification, and one verdict with its reason.

Rejected chips are not errors: they are counted by reason in the manifest and keep their row in `chips.parquet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.sample import MaskBit

SCL_BITS: Mapping[int, MaskBit] = {
    0: MaskBit.S2_NODATA,
    3: MaskBit.SHADOW,
    8: MaskBit.CLOUD,
    9: MaskBit.CLOUD,
    10: MaskBit.CLOUD,
    11: MaskBit.SNOW,
}
"""Sentinel-2 scene classification: 3 shadow, 8 and 9 cloud, 10 thin cirrus, 11 snow. Source: ESA L2A ATBD."""

UNREADABLE = "unreadable: "
"""In the reason of a chip whose file is gone or damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What was found out about one chip."""

    valid_fraction: float
    """Share of pixels that both sensors have."""
    cloud_fraction: float | None
    """Share of cloudy pixels among those that S2 has; the whole scene's where there is no classification."""
    reason: str
    """Empty where the chip is accepted: `s2 nodata`, `s1 nodata`, `cloud`, or why a scene cannot be used."""


def make_mask(
    s2_valid: NDArray[np.bool_],
    s1_valid: NDArray[np.bool_],
    scl: NDArray[np.generic] | None,
    cloudy: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """(H, W) `MaskBit`s.

    Args:
        s2_valid: (H, W) True where all optical bands have data.
        s1_valid: (H, W) True where both polarisations have data.
        scl: (H, W) scene classification, None where the product has none.
        cloudy: (H, W) True where a probability says cloud, None where there is none.
    """
    mask = _bits(~s2_valid, MaskBit.S2_NODATA) | _bits(~s1_valid, MaskBit.S1_NODATA)
    if scl is not None:
        for value, bit in SCL_BITS.items():
            mask |= _bits(scl == value, bit)
    if cloudy is not None:
        mask |= _bits(cloudy, MaskBit.CLOUD)
    return mask


def judge(
    mask: NDArray[np.uint8], cloud_fraction: float | None, *, max_nodata: float, max_cloud: float
) -> QualityReport:
    """The verdict on one chip; the limits are shares, not percent."""
    lost = {"s2 nodata": MaskBit.S2_NODATA, "s1 nodata": MaskBit.S1_NODATA}
    reasons = [reason for reason, bit in lost.items() if _share((mask & bit) > 0) > max_nodata]
    if cloud_fraction is not None and cloud_fraction > max_cloud:
        reasons.append("cloud")
    nodata = MaskBit.S2_NODATA | MaskBit.S1_NODATA
    return QualityReport(
        valid_fraction=_share((mask & nodata) == 0),
        cloud_fraction=cloud_fraction,
        reason=reasons[0] if reasons else "",
    )


def refused(reason: str) -> QualityReport:
    """The verdict on a chip whose scene cannot be used."""
    return QualityReport(valid_fraction=0.0, cloud_fraction=None, reason=reason)


def cloud_share(mask: NDArray[np.uint8]) -> float:
    """Share of cloudy pixels among those that S2 has; 0 where it has none."""
    seen = (mask & MaskBit.S2_NODATA) == 0
    cloudy = seen & ((mask & MaskBit.CLOUD) > 0)
    return float(np.count_nonzero(cloudy) / np.count_nonzero(seen)) if seen.any() else 0.0


def _bits(where: NDArray[np.bool_], bit: MaskBit) -> NDArray[np.uint8]:
    return where * np.uint8(bit)


def _share(where: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(where) / where.size)
