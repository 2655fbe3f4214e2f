"""What the commands print: plain facts by name, for a person or as JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import record
from pipeline.errors import redact

if TYPE_CHECKING:
    from ingest.areas.grid import Cell
    from ingest.care.explain import Verdict as Explained
    from ingest.care.verify import Verdict
    from ingest.cost import Cost
    from ingest.plan import IngestPlan
    from pipeline.manifest import Manifest


def of_data_set(built: "Manifest", out: str) -> dict[str, Any]:
    """A finished data set."""
    return {
        "chips": sum(built.counts.values()),
        "accepted": built.counts.get("accepted", 0),
        "rejected": {reason: n for reason, n in built.counts.items() if reason != "accepted"},
        "train": built.samples("train"),
        "val": built.samples("val"),
        "shards": len(built.shards),
        "bytes": sum(shard.bytes for shard in built.shards),
        "out": redact(out),
    }


def of_plan(made: "IngestPlan", cost: "Cost") -> dict[str, Any]:
    """A plan."""
    from ingest.plan import scene_ids

    return {
        "chips": len(made.tasks),
        "units": len(made.units),
        "train": sum(task.split == "train" for task in made.tasks),
        "val": sum(task.split == "val" for task in made.tasks),
        "leakage": _leakage(made),
        "memory per task": f"{cost.memory_bytes / 2**20:.0f} MiB",
        "cost": {
            "requests": cost.requests,
            "bytes read": cost.bytes_read,
            "bytes written": cost.bytes_shards + cost.bytes_cube,
            "CPU hours": round(cost.cpu_hours, 3),
            "hours": round(cost.hours, 3),
            "US dollars": round(cost.usd, 2),
        },
        f"{made.request.kind}s": dict(Counter(" + ".join(scene_ids(task)) for task in made.tasks)),
        "cells left out": dict(Counter(item.reason for item in made.left_out)),
        "scenes left out": dict(made.scenes_left_out),
    }


def _leakage(made: "IngestPlan") -> dict[str, Any]:
    """What training may know of the validation ground."""
    from ingest.areas.split import REACH_KM, leakage
    from ingest.plan import scene_ids

    tasks, guard = made.tasks, made.request.guard_km
    found = leakage([task.cell for task in tasks], [task.split for task in tasks], [*map(scene_ids, tasks)], guard)
    return {
        "train cells that overlap val ground": found.overlapping,
        f"train cells within {guard:g} km of val ground": found.within_guard,
        "km from train to val ground": f"over {REACH_KM:g}" if found.nearest_km is None else round(found.nearest_km, 3),
        "percent of train chips from scenes of val chips": round(found.same_scene_percent, 1),
    }


def of_cell(cell: "Cell", verdicts: "Sequence[Explained]") -> dict[str, Any]:
    """What became of every scene on one cell."""
    return {"cell": record.to_json(cell), "scenes": [record.to_json(one) for one in verdicts]}


def of_verdict(verdict: "Verdict") -> dict[str, Any]:
    """What verify found."""
    return {
        "units": verdict.units,
        "shards": verdict.shards,
        "samples": verdict.samples,
        "decoded": verdict.decoded,
        "plan": "compared" if verdict.has_plan else "not there",
        "wrong": [record.to_json(finding) for finding in verdict.findings],
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for a person."""
    found = []
    for name, value in facts.items():
        parts = [f"{key}: {item}" for key, item in value.items()] if isinstance(value, dict) else [str(value)]
        found.append(f"{name:>16}  " + f"\n{'':>18}".join(parts or ["none"]))
    return found
