"""Which product an item is: tile, data strip, platform, track, when it was made. Five catalogs write each differently.

Why it matters: two items of one tile and one pass are two data strips with other pixels each, or one strip processed
twice; only these fields and the outlines tell them apart.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_TILE = re.compile(r"^S2.*?_T?(\d{1,2}[C-X][A-Z]{2})(?:_|$)")
_PLATFORM = re.compile(r"S(?:ENTINEL-?)?([12])-?([A-D])(?![A-Z0-9])")
_TRACK = re.compile(r"_R(\d{3})_")
_BASELINE = re.compile(r"_N(\d{4})_")
_MADE = re.compile(r"_R\d{3}_T\w{5}_(\d{8}T\d{6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What tells one product of a pass from another; None where the catalog does not say."""

    tile: str | None
    """MGRS tile: `13TDE`, two digits for the zone."""
    datastrip: str | None
    """Identifier of the Sentinel-2 data strip."""
    platform: str | None
    """`sentinel-2a`, whatever way the catalog writes it."""
    generated: datetime | None
    """UTC. When the product was made, or else when its record was."""
    relative_orbit: int | None
    """Track number."""
    baseline: str | None
    """Sentinel-2 processing baseline."""


def identify(item: Mapping[str, Any]) -> Product:
    """The product that a STAC item stands for."""
    properties = item["properties"]
    names = [str(name) for name in (properties.get("s2:product_uri"), item.get("id")) if name]
    orbit = properties.get("sat:relative_orbit")
    track = orbit if orbit is not None else _search(_TRACK, names)
    made = properties.get("s2:generation_time") or _search(_MADE, names) or properties.get("created")
    return Product(
        tile=_tile(properties, names),
        datastrip=properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id"),
        platform=_platform(properties, names),
        generated=utc(made) if made else None,
        relative_orbit=None if track is None else int(track),
        baseline=(
            properties.get("s2:processing_baseline")
            or properties.get("processing:version")
            or properties.get("sentinel:processing_baseline")
            or _search(_BASELINE, names)
        ),
    )


def utc(value: str | datetime) -> datetime:
    """An instant in UTC; one without zone is in UTC.

    >>> utc("20240824T013055").isoformat()
    '2024-08-24T01:30:55+00:00'
    """
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _search(pattern: re.Pattern[str], names: list[str]) -> str | None:
    found = (pattern.search(name) for name in names)
    return next((match[1] for match in found if match), None)


def _tile(properties: Mapping[str, Any], names: list[str]) -> str | None:
    """From the catalog's field, the grid's code, or the name of a Sentinel-2 product."""
    grid, mark, code = str(properties.get("grid:code") or "").partition("-")
    said = properties.get("s2:mgrs_tile") or (code if mark and grid == "MGRS" else _search(_TILE, names))
    return str(said).removeprefix("T").zfill(5) if said else None


def _platform(properties: Mapping[str, Any], names: list[str]) -> str | None:
    for name in (str(properties.get("platform") or ""), *names):
        match = _PLATFORM.match(name.upper())
        if match:
            return f"sentinel-{match[1]}{match[2].lower()}"
    return None
