"""Tiles by name: against the grids of real items, and against the letters laid out from the equator."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

from ingest.areas import mgrs
from ingest.areas.grid import utm_epsg
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest


def _records(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*s2*.json")):
        document = json.loads(path.read_text())
        found += document if isinstance(document, list) else document.get("features", [document])
    return found


def _said(item: dict[str, Any]) -> tuple[str, int, float, float] | None:
    """Name, EPSG, west and north of a record's 10 m grid."""
    properties, assets = item["properties"], item["assets"]
    band = assets.get("B02") or assets.get("blue") or assets.get("B02_10m") or {}
    transform = band.get("proj:transform") or properties.get("proj:transform")
    code = str(properties.get("proj:epsg") or properties.get("proj:code") or band.get("proj:code")).split(":")[-1]
    name = str(properties.get("s2:mgrs_tile") or properties.get("grid:code")).removeprefix("MGRS-")
    return (
        (name, int(code), transform[2], transform[5]) if transform and transform[0] == 10 and code != "None" else None
    )


def test_tiles_lie_where_real_items_say(stac_records: Path) -> None:
    said = {found for found in map(_said, _records(stac_records)) if found and found[0] != "None"}
    assert len(said) > 10
    for name, epsg, left, top in said:
        assert mgrs.tile(name) == mgrs.Tile(epsg=epsg, left_m=int(left), top_m=int(top)), name
    assert {epsg // 100 for _, epsg, *_ in said} == {326, 327}


def test_tiles_of_a_thousand_real_items(stac_records: Path) -> None:
    rows = pq.read_table(stac_records / "pc_s2l2a_1000_items_co_2024.parquet", columns=["s2:mgrs_tile", "assets"])
    for row in {row["s2:mgrs_tile"]: row for row in rows.to_pylist()}.values():
        transform = row["assets"]["B02"]["proj:transform"]
        found = mgrs.tile(row["s2:mgrs_tile"])
        assert (found.left_m, found.top_m) == (transform[2], transform[5])


@pytest.mark.parametrize(
    ("name", "left", "top"),
    [("33TWL", 499980, 5100000), ("33TWM", 499980, 5200020), (" t33twl ", 499980, 5100000), ("1KAB", 99960, 8200000)],
)
def test_names_as_people_write_them(name: str, left: int, top: int) -> None:
    assert (mgrs.tile(name).left_m, mgrs.tile(name).top_m) == (left, top)


def test_every_place_has_one_square_and_its_name_leads_back() -> None:
    """Names made with a plain loop over the letters, place by place."""
    for lon in range(-179, 180, 7):
        for lat in (-79.5, -60.2, -33.3, -8.1, -0.4, 0.4, 8.1, 33.3, 57.0, 60.2, 71.9, 73.0, 80.2, 83.9):
            epsg = utm_epsg(lon, lat)
            zone = epsg % 100
            x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
            column = "ABCDEFGHJKLMNPQRSTUVWXYZ"[(zone - 1) % 3 * 8 + int(x // 100_000) - 1]
            row = "ABCDEFGHJKLMNPQRSTUV"[(int(y // 100_000) + (5 if zone % 2 == 0 else 0)) % 20]
            band = "CDEFGHJKLMNPQRSTUVWXX"[int((lat + 80) // 8)]
            found = mgrs.tile(f"{zone:02d}{band}{column}{row}")
            assert found.epsg == epsg
            assert found.left_m <= x // 100_000 * 100_000 < found.left_m + 60
            assert 0 <= found.top_m - (y // 100_000 + 1) * 100_000 < 60
            assert mgrs.outline(found).covers(shapely.Point(lon, lat))


def test_a_tile_on_the_antimeridian_has_two_sides() -> None:
    ground = mgrs.outline(mgrs.tile("01KAB"))
    assert ground.geom_type == "MultiPolygon"
    assert ground.bounds[0] == -180
    assert ground.bounds[2] == 180


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("33TWL1", "as 33TWL"),
        ("", "as 33TWL"),
        ("TWL", "as 33TWL"),
        ("61TWL", "no zone 61T"),
        ("00TWL", "no zone 0T"),
        ("33IWL", "no zone 33I"),
        ("33AWL", "no zone 33A"),
        ("32XMK", "no zone 32X"),
        ("33TAL", "columns of zone 33 are STUVWXYZ"),
        ("33TWI", "rows ABCDEFGH"),
        ("33TWA", "does not lie in 33T"),
        ("33UWL", "does not lie in 33U"),
        ("33XSL", "does not lie in 33X"),
    ],
)
def test_what_is_no_tile(name: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        mgrs.tile(name)
