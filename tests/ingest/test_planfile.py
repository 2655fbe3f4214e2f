"""A plan survives its file."""

import io
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest import planfile
from ingest.areas.majortom import cell_name
from ingest.plan import IngestPlan, LeftOut
from ingest.planner import make_plan
from ingest.request import Request
from pipeline.errors import ContractError

pytestmark = pytest.mark.ingest


@pytest.fixture
def plan(make_request: Callable[..., Request]) -> IngestPlan:
    made = make_plan(make_request(labels=("labels",), val_percent=50.0))
    left_out = (LeftOut(cell=made.tasks[0].cell, reason="gap 80.0 h"),)
    return replace(made, left_out=left_out, scenes_left_out={"ü": "no date"})


def test_round_trip(plan: IngestPlan) -> None:
    again = planfile.from_parquet(planfile.to_parquet(plan))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    assert planfile.to_parquet(again) == planfile.to_parquet(plan)


def test_round_trip_on_real_scenes(ask_real: Callable[..., Request]) -> None:
    plan = make_plan(ask_real())
    again = planfile.from_parquet(planfile.to_parquet(plan))
    assert again == plan
    assert again.fingerprint == plan.fingerprint


def test_a_person_can_read_it(plan: IngestPlan) -> None:
    rows = pq.read_table(io.BytesIO(planfile.to_parquet(plan))).to_pylist()
    assert [row["key"] for row in rows] == [task.key for task in plan.tasks] + [None]
    assert [row["row"] for row in rows[:-1]] == [u.first_row + i for u in plan.units for i in range(len(u.tasks))]
    assert {row["major_tom"] for row in rows} == {cell_name(*task.cell.center_lonlat) for task in plan.tasks}
    assert (rows[-1]["cell_id"], rows[-1]["reason"]) == (plan.left_out[0].cell.cell_id, "gap 80.0 h")


def test_scenes_are_stored_once(plan: IngestPlan) -> None:
    (unit, *_) = plan.units
    many = replace(plan, units=(replace(unit, tasks=unit.tasks * 200),))
    assert len(planfile.to_parquet(many)) < 1.5 * len(planfile.to_parquet(plan)) + 20_000


def test_other_bytes_are_refused(plan: IngestPlan) -> None:
    data = planfile.to_parquet(plan)
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), other)
    for bad in (b"", b"x", data[: len(data) // 2], other.getvalue()):
        with pytest.raises(ContractError, match=r"plan\.parquet cannot be read"):
            planfile.from_parquet(bad)
