"""What a file's header says against what the catalog says of it: compared at each read, told or refused, never trusted.

Public catalogs replaced files in place without updating their items, and have items that describe another resolution
than the file beside them. Pixels at the wrong place are worse than no pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.areas.grid import Affine6
from pipeline.errors import ReadError

_TOLERANCE_PX = 0.01
"""Pixels. Items round origins; corners may differ by so much."""


class SceneRefused(ReadError):
    """A file is not what its item says, or not what its name says: no other try can help."""

    def __init__(self, scene_id: str, band: str, href: str, why: object) -> None:
        """As any read error, and permanent."""
        super().__init__(scene_id, band, href, why, permanent=True)
        what = f"cannot read {band} of {scene_id} from {self.href}: {self.why}."
        self.args = (f"{what} Correct the item or the file, or give a catalog without this scene.",)

    @property
    def reason(self) -> str:
        """For the chips that are rejected with it."""
        return f"scene refused: {self.band} of {self.scene_id}: {self.why}"

    def __reduce__(self) -> tuple[Any, tuple[str, str, str, str]]:
        """Survive the way back from a worker process."""
        return SceneRefused, (self.scene_id, self.band, self.href, self.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The grid and the type of one file; None where nobody says it."""

    epsg: int | None
    """CRS."""
    transform: Affine6 | None
    """Units of the CRS. From pixel (col, row) to (x, y)."""
    shape_px: tuple[int, int] | None
    """Rows and columns."""
    dtype: str | None
    """numpy name: `uint16`."""
    nodata: str | None
    """The value of missing pixels, as text because NaN is one."""
    is_own: bool = True
    """Transform and shape are this file's; otherwise the item's, of which a coarser band shares the outline only."""


def declared(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> Header:
    """What an item says of one of its assets, in the words of the projection extension's two versions."""
    band = (asset.get("raster:bands") or asset.get("bands") or [{}])[0]
    own = asset.get("proj:transform") is not None and asset.get("proj:shape") is not None
    place = asset if own else properties
    transform, shape_px = place.get("proj:transform"), place.get("proj:shape")
    nodata = band.get("nodata", asset.get("nodata"))
    if transform is None or shape_px is None:
        transform = shape_px = None
    return Header(
        epsg=epsg_of(properties, asset),
        transform=None if transform is None else affine(transform),
        shape_px=None if shape_px is None else (int(shape_px[0]), int(shape_px[1])),
        dtype=band.get("data_type") or asset.get("data_type"),
        nodata=None if nodata is None else value_text(nodata),
        is_own=own,
    )


def epsg_of(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> int | None:
    """The EPSG code that an asset has, of its own or from its item."""
    for source in (asset, properties):
        code = str(source.get("proj:epsg") or source.get("proj:code") or "").removeprefix("EPSG:")
        if code.isdecimal():
            return int(code)
    return None


def affine(values: Any) -> Affine6:
    """Six numbers of an affine that may be written with nine."""
    a, b, c, d, e, f = (float(value) for value in values[:6])
    return a, b, c, d, e, f


def value_text(value: Any) -> str:
    """A nodata value as text, the same for 0, 0.0 and "0".

    >>> value_text(-32768.0), value_text("NaN")
    ('-32768', 'nan')
    """
    return f"{float(value):.10g}"


def type_disagreement(said: Header, found: Header) -> str | None:
    """Another CRS, dtype or nodata value than the item says, in words that name both."""
    for what, one, other in (
        ("EPSG", said.epsg, found.epsg),
        ("dtype", said.dtype, found.dtype),
        ("nodata", said.nodata, found.nodata),
    ):
        if one is not None and other is not None and one != other:
            return f"header {what} {other}, item {one}"
    return None


def grid_disagreement(said: Header, found: Header) -> str | None:
    """Another grid than the item says, in words that name both."""
    if None in (said.transform, said.shape_px, found.transform, found.shape_px) or said.epsg != found.epsg:
        return None
    pixel = max(abs(value) for value in _linear(found)) or 1.0
    first, last = (
        max(abs(one - other) for one, other in zip(corner(said), corner(found), strict=True)) / pixel
        for corner in (_first_corner, _last_corner)
    )
    # a coarser band beside the item's own grid shares its origin and ends within one of its pixels
    same_end = last <= _TOLERANCE_PX and said.shape_px == found.shape_px if said.is_own else last < 1
    if first <= _TOLERANCE_PX and same_end:
        return None
    return f"header {_grid_text(found)}, item {_grid_text(said)}"


def _linear(header: Header) -> tuple[float, float, float, float]:
    a, b, _, d, e, _ = header.transform or (0.0,) * 6
    return a, b, d, e


def _first_corner(header: Header) -> tuple[float, float]:
    _, _, c, _, _, f = header.transform or (0.0,) * 6
    return c, f


def _last_corner(header: Header) -> tuple[float, float]:
    a, b, c, d, e, f = header.transform or (0.0,) * 6
    rows, columns = header.shape_px or (0, 0)
    return a * columns + b * rows + c, d * columns + e * rows + f


def _grid_text(header: Header) -> str:
    a, _, c, _, _, f = header.transform or (0.0,) * 6
    rows, columns = header.shape_px or (0, 0)
    return f"{rows} x {columns} pixels of {a:.10g} from ({c:.10g}, {f:.10g})"
