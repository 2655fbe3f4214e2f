"""Planning very many chips: a country of square scenes on four dates, radar a day later; and the plan read back."""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[3]))

import shapely
from benchmarks.peers_ingest.asking import plain_request
from benchmarks.peers_ingest.job import MARK, peak_bytes
from pyproj import Transformer

from ingest import cube, planfile, planner
from ingest.areas.aoi import Aoi
from ingest.plan import IngestPlan
from ingest.request import Request
from ingest.scenes.scene import Asset, Grid, Scene
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store

DATES, CHIP, EPSG, TILE_M, OVERLAP_M = 4, 120, 32633, 109_800, 9_800
LEFT, TOP = 300_000, 5_600_040
"""Upper left corner of the country (m)."""


def table(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row; a process of its own, for its memory."""
    command = [sys.executable, __file__, str(asked.chips)]
    done = subprocess.run(command, text=True, capture_output=True, check=True, timeout=3600)
    yield json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK)).removeprefix(MARK))


def measure(chips: int) -> dict[str, Any]:
    """Seconds of each step, and the most memory so far after it (MB)."""
    side_m = math.ceil(math.sqrt(chips / DATES)) * CHIP * 10
    west, south = LEFT + 20_000, TOP - 20_000 - side_m
    area = shapely.box(west, south, west + side_m, south + side_m)
    degrees = shapely.transform(area.segmentize(10_000), to_degrees, interleaved=False)
    wanted = asked(degrees)
    found = planner.Found(**scenes(side_m), unusable={})
    planner._find_scenes = lambda *_: found  # type: ignore[assignment]
    row: dict[str, Any] = {"chips": 0}

    def step(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        made = work()
        row[f"{name} s"], row[f"{name} MB"] = round(time.process_time() - begin, 1), round(peak_bytes() / 1e6)
        return made

    made: IngestPlan = step("plan", lambda: planner.make_plan(wanted))
    row["chips"], row["units"] = sum(len(unit.tasks) for unit in made.units), len(made.units)
    data = step("write", lambda: planfile.to_parquet(made))
    fingerprint = step("fingerprint", lambda: made.fingerprint)
    again: IngestPlan = step("read", lambda: planfile.from_parquet(data))
    assert again.fingerprint == fingerprint
    with tempfile.TemporaryDirectory() as out:
        step("cube", lambda: cube.create(Store.at(out), again))
    return {**row, "plan.parquet MB": round(len(data) / 1e6)}


def to_degrees(x: Any, y: Any) -> Any:
    """From the country's own metres."""
    return Transformer.from_crs(EPSG, 4326, always_xy=True).transform(x, y)


def asked(area: Any) -> Request:
    """Pairs of 120 px of everything within the area."""
    return plain_request(areas=(Aoi(name="country", wkt=area.wkt),), chip_px=CHIP, max_gap_hours=72.0, val_percent=5.0)


def scenes(side_m: float) -> dict[str, list[Scene]]:
    """Overlapping tiles of S2 on each date, and strips of S1 across them a day later."""
    step, start = TILE_M - OVERLAP_M, datetime(2023, 6, 1, 10, tzinfo=UTC)
    tiles = range(math.ceil((side_m + 40_000) / step))
    days = [start + timedelta(days=10 * number) for number in range(DATES)]
    s2 = [scene("s2", (col * step, row * step), TILE_M, day) for day in days for row in tiles for col in tiles]
    wide = range(math.ceil((side_m + 40_000) / 200_000))
    s1 = [scene("s1", (col * 200_000, row * 200_000), 250_000, day) for day in days for row in wide for col in wide]
    return {"s2": s2, "s1": s1, "labels": []}


def scene(sensor: Any, corner: tuple[float, float], size_m: float, day: datetime) -> Scene:
    """A square one; scenes of a row follow each other by seconds."""
    left, top = LEFT + corner[0], TOP - corner[1]
    ground = shapely.box(left, top - size_m, left + size_m, top).segmentize(10_000)
    tile = f"{round(corner[0] / 1000):04d}x{round(corner[1] / 1000):04d}"
    when = day + timedelta(days=sensor == "s1", seconds=corner[1] / 7000)
    names = (*S2_NAMES, "SCL") if sensor == "s2" else S1_NAMES
    name = f"{sensor.upper()}_{when:%Y%m%dT%H%M%S}_{tile}"
    assets = {band: Asset(href=f"https://store.example/{name}/{band}.tif", dn_offset=0) for band in names}
    return Scene(
        scene_id=name,
        collection={"s2": "sentinel-2-l2a", "s1": "sentinel-1-rtc"}[sensor],
        sensor=sensor,
        acquired=when,
        footprint_wkt=shapely.transform(ground, to_degrees, interleaved=False).wkt,
        cloud_percent=None,
        orbit_state="ascending",
        relative_orbit=None,
        baseline="05.09",
        backscatter=None,
        grid=Grid(
            epsg=EPSG,
            transform=(10.0, 0.0, float(left), 0.0, -10.0, float(top)),
            height_px=round(size_m / 10),
            width_px=round(size_m / 10),
        ),
        assets=assets,
        classes=(),
        tile=tile,
        datastrip=None,
        platform="A",
        generated=None,
    )


if __name__ == "__main__":
    print(MARK + json.dumps(measure(int(sys.argv[1]))), flush=True)
