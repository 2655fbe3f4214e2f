"""`chips.parquet`: every planned chip and every cell left out, with its outline, its outcome and its reason.

Columns that STAC has a name for carry that name (`proj:code`, `eo:cloud_cover`), and `derived_from` names the sources.
GeoParquet 1.1, so that QGIS, GeoPandas and DuckDB draw it: the place to look for "why is there a hole in my data set?".
"""

import io
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from ingest.areas import majortom
from ingest.areas.grid import footprints
from ingest.plan import IngestPlan, PairTask, Task, anchor, scenes_of
from ingest.receipt import Outcome
from ingest.scenes.scene import Scene

NAME = "chips.parquet"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon", "MultiPolygon"],
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
        }
    },
}
"""Without `crs` the standard's default holds: longitude and latitude on WGS 84."""


def to_geoparquet(plan: IngestPlan, outcomes: Sequence[Outcome]) -> bytes:
    """The file of `plan`; `outcomes` are those of all its units, in order."""
    buffer = io.BytesIO()
    pq.write_table(to_table(plan, outcomes), buffer, compression="zstd")
    return buffer.getvalue()


def to_table(plan: IngestPlan, outcomes: Sequence[Outcome]) -> pa.Table:
    """The table of `plan`; `outcomes` are those of all its units, in order."""
    tasks = plan.tasks
    cells = [task.cell for task in tasks] + [item.cell for item in plan.left_out]
    empty = [None] * len(plan.left_out)
    outlines = footprints(cells)
    columns = {
        "id": [task.key for task in tasks] + [item.cell.cell_id for item in plan.left_out],
        "collection": [f"sentinel-{plan.request.kind}s-{plan.fingerprint[:12]}"] * len(cells),
        "cell_id": [cell.cell_id for cell in cells],
        "major_tom": [majortom.cell_name(*cell.center_lonlat) for cell in cells],
        "status": ["rejected" if outcome.reason else "accepted" for outcome in outcomes] + ["left out"] * len(empty),
        "reason": [outcome.reason for outcome in outcomes] + [item.reason for item in plan.left_out],
        "key": [task.key for task in tasks] + empty,
        "split": [task.split for task in tasks] + empty,
        "group": [task.group for task in tasks] + empty,
        "s2_id": [_s2_ids(task) for task in tasks] + empty,
        "s1_id": [_s1_ids(task) for task in tasks] + empty,
        "datetime": [anchor(task).acquired for task in tasks] + empty,
        "gap_hours": [task.gap_hours if isinstance(task, PairTask) else None for task in tasks] + empty,
        "valid_fraction": [outcome.valid_fraction for outcome in outcomes] + empty,
        "cloud_fraction": [outcome.cloud_fraction for outcome in outcomes] + empty,
        "eo:cloud_cover": [_percent(outcome.cloud_fraction) for outcome in outcomes] + empty,
        "proj:code": [f"EPSG:{cell.epsg}" for cell in cells],
        "proj:transform": [cell.transform for cell in cells],
        "proj:shape": [(cell.size_px, cell.size_px) for cell in cells],
        "grid:code": [_grid_code(task) for task in tasks] + empty,
        "derived_from": [_sources(task) for task in tasks] + empty,
        "bbox": [dict(zip(_SIDES, box, strict=True)) for box in shapely.bounds(outlines).tolist()],
        "geometry": shapely.to_wkb(outlines).tolist(),
    }
    table = pa.table({name: pa.array(values, _TYPES.get(name, pa.string())) for name, values in columns.items()})
    return table.replace_schema_metadata({b"geo": json.dumps(_GEO).encode()})


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _grid_code(task: Task) -> str | None:
    """The MGRS tile of the S2 scene, as STAC's grid extension writes it."""
    tile = anchor(task).tile
    return f"MGRS-{tile}" if tile else None


def _sources(task: Task) -> list[str]:
    """`COLLECTION/ITEM` of everything that the chip may be made of."""
    scenes = (*(part for scene in scenes_of(task) for part in scene.parts), *task.labels)
    return [f"{scene.collection}/{scene.scene_id}" for scene in scenes]


def _s2_ids(task: Task) -> str:
    """The S2 scene of a pair and those that fill it; all candidates of a stack."""
    return _ids((task.s2,) if isinstance(task, PairTask) else task.candidates)


def _s1_ids(task: Task) -> str | None:
    return _ids((task.s1,) if isinstance(task, PairTask) else task.radar) or None


def _ids(scenes: Sequence[Scene]) -> str:
    return " ".join(part.scene_id for scene in scenes for part in scene.parts)


_TYPES = {
    "eo:cloud_cover": pa.float32(),
    "proj:transform": pa.list_(pa.float64()),
    "proj:shape": pa.list_(pa.int64()),
    "derived_from": pa.list_(pa.string()),
    "bbox": pa.struct({side: pa.float64() for side in _SIDES}),
    "datetime": pa.timestamp("us", tz="UTC"),
    "gap_hours": pa.float64(),
    "valid_fraction": pa.float32(),
    "cloud_fraction": pa.float32(),
    "geometry": pa.binary(),
}
