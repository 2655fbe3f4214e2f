"""The plan ⇄ `plan.parquet`: one row a chip, one row a cell left out; the request and the scenes' reasons as metadata.

Why scenes stand in the rows as JSON: equal strings are stored once by Parquet's dictionaries, and the file stays one
table that a person can open with any tool.
"""

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import majortom
from ingest.grid import Cell
from ingest.plan import IngestPlan, LeftOut, PairTask, StackTask, Task, Unit
from ingest.request import Request
from ingest.scene import Scene
from pipeline import record
from pipeline.errors import ContractError

PLAN_NAME = "plan.parquet"
_META = b"ingest_plan"


def to_parquet(plan: IngestPlan) -> bytes:
    """`plan.parquet` of `plan`."""
    rows = [_task_row(unit, i, task) for unit in plan.units for i, task in enumerate(unit.tasks)]
    rows += [_cell_row(item.cell) | {"reason": item.reason} for item in plan.left_out]
    meta = {"request": record.to_json(plan.request), "scenes_left_out": dict(plan.scenes_left_out)}
    table = pa.Table.from_pylist(rows, _SCHEMA).replace_schema_metadata({_META: json.dumps(meta).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> IngestPlan:
    """The plan that `to_parquet` was given.

    Raises:
        ContractError: not such a file.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        meta = json.loads(table.schema.metadata[_META])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError) as error:
        raise ContractError(f"{PLAN_NAME} cannot be read: {error}. Remove it to plan again.") from error
    rows = table.to_pylist()
    return IngestPlan(
        request=record.from_json(Request, meta["request"], where="plan.request"),
        units=_units([row for row in rows if row["unit"]]),
        left_out=tuple(LeftOut(cell=_cell(row), reason=row["reason"]) for row in rows if not row["unit"]),
        scenes_left_out=meta["scenes_left_out"],
    )


_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "cell_id": pa.string(),
        "epsg": pa.int32(),
        "left_m": pa.float64(),
        "top_m": pa.float64(),
        "size_px": pa.int32(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "major_tom": pa.string(),
        "unit": pa.string(),
        "row": pa.int64(),
        "split": pa.string(),
        "group": pa.string(),
        "gap_hours": pa.float64(),
        "s2_id": pa.string(),
        "s1_id": pa.string(),
        "reason": pa.string(),
        "s2": _TEXT,
        "s1": _TEXT,
        "candidates": _TEXT,
        "radar": _TEXT,
        "labels": _TEXT,
    }
)


def _cell_row(cell: Cell) -> dict[str, Any]:
    lon, lat = cell.center_lonlat
    place = {"left_m": cell.left_m, "top_m": cell.top_m, "lon": lon, "lat": lat}
    name = {"cell_id": cell.cell_id, "major_tom": majortom.cell_name(lon, lat)}
    return {**name, "epsg": cell.epsg, "size_px": cell.size_px} | place


def _task_row(unit: Unit, position: int, task: Task) -> dict[str, Any]:
    return _cell_row(task.cell) | _scenes_row(task) | {
        "key": task.key,
        "unit": unit.unit_id,
        "row": unit.first_row + position,
        "split": task.split,
        "group": task.group,
        "labels": record.dumps(task.labels).decode(),
    }  # fmt: skip


def _scenes_row(task: Task) -> dict[str, Any]:
    if isinstance(task, StackTask):
        return {
            "s2_id": _ids(task.candidates),
            "s1_id": _ids(task.radar) if task.radar else None,
            "candidates": record.dumps(task.candidates).decode(),
            "radar": record.dumps(task.radar).decode(),
        }
    return {
        "gap_hours": task.gap_hours,
        "s2_id": task.s2.scene_id,
        "s1_id": task.s1.scene_id,
        "s2": record.dumps(task.s2).decode(),
        "s1": record.dumps(task.s1).decode(),
    }


def _ids(scenes: Sequence[Scene]) -> str:
    return " ".join(part.scene_id for scene in scenes for part in scene.parts)


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(
        cell_id=row["cell_id"],
        epsg=row["epsg"],
        left_m=row["left_m"],
        top_m=row["top_m"],
        size_px=row["size_px"],
        center_lonlat=(row["lon"], row["lat"]),
    )


@cache
def _scene(text: str) -> Scene:
    return record.loads(Scene, text.encode(), where="plan.scene")


@cache
def _scenes(text: str) -> tuple[Scene, ...]:
    scenes: tuple[Scene, ...] = record.from_json(tuple[Scene, ...], json.loads(text), where="plan.scenes")
    return scenes


def _task(row: Mapping[str, Any]) -> Task:
    shared = {"key": row["key"], "cell": _cell(row), "split": row["split"], "group": row["group"]}
    labels = _scenes(row["labels"])
    if row["candidates"] is not None:
        return StackTask(candidates=_scenes(row["candidates"]), radar=_scenes(row["radar"]), labels=labels, **shared)
    s2, s1 = _scene(row["s2"]), _scene(row["s1"])
    return PairTask(s2=s2, s1=s1, gap_hours=row["gap_hours"], labels=labels, **shared)


def _units(rows: Sequence[Mapping[str, Any]]) -> tuple[Unit, ...]:
    by_unit: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], []).append(row)
    return tuple(
        Unit(unit_id=unit_id, first_row=members[0]["row"], tasks=tuple(_task(row) for row in members))
        for unit_id, members in by_unit.items()
    )
