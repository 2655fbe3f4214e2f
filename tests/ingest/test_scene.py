"""Items of three catalogs' conventions → scenes: the offset's rules, the bands' names, and why others are refused."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

from ingest.scenes.scene import Scene, Unusable, interval, parse_scene
from pipeline.bands import S2_NAMES

pytestmark = pytest.mark.ingest

EARTH_SEARCH = [
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "nir09",
    "swir16",
    "swir22",
]
CDSE = [f"{n}_{60 if n in {'B01', 'B09'} else 10 if n in {'B02', 'B03', 'B04', 'B08'} else 20}m" for n in S2_NAMES]
SQUARE = {"type": "Polygon", "coordinates": [[[14, 48], [15, 48], [15, 49], [14, 49], [14, 48]]]}


def _item(
    collection: str = "sentinel-2-l2a", keys: Any = S2_NAMES, asset: Any = None, **properties: Any
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": "X",
        "collection": collection,
        "bbox": [14, 48, 15, 49],
        "geometry": SQUARE,
        "properties": {"datetime": "2022-06-10T10:10:31.024Z", **properties},
        "assets": {key: {"href": f"https://host/{key}.tif", **(asset or {})} for key in keys},
    }


def _offsets(item: dict[str, Any]) -> set[tuple[int, str]]:
    scene = parse_scene(item)
    assert isinstance(scene, Scene), scene
    return {(scene.assets[name].dn_offset, scene.assets[name].offset_rule) for name in S2_NAMES}


def _bands(offset: float | None, scale: float | None = 0.0001) -> dict[str, Any]:
    band = {key: value for key, value in (("offset", offset), ("scale", scale)) if value is not None}
    return {"raster:bands": [band]}


NEW, OLD = {"s2:processing_baseline": "05.09"}, {"s2:processing_baseline": "02.13"}


def _earth_search(*, applied: bool, offset: float | None, **properties: Any) -> dict[str, Any]:
    return _item(keys=EARTH_SEARCH, asset=_bands(offset), **{"earthsearch:boa_offset_applied": applied, **properties})


@pytest.mark.parametrize(
    ("name", "item", "offset", "rule"),
    [
        ("asset says -0.1", _item(asset=_bands(-0.1)), -1000, "item"),
        ("asset says 0", _item(asset=_bands(0.0)), 0, "item"),
        ("asset says -0.1 without scale", _item(asset=_bands(-0.1, None)), -1000, "item"),
        ("asset says -1000 on scale 1", _item(asset=_bands(-1000, 1)), -1000, "item"),
        ("STAC 1.1 on the asset", _item(asset={"raster:offset": -0.1, "raster:scale": 0.0001}), -1000, "item"),
        ("both agree", _item(asset=_bands(-0.1), **NEW), -1000, "item"),
        ("asset says 0 at a new baseline", _item(asset=_bands(0.0), **NEW), -1000, "witness"),
        ("asset says -0.1 at an old baseline", _item(asset=_bands(-0.1), **OLD), -1000, "witness"),
        ("Earth Search took it off, and carries it", _earth_search(applied=True, offset=-0.1), 0, "boa_offset_applied"),
        ("took it off a new one", _earth_search(applied=True, offset=-0.1, **NEW), 0, "boa_offset_applied"),
        ("v0 took it off", _item(**{"sentinel:boa_offset_applied": True}, **NEW), 0, "boa_offset_applied"),
        ("did not take it off", _earth_search(applied=False, offset=-0.1), -1000, "witness"),
        ("did not take it off a new one", _earth_search(applied=False, offset=-0.1, **NEW), -1000, "witness"),
        ("did not take it off, says no more", _earth_search(applied=False, offset=None), -1000, "witness"),
        ("nothing to take off an old one", _earth_search(applied=False, offset=0.0, **OLD), 0, "item"),
        ("nothing to take off, by baseline", _earth_search(applied=False, offset=None, **OLD), 0, "baseline"),
        ("baseline alone, 04.00", _item(**{"s2:processing_baseline": "04.00"}), -1000, "baseline"),
        ("baseline alone, 05.11", _item(**{"s2:processing_baseline": "05.11"}), -1000, "baseline"),
        ("baseline alone, 03.01", _item(**{"s2:processing_baseline": "03.01"}), 0, "baseline"),
        ("baseline alone, processing:version", _item(keys=CDSE, **{"processing:version": "05.00"}), -1000, "baseline"),
        ("nothing said", _item(), 0, "none"),
        (
            "scene of 2020 reprocessed to N0500",
            _item(asset=_bands(-0.1), datetime="2020-03-22T07:46:09Z", **{"s2:processing_baseline": "05.00"}),
            -1000,
            "item",
        ),
        (
            "scene of 2020 reprocessed, by baseline alone",
            _item(datetime="2020-03-22T07:46:09Z", **{"s2:processing_baseline": "05.00"}),
            -1000,
            "baseline",
        ),
        ("scene of 2023 without offset", _item(asset=_bands(0), datetime="2023-03-22T07:46:09Z"), 0, "item"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_offset(name: str, item: dict[str, Any], offset: int, rule: str) -> None:
    assert _offsets(item) == {(offset, rule)}, name


def test_one_band_that_disagrees_asks_the_pixels_for_all() -> None:
    item = _item(asset=_bands(-0.1), **NEW)
    item["assets"]["B05"] |= _bands(0.0)
    scene = parse_scene(item)
    assert isinstance(scene, Scene)
    assert scene.offset_rule == "witness"


def test_radar_and_classification_have_no_offset() -> None:
    scene = parse_scene(_item(keys=[*S2_NAMES, "SCL"], asset=_bands(-0.1)))
    assert isinstance(scene, Scene)
    assert scene.assets["SCL"].dn_offset == 0
    radar = parse_scene(_item("sentinel-1-rtc", ["vv", "vh"], **{"s2:processing_baseline": "05.00"}))
    assert isinstance(radar, Scene)
    assert {asset.dn_offset for asset in radar.assets.values()} == {0}


@pytest.mark.parametrize(
    ("keys", "classification"), [(S2_NAMES, "SCL"), (EARTH_SEARCH, "scl"), (CDSE, "SCL_20m")], ids=["PC", "ES", "CDSE"]
)
def test_asset_keys_of_three_catalogs(keys: list[str], classification: str) -> None:
    scene = parse_scene(_item(keys=[*keys, classification, "thumbnail", "visual", "AOT_10m"]))
    assert isinstance(scene, Scene)
    assert set(scene.assets) == {*S2_NAMES, "SCL"}
    for key, name in zip([*keys, classification], [*S2_NAMES, "SCL"], strict=True):
        assert scene.assets[name].href == f"https://host/{key}.tif"


def test_earth_searchs_jp2_twins_are_left_alone() -> None:
    twins = [f"{key}-jp2" for key in EARTH_SEARCH]
    scene = parse_scene(_item(keys=[*twins, *EARTH_SEARCH]))
    assert isinstance(scene, Scene)
    assert not any("jp2" in asset.href for asset in scene.assets.values())


def test_cdse_gives_the_finest_of_a_band() -> None:
    keys = ["B02_20m", "B02_10m", *[key for key in CDSE if key != "B02_10m"]]
    scene = parse_scene(_item(keys=sorted(keys)))
    assert isinstance(scene, Scene)
    assert scene.assets["B02"].href.endswith("B02_10m.tif")


@pytest.mark.parametrize("place", ["item", "asset"])
@pytest.mark.parametrize("code", [{"proj:epsg": 32633}, {"proj:code": "EPSG:32633"}])
def test_grid_from_item_or_asset(place: str, code: dict[str, Any]) -> None:
    where = {**code, "proj:shape": [10980, 10980], "proj:transform": [10, 0, 399960, 0, -10, 5400000, 0, 0, 1]}
    scene = parse_scene(_item(**where) if place == "item" else _item(asset=where))
    assert isinstance(scene, Scene)
    assert scene.grid is not None
    assert (scene.grid.epsg, scene.grid.height_px, scene.grid.width_px) == (32633, 10980, 10980)
    assert scene.grid.transform == (10, 0, 399960, 0, -10, 5400000)


def test_grid_is_that_of_a_ten_metre_band() -> None:
    item = _item(**{"proj:epsg": 32633})
    for name, gsd in (("B01", 60), ("B02", 10)):
        item["assets"][name] |= {"proj:shape": [10980 * 10 // gsd] * 2, "proj:transform": [gsd, 0, 0, 0, -gsd, 0]}
    scene = parse_scene(item)
    assert isinstance(scene, Scene)
    assert scene.grid is not None
    assert scene.grid.transform[0] == 10


@pytest.mark.parametrize("drop", ["proj:epsg", "proj:shape", "proj:transform"])
def test_half_a_grid_is_none(drop: str) -> None:
    where = {"proj:epsg": 32633, "proj:shape": [2, 2], "proj:transform": [10, 0, 0, 0, -10, 0]}
    scene = parse_scene(_item(**{key: value for key, value in where.items() if key != drop}))
    assert isinstance(scene, Scene)
    assert scene.grid is None


def test_null_projection_is_no_projection() -> None:
    scene = parse_scene(_item(**{"proj:epsg": None, "proj:code": None}))
    assert isinstance(scene, Scene)
    assert scene.grid is None


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (_item(keys=S2_NAMES[1:8]), "bands missing: B01 B8A B09 B11 B12"),
        (_item("sentinel-1-rtc", ["hh"]), "bands missing: VV VH"),
        (_item("sentinel-1-rtc", ["vv"]), "bands missing: VH"),
        (_item("sentinel-1-rtc", ["hh", "hv"]), "bands missing: VV VH"),
        (_item("sentinel-1-grd", ["vv", "vh"]), "not geocoded: ground control points only"),
        (_item(datetime=None), "no date"),
        (
            _item(datetime=None, start_datetime="2015-06-23T00:00:00Z", end_datetime="2020-12-31T00:00:00Z"),
            "no date",
        ),
        (_item(datetime=None, start_datetime="2015-06-23T00:00:00Z"), "no date"),
        ({**_item(), "geometry": None}, "no footprint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable(item: dict[str, Any], reason: str) -> None:
    assert parse_scene(item) == Unusable(scene_id="X", reason=reason)


def test_a_month_counts_by_its_middle_and_longer_is_no_date() -> None:
    start = "2021-01-01T00:00:00Z"
    month = parse_scene(_item(datetime=None, start_datetime=start, end_datetime="2021-01-31T12:00:00Z"))
    assert isinstance(month, Scene)
    assert month.acquired == datetime(2021, 1, 16, 6, tzinfo=UTC)
    longer = parse_scene(_item(datetime=None, start_datetime=start, end_datetime="2021-02-02T00:00:00Z"))
    assert longer == Unusable(scene_id="X", reason="no date")


@pytest.mark.parametrize(
    "text",
    ["2022-06-10T10:10:31Z", "2022-06-10 10:10:31+00:00", "2022-06-10T12:10:31+02:00", "2022-06-10T10:10:31", None],
)
def test_times_are_utc_however_written(text: str | None) -> None:
    moment = datetime(2022, 6, 10, 10, 10, 31, tzinfo=UTC)
    assert interval({"datetime": text or moment.replace(tzinfo=None)}) == (moment, moment)


def test_an_instant_wins_over_an_interval() -> None:
    span = interval({"datetime": "2022-06-10T10:00:00Z", "start_datetime": "2020-01-01", "end_datetime": "2023-01-01"})
    assert span == (datetime(2022, 6, 10, 10, tzinfo=UTC),) * 2
    assert interval({}) is None


def test_fields_of_a_radar_scene() -> None:
    where = {"proj:epsg": 32633, "proj:shape": [2, 2], "proj:transform": [10, 0, 0, 0, -10, 0]}
    orbit = {"sat:orbit_state": "descending", "sat:relative_orbit": "51"}
    rtc = parse_scene(_item("sentinel-1-rtc", ["vv", "vh"], **orbit))
    grd = parse_scene(_item("sentinel-1-grd", ["vv", "vh"], **orbit, **where))
    assert isinstance(rtc, Scene)
    assert isinstance(grd, Scene)
    assert (rtc.backscatter, grd.backscatter) == ("gamma0", "sigma0")
    assert (rtc.orbit_state, rtc.relative_orbit, rtc.sensor, rtc.collection) == (
        "descending",
        51,
        "s1",
        "sentinel-1-rtc",
    )
    assert set(rtc.assets) == {"VV", "VH"}
    assert rtc.footprint.equals(shapely.geometry.shape(SQUARE))


def test_labels() -> None:
    item = _item("labels", ["dem", "lulc"])
    item["assets"]["lulc"]["roles"] = ["data", "labels"]
    raster = parse_scene(item, label=True)
    assert isinstance(raster, Scene)
    assert (raster.sensor, raster.classes) == ("label", ())
    assert {name: asset.href for name, asset in raster.assets.items()} == {"label": "https://host/lulc.tif"}
    words = parse_scene(_item(**{"bigearthnet:labels": ["Water bodies", "Arable land"]}), label=True)
    assert isinstance(words, Scene)
    assert (words.assets, words.classes) == ({}, ("Arable land", "Water bodies"))
    same = parse_scene(_item(**{"bigearthnet:labels": ["Water bodies"]}))
    assert isinstance(same, Scene)
    assert same.classes == ()


def test_the_item_is_not_changed() -> None:
    item = _item(asset=_bands(-0.1))
    before = copy.deepcopy(item)
    parse_scene(item)
    assert item == before


def _records(path: Path) -> list[dict[str, Any]]:
    document = json.loads(path.read_text())
    return document["features"] if document["type"] == "FeatureCollection" else [document]


REAL = {
    "pc_s2l2a_13TDE_two_orbits_N0511": [-1000, -1000],
    "pc_s2l2a_06VVN_N0212": [0],
    "pc_s2l2a_tall_strip_35L_one_datatake_N0212": [0] * 9,
    "pc_s2l2a_46X_47X_81N_mixed_zone_N0510": [-1000] * 4,
    "es_s2l2a_13TDE_20231008_boa_applied": [0],
    "es_s2c1_13TDE_series_10": [-1000] * 10,
    "cdse_s2l2a_N0500_N0512": [-1000, -1000],
    "es_v0_s2l2a_cogs_20EPT": [0],
    "pc_s1grd_IW_20250312": ["not geocoded: ground control points only"],
    "es_s1grd_20250731_3slices_HH": ["bands missing: VV VH"] * 3,
}


WITH_CLOUDS = {"S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005"}
"""Of CDSE's records those with a probability of cloud; Earth Search's c1 all have one, others none."""


@pytest.mark.parametrize("name", REAL)
def test_real_records(name: str, stac_records: Path) -> None:
    found = [parse_scene(item) for item in _records(stac_records / f"{name}.json")]
    summary = [one.reason if isinstance(one, Unusable) else one.assets["B02"].dn_offset for one in found]
    assert summary == REAL[name]
    for scene in found:
        if isinstance(scene, Scene):
            assert set(scene.assets) - {"CLD"} == {*S2_NAMES, "SCL"}
            assert ("CLD" in scene.assets) == (scene.scene_id in WITH_CLOUDS or name.startswith("es_s2c1"))
            assert scene.grid is not None
            assert (scene.grid.transform[0], scene.grid.height_px) == (10, 10980)
            assert {scene.assets[band].dn_offset for band in S2_NAMES} == {scene.assets["B02"].dn_offset}


def test_real_granule_in_three_collections(stac_records: Path) -> None:
    """The trap: the same carried offset is right in c1 and wrong in l2a; l1c has no B8A... of its own key."""
    for path in sorted(stac_records.glob("es_s2_*_l1c_l2a_c1.json")):
        scenes = {one.collection: one for item in _records(path) if isinstance(one := parse_scene(item), Scene)}
        assert scenes["sentinel-2-c1-l2a"].assets["B04"].dn_offset == -1000
        assert scenes["sentinel-2-l2a"].assets["B04"].dn_offset == 0


def test_real_rtc(stac_records: Path) -> None:
    for item in _records(stac_records / "pc_s1rtc_datatake_4slices_32633.json"):
        scene = parse_scene(item)
        assert isinstance(scene, Scene)
        assert (scene.backscatter, scene.orbit_state, scene.relative_orbit) == ("gamma0", "descending", 51)
        assert scene.grid is not None
        assert (scene.grid.epsg, scene.grid.transform[0]) == (32633, 10)


def test_every_real_record_parses_or_has_a_reason(stac_records: Path, stac_items: Path) -> None:
    paths = [*stac_records.glob("*.json"), *stac_items.rglob("*.json")]
    found = [parse_scene(item) for path in paths for item in _records(path) if "collection" in item]
    assert len(found) > 60
    assert all(one.reason for one in found if isinstance(one, Unusable))
