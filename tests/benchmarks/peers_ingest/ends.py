"""Whole builds of pairs, from search to shards: the same cells of the same Earth, the same samples."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from benchmarks.peers_ingest.running import HERE, ROOT, ask, environment, python, serving

from ingest import planfile
from ingest.plan import IngestPlan
from ingest.synthetic import make_earth

EARTH, AREA = (15.0, 47.80, 15.27, 47.98), (15.09, 47.815, 15.27, 47.98)
"""Degrees: 20 km a side, and the part of it that no scene ends in. Two of three dates are clear enough."""
CELLS = {"all cells": [], "8 cells": ["--sample", "8"]}
OURS = {"ours": ["--workers", "0"]}
PEERS = {"odc-stac, scene": "scene", "odc-stac, chips": "chips"}
CLOUD_PERCENT, GAP_HOURS, SIZE = 60, 72, 264
DB = 1e-4
"""By which radar may differ: we take logarithms of doubles."""


def table(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each builder and choice of cells."""
    earth = asked.earth or folder / "earth"
    make_earth(earth, aoi=shapely.box(*EARTH))
    with serving(earth) as url:
        for cells, sampled in CELLS.items():
            places: list[Path] = []
            for name in [*OURS, *(name for name in PEERS if "odc-stac, chips" in asked.peers)]:
                runs = []
                for number in range(asked.runs):
                    out = folder / f"{cells}-{name}-{number}".replace(" ", "-").replace(",", "")
                    places.append(out)
                    runs.append(once(name, out, url, sampled=sampled, first=places[0], asked=asked))
                best = min(runs, key=lambda run: float(run["CPU s"]))
                yield {"cells": cells, "builder": name, **best, "s": " to ".join(spread(run["s"] for run in runs))}


def once(
    name: str, out: Path, url: str, *, sampled: list[str], first: Path, asked: argparse.Namespace
) -> dict[str, Any]:
    """One build: what it cost, and whether it holds the samples of the first."""
    ask(f"{url}/-/set?delay={asked.delay}")
    if name in OURS:
        command = [sys.executable, "-m", "ingest.cli", "build-shards", "--aoi", ",".join(map(str, AREA))]
        command += ["--catalog", f"{url}/stac", "--out", str(out), "--max-cloud", str(CLOUD_PERCENT), "--codec", "npy"]
        command += ["--max-gap", f"{GAP_HOURS}h", "--chip-px", str(SIZE), "--val", "0", *sampled, *OURS[name]]
    else:
        out.mkdir()
        command = [python("odc-stac", asked.envs), str(HERE / "odcend.py"), str(job(out, url, first)), PEERS[name]]
    cpu, wall = children_s(), time.perf_counter()
    subprocess.run(command, env=environment() | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=900)
    cpu, wall, counts = children_s() - cpu, time.perf_counter() - wall, ask(f"{url}/-/counts")
    chips, found = compared(out, first)
    return {
        "samples": chips,
        "CPU s": round(cpu, 1),
        "CPU ms/sample": round(cpu / chips * 1000, 1),
        "s": wall,
        "requests": counts["requests"],
        "MB": round(counts["bytes"] / 1e6),
        "as ours": found,
    }


def job(out: Path, url: str, first: Path) -> Path:
    """What a peer is told: the cells of our plan, and the rest as our flags."""
    cells = {task.cell.cell_id: (task.cell.left_m, task.cell.top_m, task.cell.epsg) for task in plan_of(first).tasks}
    told = {"catalog": f"{url}/stac", "bbox": AREA, "out": str(out), "size": SIZE, "gap": GAP_HOURS}
    places = [(name, left, top) for name, (left, top, _) in sorted(cells.items())]
    (epsg,) = {epsg for _, _, epsg in cells.values()}
    path = out / "job.json"
    path.write_text(json.dumps({**told, "cells": places, "epsg": epsg, "cloud": CLOUD_PERCENT / 100}))
    return path


def plan_of(out: Path) -> IngestPlan:
    """Of a data set of ours."""
    return planfile.from_parquet((out / planfile.PLAN_NAME).read_bytes())


def rows_of(out: Path) -> dict[str, int]:
    """Rows of a cube by cell and scene: of ours the accepted ones."""
    group = zarr.open_group(out / "cube.zarr", mode="r", use_consolidated=False)
    if not (out / planfile.PLAN_NAME).exists():
        return {name: row for row, name in enumerate(group.attrs["names"])}  # type: ignore[arg-type]
    good = np.asarray(group["accepted"][:])
    rows = {
        f"{task.cell.cell_id}/{task.s2.scene_id}": unit.first_row + i  # type: ignore[union-attr]
        for unit in plan_of(out).units
        for i, task in enumerate(unit.tasks)
    }
    return {name: row for name, row in rows.items() if good[row]}


def compared(out: Path, first: Path) -> tuple[int, str]:
    """How many samples a data set has, and how many of them are not those of the first."""
    mine, theirs = rows_of(first), rows_of(out)
    a, b = (zarr.open_group(where / "cube.zarr", mode="r", use_consolidated=False) for where in (first, out))
    wrong = len(mine.keys() ^ theirs.keys())
    for name in mine.keys() & theirs.keys():
        for array in ("s2", "s1", "mask"):
            want, got = np.asarray(a[array][mine[name]], "f8"), np.asarray(b[array][theirs[name]], "f8")
            if not np.allclose(want, got, rtol=0, atol=DB if array == "s1" else 0, equal_nan=True):
                wrong += 1
                break
    return len(theirs), "all" if not wrong else f"{wrong} not"


def children_s() -> float:
    """Processor seconds of all processes that this one waited for, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system


def spread(values: Iterator[float]) -> list[str]:
    """The least and the most."""
    found = sorted(values)
    return [f"{value:.1f}" for value in sorted({found[0], found[-1]})]
