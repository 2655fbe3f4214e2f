"""Every planned chip and every cell left out, as GeoParquet."""

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import shapely

from ingest import chips
from ingest.majortom import cell_name
from ingest.plan import LeftOut
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
