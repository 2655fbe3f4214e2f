"""Every planned chip and every cell left out, as GeoParquet."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

from ingest import chips
from ingest.areas.majortom import cell_name
from ingest.plan import IngestPlan, LeftOut
from ingest.planner import make_plan
from ingest.receipt import Outcome
from ingest.request import Request

pytestmark = pytest.mark.ingest


def test_table(make_request: Callable[..., Request]) -> None:
    plan = make_plan(make_request())
    plan = replace(plan, left_out=(LeftOut(cell=plan.tasks[0].cell, reason="no S1"),))
    outcomes = [
        Outcome(key=task.key, reason="cloud" if i % 3 else "", valid_fraction=0.5, cloud_fraction=0.25)
        for i, task in enumerate(plan.tasks)
    ]
    data = chips.to_geoparquet(plan, outcomes)
    assert data == chips.to_geoparquet(plan, outcomes)
    table = pq.read_table(io.BytesIO(data))
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == [task.key for task in plan.tasks] + [None]
    assert [row["status"] for row in rows[:3]] == ["accepted", "rejected", "rejected"]
    assert (rows[-1]["status"], rows[-1]["reason"], rows[-1]["cell_id"]) == (
        "left out",
        "no S1",
        plan.tasks[0].cell.cell_id,
    )
    for row, task in zip(rows, plan.tasks, strict=False):
        outline = shapely.from_wkb(row["geometry"])
        assert outline.covers(shapely.Point(task.cell.center_lonlat))
        assert row["datetime"] == task.s2.acquired
        assert row["major_tom"] == cell_name(*task.cell.center_lonlat)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"], geo["columns"]["geometry"]["encoding"]) == (
        "1.1.0",
        "geometry",
        "WKB",
    )


def test_geopandas_free_readers_find_the_standards_keys(make_request: Callable[..., Request]) -> None:
    geo = chips._GEO
    assert set(geo) == {"version", "primary_column", "columns"}
    assert set(geo["columns"][geo["primary_column"]]) >= {"encoding", "geometry_types"}


@pytest.fixture(scope="module")
def table(make_request: Callable[..., Request], make_scene: Callable[..., Any]) -> tuple[IngestPlan, pa.Table]:
    plan = make_plan(make_request(labels=("labels",)))
    cell = replace(plan.tasks[0].cell, cell_id="another")
    plan = replace(plan, left_out=(LeftOut(cell=cell, reason="no S1"),))
    first = plan.units[0]
    filled = replace(first.tasks[0], s2=replace(first.tasks[0].s2, tile="33UVP", fills=(make_scene("S2-fill"),)))
    plan = replace(plan, units=(replace(first, tasks=(filled, *first.tasks[1:])), *plan.units[1:]))
    outcomes = [
        Outcome(key=task.key, reason="", valid_fraction=0.5, cloud_fraction=0.25 if i else None)
        for i, task in enumerate(plan.tasks)
    ]
    return plan, pq.read_table(io.BytesIO(chips.to_geoparquet(plan, outcomes)))


def test_stac_s_columns_say_what_stac_means(table: tuple[IngestPlan, pa.Table]) -> None:
    plan, read = table
    rows = read.to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    assert rows[-1]["id"] == "another"
    assert {row["collection"] for row in rows} == {f"sentinel-pairs-{plan.fingerprint[:12]}"}
    assert [row["eo:cloud_cover"] for row in rows[:2]] == [None, 25.0]
    assert [row["grid:code"] for row in rows[:2]] == ["MGRS-33UVP", None]
    assert rows[0]["derived_from"][1] == "sentinel-2-l2a/S2-fill"
    assert rows[1]["derived_from"] == ["sentinel-2-l2a/S2-0", "sentinel-1-rtc/S1-0", "labels/LULC"]
    for row, task in zip(rows, plan.tasks, strict=False):
        outline = shapely.from_wkb(row["geometry"])
        assert tuple(row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")) == outline.bounds
        height, width = row["proj:shape"]
        a, b, c, d, e, f = row["proj:transform"]
        to_degrees = Transformer.from_crs(row["proj:code"], 4326, always_xy=True)
        corner = to_degrees.transform(a * width + b * height + c, d * width + e * height + f)
        assert shapely.Point(corner).distance(outline.exterior) < 1e-9
        assert task.cell.transform == (a, b, c, d, e, f)


def test_no_address_is_in_the_table(table: tuple[IngestPlan, pa.Table]) -> None:
    assert ".tif" not in str(table[1].to_pylist())


def test_geopandas_reads_it(table: tuple[IngestPlan, pa.Table], tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="an oracle that the project does not need")
    pq.write_table(table[1], tmp_path / "chips.parquet")
    frame = geopandas.read_parquet(tmp_path / "chips.parquet")
    assert frame.crs.to_epsg() in {4326, None}
    assert len(frame.cx[-180:180, -90:90]) == table[1].num_rows
