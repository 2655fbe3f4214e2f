"""The plan ⇄ `plan.parquet`: one row a chip, one row a cell left out; the request and the scenes' reasons as metadata.

Why scenes stand in the rows as JSON: equal strings are stored once by Parquet's dictionaries, and the file stays one
table that a person can open with any tool.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.areas import majortom
from ingest.areas.grid import Cell
from ingest.plan import IngestPlan, LeftOut, PairTask, StackTask, Task, Unit
from ingest.request import Request
from ingest.scenes.scene import Scene
from pipeline import record
from pipeline.errors import ContractError

PLAN_NAME = "plan.parquet"
_META = b"ingest_plan"


def to_parquet(plan: IngestPlan) -> bytes:
    """`plan.parquet` of `plan`."""
    meta = {"request": record.to_json(plan.request), "scenes_left_out": dict(plan.scenes_left_out)}
    columns = _cell_columns([task.cell for task in plan.tasks] + [item.cell for item in plan.left_out])
    empty = pa.nulls(len(plan.left_out))
    for name, values in (_task_columns(plan) | {"reason": [None] * len(plan.tasks)}).items():
        kind = _SCHEMA.field(name).type
        tail = pa.array([item.reason for item in plan.left_out], kind) if name == "reason" else empty.cast(kind)
        columns[name] = pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values, kind), tail])
    table = pa.table(
        [columns[name] for name in _SCHEMA.names], _SCHEMA.with_metadata({_META: json.dumps(meta).encode()})
    )
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
        request, scenes_left_out = meta["request"], meta["scenes_left_out"]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ContractError(f"{PLAN_NAME} cannot be read: {error}. Remove it to plan again.") from error
    units: dict[str, list[Task]] = {}
    first_row: dict[str, int] = {}
    left_out: list[LeftOut] = []
    cells: dict[str, Cell] = {}
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in _rows(batch):
            if row["cell_id"] not in cells:
                cells[row["cell_id"]] = _cell(row)
            cell = cells[row["cell_id"]]
            if row["unit"] is None:
                left_out.append(LeftOut(cell=cell, reason=row["reason"]))
            else:
                first_row.setdefault(row["unit"], row["row"])
                units.setdefault(row["unit"], []).append(_task(row, cell))
    return IngestPlan(
        request=record.from_json(Request, request, where="plan.request"),
        units=tuple(Unit(unit_id=name, first_row=first_row[name], tasks=tuple(units[name])) for name in units),
        left_out=tuple(left_out),
        scenes_left_out=scenes_left_out,
    )


_NAMES = {"unit", "split", "group"}
"""Columns with few values, of which plain strings are stored."""
_BATCH = 8192
"""Rows that are Python objects at one time."""
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


def _cell_columns(cells: Sequence[Cell]) -> dict[str, Any]:
    lonlat = [cell.center_lonlat for cell in cells]
    return {
        "cell_id": [cell.cell_id for cell in cells],
        "epsg": [cell.epsg for cell in cells],
        "left_m": [cell.left_m for cell in cells],
        "top_m": [cell.top_m for cell in cells],
        "size_px": [cell.size_px for cell in cells],
        "lon": [lon for lon, _ in lonlat],
        "lat": [lat for _, lat in lonlat],
        "major_tom": [majortom.cell_name(*place) for place in lonlat],
    }


def _task_columns(plan: IngestPlan) -> dict[str, Any]:
    tasks = plan.tasks
    pairs = [task if isinstance(task, PairTask) else None for task in tasks]
    stacks = [task if isinstance(task, StackTask) else None for task in tasks]
    return {
        "key": [task.key for task in tasks],
        "unit": [unit.unit_id for unit in plan.units for _ in unit.tasks],
        "row": [unit.first_row + i for unit in plan.units for i in range(len(unit.tasks))],
        "split": [task.split for task in tasks],
        "group": [task.group for task in tasks],
        "gap_hours": [pair and pair.gap_hours for pair in pairs],
        "s2_id": [_ids(task.candidates) if isinstance(task, StackTask) else task.s2.scene_id for task in tasks],
        "s1_id": [(_ids(task.radar) or None) if isinstance(task, StackTask) else task.s1.scene_id for task in tasks],
        "s2": _texts([pair.s2 if pair else None for pair in pairs]),
        "s1": _texts([pair.s1 if pair else None for pair in pairs]),
        "candidates": _texts([stack.candidates if stack else None for stack in stacks]),
        "radar": _texts([stack.radar if stack else None for stack in stacks]),
        "labels": _texts([task.labels for task in tasks]),
    }


def _texts(values: Sequence[Scene | tuple[Scene, ...] | None]) -> pa.Array:
    """Scenes as JSON, each text once. Tasks share their scenes, so each is written once, too."""
    written: dict[object, int | None] = {None: None}
    places: dict[str, int] = {}
    at: list[int | None] = []
    for value in values:
        who = tuple(map(id, value)) if isinstance(value, tuple) else value and id(value)
        if who not in written:
            written[who] = places.setdefault(record.dumps(value).decode(), len(places))
        at.append(written[who])
    return pa.DictionaryArray.from_arrays(pa.array(at, pa.int32()), pa.array(list(places), pa.string()))


def _ids(scenes: Sequence[Scene]) -> str:
    return " ".join(part.scene_id for scene in scenes for part in scene.parts)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows, whose texts of scenes and names of units are the same objects wherever they are equal."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        coded = column.dictionary_encode() if name in _NAMES else column
        if isinstance(coded, pa.DictionaryArray):
            words = [*coded.dictionary.to_pylist(), None]
            columns[name] = [words[-1 if i is None else i] for i in coded.indices.to_pylist()]
        else:
            columns[name] = coded.to_pylist()
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


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


def _task(row: Mapping[str, Any], cell: Cell) -> Task:
    shared = {"key": row["key"], "cell": cell, "split": row["split"], "group": row["group"]}
    labels = _scenes(row["labels"])
    if row["candidates"] is not None:
        return StackTask(candidates=_scenes(row["candidates"]), radar=_scenes(row["radar"]), labels=labels, **shared)
    s2, s1 = _scene(row["s2"]), _scene(row["s1"])
    return PairTask(s2=s2, s1=s1, gap_hours=row["gap_hours"], labels=labels, **shared)
