"""What flows from ingest to train: one pair or one stack of chips with its metadata.

A record here owns no file format (see `codec`) and no statistics (see `stats`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ContractError

_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")


class MaskBit(IntFlag):
    """Bits of a sample's mask; 0 is a clean pixel."""

    S2_NODATA = 1
    S1_NODATA = 2
    CLOUD = 4
    SHADOW = 8
    SNOW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMeta:
    """Where, when and from what a sample was made; the `json` member of a shard."""

    cell_id: str
    """Fixed square on the ground, `32633-r00123-c00456`."""
    epsg: int
    """CRS of the cell."""
    transform: tuple[float, float, float, float, float, float]
    """Metres. Affine (a, b, c, d, e, f) from pixel (col, row) to (x, y) of the upper left corner."""
    center_lonlat: tuple[float, float]
    """Degrees, EPSG:4326."""
    acquired: tuple[datetime, ...]
    """UTC, ascending; one for a pair (the S2 time), T for a stack."""
    s1_acquired: tuple[datetime, ...]
    """UTC time of the S1 of each frame; empty without S1."""
    scene_ids: Mapping[str, tuple[str, ...]]
    """STAC item ids by sensor, one per frame; `s2_fills` and `s1_fills`: with blanks between, those that filled it."""
    offsets: Mapping[str, str]
    """By S2 scene id: digital numbers that were added, and the rule that decided: `-1000 baseline`."""
    gap_hours: float | None
    """Hours from S2 to S1: |t1 - t2|, the longest of a stack; None without S1."""
    backscatter: str | None
    """`gamma0` (terrain-corrected) or `sigma0` (geocoded GRD); None without S1."""
    orbit_state: str | None
    """`ascending` or `descending` of the S1 scene, where the catalog says it."""
    cloud_fraction: float | None
    """Share of pixels with the cloud bit; None where nothing is known."""
    valid_fraction: float
    """Share of pixels with neither nodata bit."""
    shift_px: tuple[float, float, float] | None
    """Pixels. Estimated S1-S2 shift (dy, dx), and its peak in standard deviations; None where no peak stands out."""
    resampled: tuple[str, ...]
    """Bands that were warped; the others are the source's own pixels."""
    classes: tuple[str, ...]
    """Class names of the whole chip, where a label collection gives some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSample:
    """Co-registered Sentinel-2 and Sentinel-1 chips of one cell."""

    key: str
    """Unique name: letters, digits, `-` and `_` only, because webdataset splits at the first dot."""
    s2: NDArray[np.uint16]
    """(C, H, W) digital numbers of the bands that the manifest names; reflectance = DN x 1e-4; 0 is nodata."""
    s1: NDArray[np.float32]
    """(2, H, W) dB; NaN is nodata."""
    mask: NDArray[np.uint8]
    """(H, W) `MaskBit`s."""
    label: NDArray[np.uint8] | None = None
    """(H, W) class of each pixel, 0 unknown; None without labels."""
    meta: SampleMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSample:
    """A time series of Sentinel-2 chips of one cell, with Sentinel-1 where asked for."""

    key: str
    """As in a pair, with the time of the first date considered: the first frame's, or earlier."""
    s2: NDArray[np.uint16]
    """(T, C, H, W) digital numbers, time ascending."""
    s1: NDArray[np.float32] | None = None
    """(T, 2, H, W) dB; None where not asked for."""
    mask: NDArray[np.uint8]
    """(T, H, W) `MaskBit`s."""
    label: NDArray[np.uint8] | None = None
    """(H, W) class of each pixel; None without labels."""
    meta: SampleMeta


Sample = PairSample | StackSample

AXES: Mapping[type, Mapping[str, tuple[str, ...]]] = {
    PairSample: {"s2": ("band", "y", "x"), "s1": ("band", "y", "x"), "mask": ("y", "x"), "label": ("y", "x")},
    StackSample: {
        "s2": ("time", "band", "y", "x"),
        "s1": ("time", "band", "y", "x"),
        "mask": ("time", "y", "x"),
        "label": ("y", "x"),
    },
}
"""Axes of every array member, in the order in which they lie in memory."""
DTYPES: Mapping[str, str] = {"s2": "<u2", "s1": "<f4", "mask": "|u1", "label": "|u1"}
"""Little-endian dtype of every array member."""


def arrays(sample: Sample) -> dict[str, NDArray[np.generic]]:
    """The array members that `sample` has, in shard order."""
    present = {field.name: getattr(sample, field.name) for field in fields(sample) if field.name in DTYPES}
    return {name: array for name, array in present.items() if array is not None}


def validate(sample: Sample) -> None:
    """Check what a type cannot say: the key, the dtypes, and that all members lie on the same grid and frames.

    Raises:
        ContractError: names the member and what it should have been.
    """
    if not _KEY.fullmatch(sample.key):
        raise ContractError(f"key {sample.key!r} must be 1 to 100 of A-Z a-z 0-9 - _: a dot or a slash breaks a shard.")
    sizes: dict[str, int] = {}
    for name, array in arrays(sample).items():
        axes = AXES[type(sample)][name]
        if array.dtype.str != DTYPES[name] or array.ndim != len(axes):
            was = f"{array.dtype.str} of shape {array.shape}"
            raise ContractError(f"{name} of {sample.key} must be {DTYPES[name]} {axes} but is {was}.")
        for axis, size in zip(axes, array.shape, strict=True):
            if axis != "band" and sizes.setdefault(axis, size) != size:
                raise ContractError(f"{name} of {sample.key}: {size} along {axis}, other members have {sizes[axis]}.")
