"""The Sentinel-1 and Sentinel-2 bands: names, storage order, resolution, wavelength, scale, nodata, unit.

Bands are names, never positions. The storage order below is CROMA's; an index list is always computed from names.
Source: ESA Sentinel-2 user guide (centre wavelengths of S2A, widths), Planetary Computer asset keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import BandMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One band as it is stored in a sample."""

    name: str
    """The field's name: `B8A`, `VV`."""
    gsd_m: int
    """Metres. Ground sampling distance of the native band."""
    center_nm: float | None = None
    """Nanometres. Centre wavelength; None for radar."""
    scale: float = 1.0
    """Physical value = stored value x scale."""
    nodata: float
    """Stored value that means no data."""
    unit: str
    """Unit of the physical value."""


def _s2(name: str, gsd_m: int, center_nm: float) -> Band:
    return Band(name=name, gsd_m=gsd_m, center_nm=center_nm, scale=1e-4, nodata=0, unit="reflectance")


S2_BANDS: tuple[Band, ...] = (
    _s2("B01", 60, 442.7),
    _s2("B02", 10, 492.4),
    _s2("B03", 10, 559.8),
    _s2("B04", 10, 664.6),
    _s2("B05", 20, 704.1),
    _s2("B06", 20, 740.5),
    _s2("B07", 20, 782.8),
    _s2("B08", 10, 832.8),
    _s2("B8A", 20, 864.7),
    _s2("B09", 60, 945.1),
    _s2("B11", 20, 1613.7),
    _s2("B12", 20, 2202.4),
)
"""The twelve bands of Level-2A in storage order; digital numbers on the scale without the 04.00 offset."""

L1C_BANDS: tuple[Band, ...] = (*S2_BANDS[:10], _s2("B10", 60, 1373.5), *S2_BANDS[10:])
"""The thirteen bands of Level-1C in storage order: B10 sees high clouds, and Level-2A has none."""

S1_BANDS: tuple[Band, ...] = tuple(Band(name=name, gsd_m=10, nodata=float("nan"), unit="dB") for name in ("VV", "VH"))
"""The two polarisations in storage order."""

S2_NAMES: tuple[str, ...] = tuple(band.name for band in S2_BANDS)
L1C_NAMES: tuple[str, ...] = tuple(band.name for band in L1C_BANDS)
S1_NAMES: tuple[str, ...] = tuple(band.name for band in S1_BANDS)


def positions(stored: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """Where each of `wanted` stands in `stored`.

    Raises:
        BandMismatch: a wanted band is not stored.

    >>> positions(S2_NAMES, ("B04", "B8A"))
    (3, 8)
    """
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise BandMismatch(
            f"bands {missing} are not among the stored {list(stored)}. Choose other bands or ingest again."
        )
    return tuple(stored.index(name) for name in wanted)
