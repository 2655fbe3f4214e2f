"""A STAC item → one `Scene`, or the reason why it cannot be used.

In: items of the Planetary Computer's, Earth Search's and CDSE's conventions. Out: bands by their own names, time, true
footprint, and for each band the digital number to add. Reads no pixel and no file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ingest.areas import antimeridian
from ingest.areas.grid import Affine6
from ingest.scenes.header import Header, declared, epsg_of
from ingest.scenes.offset import Rule, decide
from ingest.scenes.product import identify, utc
from pipeline.bands import L1C_NAMES, S1_NAMES, S2_NAMES

Item = Mapping[str, Any]
"""A STAC item as JSON, hrefs absolute."""

LONGEST_INTERVAL = timedelta(days=31)
"""An item without an instant counts by the middle of its interval, unless that is longer than this."""

_ALIASES: Mapping[str, str] = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
    "scl": "SCL",
    "cloud": "CLD",
    "vv": "VV",
    "vh": "VH",
}
"""Earth Search's and Planetary Computer's asset keys; CDSE's end in the resolution (`B02_10m`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One band's file."""

    href: str
    """Where it lies; may be signed, so it never goes into a message as it is."""
    dn_offset: int
    """Digital numbers. Added to a valid pixel to reach the scale without offset: 0 or -1000 for Sentinel-2."""
    offset_rule: Rule = "none"
    """Who says so; with `witness` the pixels have the last word."""
    size_bytes: int | None = None
    """Of the whole file; None where the catalog does not say."""
    declared: Header | None = None
    """What the item says of the file's header; None where the item is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the pixels of a scene's 10 m bands lie, as the catalog says."""

    epsg: int
    """CRS."""
    transform: Affine6
    """Units of the CRS. From pixel (col, row) to (x, y)."""
    height_px: int
    """Rows."""
    width_px: int
    """Columns."""

    def is_aligned(self, other: "Grid") -> bool:
        """Whether the pixels of one are pixels of the other, were both wide enough."""
        a, b, c, d, e, f = self.transform
        *linear, left, top = (other.transform[i] for i in (0, 1, 3, 4, 2, 5))
        steps = ((left - c) / a, (top - f) / e)
        whole = all(abs(step - round(step)) < 1e-3 for step in steps)
        return self.epsg == other.epsg and linear == [a, b, d, e] and whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One acquisition."""

    scene_id: str
    """The STAC item's id."""
    collection: str
    """The STAC collection."""
    sensor: Literal["s1", "s2", "label"]
    """What its bands are."""
    acquired: datetime
    """UTC. Sensing time, or the middle of the item's interval."""
    footprint_wkt: str
    """EPSG:4326. Outline of the data, cut at the antimeridian."""
    cloud_percent: float | None
    """Percent of the whole scene."""
    orbit_state: str | None
    """`ascending` or `descending`."""
    relative_orbit: int | None
    """Track number."""
    baseline: str | None
    """Sentinel-2 processing baseline."""
    tile: str | None
    """MGRS tile: `13TDE`."""
    datastrip: str | None
    """Identifier of the Sentinel-2 data strip."""
    platform: str | None
    """`sentinel-2a`."""
    generated: datetime | None
    """UTC. When the product was made, or else when its record was."""
    backscatter: str | None
    """`gamma0` for terrain-corrected, `sigma0` for geocoded GRD."""
    grid: Grid | None
    """Of the 10 m bands; None where the catalog does not say."""
    assets: Mapping[str, Asset]
    """By band name: `B01`, `VV`, `SCL`, `CLD` (probability of cloud), `label`."""
    classes: tuple[str, ...]
    """Class names of the whole scene, where a property gives some."""
    fills: "tuple[Scene, ...]" = ()
    """Scenes of the same pass and grid that have the pixels which this one lacks, in the order in which they fill."""

    @property
    def parts(self) -> "tuple[Scene, ...]":
        """The scene itself and those that fill it."""
        return self, *self.fills

    @property
    def offset_rule(self) -> Rule:
        """Who decides on the offset of its bands: the pixels, if they must for one of them."""
        rules = [self.assets[name].offset_rule for name in L1C_NAMES if name in self.assets]
        return "witness" if "witness" in rules else rules[0] if rules else "none"

    @property
    def footprint(self) -> BaseGeometry:
        """Outline of the data in degrees."""
        return shapely.from_wkt(self.footprint_wkt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An item that cannot be used, and why."""

    scene_id: str
    """The STAC item's id."""
    reason: str
    """In words: `bands missing: B01 B8A`."""


def parse_scene(item: Item, *, label: bool = False, s2_bands: Sequence[str] = S2_NAMES) -> Scene | Unusable:
    """The scene of a Sentinel item that has `s2_bands` if it is an optical one, or of a label item."""
    sensor: Literal["s1", "s2", "label"] = "label" if label else _sensor(item)
    product = identify(item)
    acquired, assets = _acquired(item["properties"]), _assets(item, sensor, product.baseline)
    needed = {"s1": S1_NAMES, "s2": tuple(s2_bands), "label": ()}[sensor]
    reason = _unusable(acquired, assets, needed, item)
    if acquired is None or reason:
        return Unusable(scene_id=item["id"], reason=reason or "no date")
    properties = item["properties"]
    return Scene(
        scene_id=item["id"],
        collection=item["collection"],
        sensor=sensor,
        acquired=acquired,
        footprint_wkt=outline(item["geometry"]).wkt,
        cloud_percent=properties.get("eo:cloud_cover"),
        orbit_state=properties.get("sat:orbit_state"),
        relative_orbit=product.relative_orbit,
        baseline=product.baseline,
        tile=product.tile,
        datastrip=product.datastrip,
        platform=product.platform,
        generated=product.generated,
        backscatter={"s1": "gamma0" if "rtc" in item["collection"] else "sigma0"}.get(sensor),
        grid=_grid(assets),
        assets=assets,
        classes=_classes(properties) if label else (),
    )


def outline(geometry: Mapping[str, Any]) -> BaseGeometry:
    """The GeoJSON `geometry` of a scene (degrees), cut at the antimeridian and made valid."""
    ground = shape(geometry)
    try:
        ground = antimeridian.cut(ground)
    except ValueError:
        ground = antimeridian.cut(shapely.make_valid(ground))
    return ground if ground.is_valid else shapely.make_valid(ground)


def interval(properties: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """First and last instant of an item; None where it has neither."""
    instant = properties.get("datetime")
    first, last = properties.get("start_datetime") or instant, properties.get("end_datetime") or instant
    if instant:
        first = last = instant
    return (utc(first), utc(last)) if first and last else None


def _acquired(properties: Mapping[str, Any]) -> datetime | None:
    span = interval(properties)
    if span is None or span[1] - span[0] > LONGEST_INTERVAL:
        return None
    return span[0] + (span[1] - span[0]) / 2


def _sensor(item: Item) -> Literal["s1", "s2"]:
    return "s1" if str(item["collection"]).startswith("sentinel-1") else "s2"


def _unusable(acquired: datetime | None, assets: Mapping[str, Asset], needed: Sequence[str], item: Item) -> str | None:
    missing = [name for name in needed if name not in assets]
    if missing:
        return f"bands missing: {' '.join(missing)}"
    if acquired is None:
        return "no date"
    if not item.get("geometry"):
        return "no footprint"
    if needed == S1_NAMES and "rtc" not in item["collection"] and not epsg_of(item["properties"], {}):
        return "not geocoded: ground control points only"
    return None


def _assets(item: Item, sensor: str, baseline: str | None) -> dict[str, Asset]:
    if sensor == "label":
        labels = [asset for asset in item["assets"].values() if "labels" in (asset.get("roles") or ())]
        return {"label": _asset(item, labels[0])} if labels else {}
    found: dict[str, Asset] = {}
    for key, asset in item["assets"].items():
        name = _ALIASES.get(key, re.sub(r"_\d+m$", "", key))
        if name in L1C_NAMES:
            found.setdefault(name, _asset(item, asset, offset=decide(item["properties"], asset, baseline)))
        elif name in S1_NAMES or name in {"SCL", "CLD"}:
            found.setdefault(name, _asset(item, asset))
    return found


def _asset(item: Item, asset: Mapping[str, Any], *, offset: tuple[int, Rule] = (0, "none")) -> Asset:
    return Asset(
        href=asset["href"],
        dn_offset=offset[0],
        offset_rule=offset[1],
        size_bytes=asset.get("file:size"),
        declared=declared(item["properties"], asset),
    )


def _grid(assets: Mapping[str, Asset]) -> Grid | None:
    """The grid of a 10 m band; the projection extension allows it on the asset or on the item."""
    asset = assets.get("B02") or assets.get("VV")
    said = asset.declared if asset else None
    if said is None or said.epsg is None or said.transform is None or said.shape_px is None:
        return None
    rows, columns = said.shape_px
    return Grid(epsg=said.epsg, transform=said.transform, height_px=rows, width_px=columns)


def _classes(properties: Mapping[str, Any]) -> tuple[str, ...]:
    for key, value in properties.items():
        if key.endswith(":labels") and value:
            return tuple(sorted(str(name) for name in value))
    return ()
