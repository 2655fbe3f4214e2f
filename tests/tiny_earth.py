"""A tiny Earth of three overpasses on one grid, and makers of the records that ingest passes on: fixtures to import."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import Affine

from ingest.areas.aoi import DateRange, parse_aoi
from ingest.areas.grid import Cell, corner_cell
from ingest.request import Request
from ingest.scenes.scene import Asset, Grid, Scene
from pipeline.bands import S1_NAMES, S2_BANDS, S2_NAMES

EPSG, LEFT, TOP, SIDE = 32633, 500040, 5300040, 144
"""The grid of the tiny Earth: 144 px of 10 m, corner on the 60 m lattice."""
T0 = datetime(2023, 6, 10, 10, 10, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A static catalog of three overpasses and what one would ask of it."""

    root: Path
    """Folder of catalog.json."""
    aoi: str
    """West, south, east, north that hold 3 x 2 cells of 24 px."""

    def path(self, item: str, asset: str) -> Path:
        """A file of the catalog."""
        return next(self.root.rglob(f"{item}/{asset}.tif"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """S2 on days 0, 10 and 20, S1 six hours after the first, twelve before the second, two days after the third.

    The classification says cloud on the west column of cells on day 10; B03 has no data on the upper quarter of the
    south row of cells on day 20, whose baseline alone says that it carries the offset.
    """
    root = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(7)
    items = []
    for number, day in enumerate((0, 10, 20)):
        pixels = {}
        for band in S2_BANDS:
            size = SIDE * 10 // band.gsd_m
            pixels[band.name] = (random.integers(200, 4000, (size, size)).astype("u2"), band.gsd_m)
        scl = np.full((SIDE // 2, SIDE // 2), 4, "u1")
        if day == 10:
            scl[:, :18] = 9
        if day == 20:
            pixels["B03"][0][84:90] = 0
        pixels["SCL"] = (scl, 20)
        properties = {"datetime": (T0 + timedelta(days=day)).isoformat(), "eo:cloud_cover": 5.0}
        properties |= {"s2:processing_baseline": "05.09" if day == 20 else "02.05"}
        items.append(_item(root, "sentinel-2-l2a", f"S2-{number}", pixels, properties=properties))
    for number, hours in enumerate((6, 240 - 12, 480 + 48)):
        power = {name.lower(): (random.gamma(2, 0.05, (SIDE, SIDE)).astype("f4"), 10) for name in S1_NAMES}
        properties = {"datetime": (T0 + timedelta(hours=hours)).isoformat(), "sat:orbit_state": "ascending"}
        items.append(_item(root, "sentinel-1-rtc", f"S1-{number}", power, properties=properties, nodata=-32768))
    classes = {"lulc": (random.integers(1, 9, (SIDE, SIDE)).astype("u1"), 10)}
    items.append(_item(root, "labels", "LULC", classes, properties={"datetime": T0.isoformat()}, roles=["labels"]))
    _write_catalog(root, items)
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    # centres of the lattice cells in the middle of the image: 3 columns, 2 rows
    west, south = to_degrees.transform(500220, 5299020)
    east, north = to_degrees.transform(500820, 5299380)
    return Tiny(root=root, aoi=f"{west},{south},{east},{north}")


def _item(
    root: Path,
    collection: str,
    name: str,
    pixels: dict[str, tuple[np.ndarray, int]],
    *,
    properties: dict[str, Any],
    nodata: float = 0,
    roles: list[str] | None = None,
) -> dict[str, Any]:
    folder = root / collection / name
    folder.mkdir(parents=True)
    for key, (array, gsd) in pixels.items():
        profile = {"driver": "GTiff", "count": 1, "dtype": array.dtype, "crs": EPSG, "nodata": nodata}
        profile |= {
            "height": array.shape[0],
            "width": array.shape[1],
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
        }
        with rasterio.open(
            folder / f"{key}.tif", "w", transform=Affine(gsd, 0, LEFT, 0, -gsd, TOP), compress="deflate", **profile
        ) as file:
            file.write(array, 1)
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    ring = shapely.segmentize(shapely.box(LEFT, TOP - SIDE * 10, LEFT + SIDE * 10, TOP), 100)
    outline = shapely.transform(ring, lambda xy: np.column_stack(to_degrees.transform(*xy.T)))
    grid = {"proj:epsg": EPSG, "proj:shape": [SIDE, SIDE], "proj:transform": [10, 0, LEFT, 0, -10, TOP]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "bbox": list(outline.bounds),
        "geometry": shapely.geometry.mapping(outline),
        "properties": {**properties, **grid},
        "links": [],
        "assets": {key: {"href": f"./{key}.tif", "roles": roles or ["data"]} for key in pixels},
    }


def _write_catalog(root: Path, items: list[dict[str, Any]]) -> None:
    collections = sorted({item["collection"] for item in items})
    links = [{"rel": "child", "href": f"./{name}/collection.json"} for name in collections]
    (root / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "tiny", "links": links}))
    for name in collections:
        members = [item for item in items if item["collection"] == name]
        links = [{"rel": "item", "href": f"./{item['id']}/{item['id']}.json"} for item in members]
        (root / name / "collection.json").write_text(json.dumps({"type": "Collection", "id": name, "links": links}))
        for item in members:
            (root / name / item["id"] / f"{item['id']}.json").write_text(json.dumps(item))


@pytest.fixture(scope="session")
def make_request(tiny: Tiny) -> Callable[..., Request]:
    """What is asked of the tiny Earth; any field can be given, `aoi` as the command line takes it."""

    def make(**changes: Any) -> Request:
        aoi = changes.pop("aoi", tiny.aoi)
        fields: dict[str, Any] = {
            "kind": "pair",
            "areas": parse_aoi(str(aoi)),
            "dates": DateRange(start=None, end=None),
            "catalog": str(tiny.root),
            "s2": "sentinel-2-l2a",
            "s1": ("sentinel-1-rtc",),
            "max_gap_hours": 72.0,
            "orbit": "any",
            "tracks": (),
            "one_to_one": False,
            "widest_gap_hours": None,
            "seasons": False,
            "frames": 1,
            "min_gap_hours": 0.0,
            "s2_bands": S2_NAMES,
            "max_cloud_percent": 20.0,
            "cloud_percent": None,
            "cloud_model": "",
            "max_nodata_percent": 1.0,
            "chip_px": 24,
            "grid": "utm",
            "block_px": 0,
            "sampling": None,
            "codec": "b2",
            "labels": (),
            "val_percent": 0.0,
            "guard_km": 0.0,
            "seed": 0,
        }
        return Request(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def ask_real(real_catalog: Path, make_request: Callable[..., Request]) -> Callable[..., Request]:
    """What is asked of the real catalog: the documented search."""

    def ask(place: str = "all", **changes: Any) -> Request:
        fields = {"catalog": str(real_catalog), "s1": ("sentinel-1-rtc", "sentinel-1-grd"), "chip_px": 40}
        return make_request(aoi=real_catalog / "aois" / f"{place}.geojson", **{**fields, **changes})

    return ask


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    """A scene of one overpass that covers the tiny Earth's grid; any field can be given."""

    def make(scene_id: str = "S2-X", *, sensor: str = "s2", hours: float = 0.0, **changes: Any) -> Scene:
        names = {"s2": S2_NAMES, "s1": S1_NAMES, "label": ("label",)}[sensor]
        fields: dict[str, Any] = {
            "scene_id": scene_id,
            "collection": {"s2": "sentinel-2-l2a", "s1": "sentinel-1-rtc", "label": "labels"}[sensor],
            "sensor": sensor,
            "acquired": T0 + timedelta(hours=hours),
            "footprint_wkt": shapely.box(14, 47, 16, 49).wkt,
            "cloud_percent": 1.0,
            "orbit_state": None,
            "relative_orbit": None,
            "baseline": None,
            "tile": None,
            "datastrip": None,
            "platform": None,
            "generated": None,
            "backscatter": "gamma0" if sensor == "s1" else None,
            "grid": Grid(
                epsg=EPSG, transform=(10.0, 0.0, float(LEFT), 0.0, -10.0, float(TOP)), height_px=SIDE, width_px=SIDE
            ),
            "assets": {name: Asset(href=f"{scene_id}/{name}.tif", dn_offset=0) for name in names},
            "classes": (),
        }
        return replace(Scene(**fields), **changes)

    return make


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """A cell by pixels from the tiny Earth's corner."""

    def make(col: float = 0, row: float = 0, size_px: int = 24, *, epsg: int = EPSG) -> Cell:
        return corner_cell(epsg, LEFT + col * 10.0, TOP - row * 10.0, size_px)

    return make
