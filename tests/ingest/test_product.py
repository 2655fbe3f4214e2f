"""Which product an item is, in the words of every catalog: real records, and what is left when a field is missing."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest.scenes.product import Product, identify
from ingest.scenes.scene import Scene, parse_scene

pytestmark = pytest.mark.ingest

L2A = "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20190101T101608"
AT = datetime.fromisoformat
REAL: dict[str, tuple[str | None, str | None, str, str | None, int | None, str | None]] = {
    # file: tile, end of the data strip, platform, generated, track, baseline
    "pc_s2l2a_13TDE_two_orbits_N0511": (
        "13TDE", "S20240823T175543_N05.11", "sentinel-2a", "2024-08-24T01:30:55Z", 141, "05.11",
    ),
    "pc_s2l2a_06VVN_N0212": (
        "06VVN", "S20190629T212530_N02.12", "sentinel-2b", "2020-10-06T08:05:31.830Z", 43, "02.12",
    ),
    "es_s2c1_13TDE_series_10": (
        "13TDE", "S20240422T174753_N05.10", "sentinel-2a", "2024-04-23T00:49:50Z", 98, "05.10",
    ),
    "es_s2l2a_13TDE_20231008_boa_applied": (
        "13TDE", "S20231008T175927_N05.09", "sentinel-2a", "2023-10-08T23:31:54Z", 141, "05.09",
    ),
    "es_v0_s2l2a_cogs_20EPT": ("20EPT", None, "sentinel-2b", "2025-07-31T15:02:11.685Z", None, "05.11"),
    "cdse_s2l2a_N0500_N0512": (
        "36NYH", "S20200322T075811_N05.00", "sentinel-2b", "2023-06-12T21:42:23Z", 135, "05.00",
    ),
    "stactools_s2l2a_T01KAB_antimeridian": (
        "01KAB", "S20230821T221944_N05.09", "sentinel-2a", "2023-08-22T02:18:25Z", 29, "05.09",
    ),
    "pc_s1rtc_datatake_4slices_32633": (None, None, "sentinel-1a", None, 51, None),
    "pc_s1grd_IW_20250312": (None, None, "sentinel-1a", None, 95, None),
    "es_s1grd_20250731_3slices_HH": (None, None, "sentinel-1a", "2025-07-31T15:04:13.811Z", 56, None),
}  # fmt: skip


def _first(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    return document["features"][0] if document["type"] == "FeatureCollection" else document


@pytest.mark.parametrize("name", REAL)
def test_real_records(name: str, stac_records: Path) -> None:
    tile, strip, platform, generated, track, baseline = REAL[name]
    product = identify(_first(stac_records / f"{name}.json"))
    assert (product.datastrip or "").endswith(strip or "")
    assert product == Product(
        tile=tile,
        datastrip=product.datastrip if strip else None,
        platform=platform,
        generated=AT(generated).astimezone(UTC) if generated else None,
        relative_orbit=track,
        baseline=baseline,
    )


def test_one_granule_is_one_tile_and_pass_in_three_collections(stac_records: Path) -> None:
    for path in sorted(stac_records.glob("es_s2_*_l1c_l2a_c1.json")):
        products = [identify(item) for item in json.loads(path.read_text())["features"]]
        assert {(one.tile, one.platform, one.relative_orbit) for one in products} == {
            (path.name.split("_")[2], "sentinel-2b", 95)
        }


def test_a_scene_carries_its_product(stac_records: Path) -> None:
    item = _first(stac_records / "pc_s2l2a_13TDE_two_orbits_N0511.json")
    scene, product = parse_scene(item), identify(item)
    assert isinstance(scene, Scene)
    for field in Product.__slots__:
        assert getattr(scene, field) == getattr(product, field)
        assert getattr(scene, field) is not None


@pytest.mark.parametrize(
    ("item_id", "properties", "field", "value"),
    [
        ("S2A_1CCV_20240422_0_L2A", {}, "tile", "01CCV"),
        ("S2A_T33UUP_20240422T100000_L2A", {}, "tile", "33UUP"),
        ("S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101608", {}, "tile", "33UUP"),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", {}, "tile", None),
        ("X", {"grid:code": "MGRS-5VNK"}, "tile", "05VNK"),
        ("X", {"grid:code": "WRS2-123"}, "tile", None),
        ("X", {"s2:mgrs_tile": "T33UUP"}, "tile", "33UUP"),
        ("X", {}, "tile", None),
        (L2A, {}, "relative_orbit", 22),
        (L2A, {"sat:relative_orbit": 0}, "relative_orbit", 0),
        (L2A, {}, "baseline", "0205"),
        (L2A, {}, "platform", "sentinel-2a"),
        (
            L2A,
            {"created": "2024-01-01T00:00:00Z"},
            "generated",
            datetime(2019, 1, 1, 10, 16, 8, tzinfo=UTC),
        ),
        ("chip_20190101T101608", {}, "generated", None),
        ("X", {"platform": "SENTINEL-1C"}, "platform", "sentinel-1c"),
        ("X", {"platform": "Landsat-8"}, "platform", None),
    ],
)  # fmt: skip
def test_what_names_tell(item_id: str, properties: dict[str, Any], field: str, value: object) -> None:
    assert getattr(identify({"id": item_id, "properties": properties}), field) == value
