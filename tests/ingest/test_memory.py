"""What the plan says a unit takes is what a worker grows by: measured in a process that does nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from ingest import cube, planfile
from ingest import plan as plan_of
from ingest.areas.grid import corner_cell
from ingest.pixels import heap, raster
from ingest.pixels.raster import GDAL_OPTIONS
from ingest.plan import IngestPlan, make_task, make_units
from ingest.request import Request
from ingest.scenes.pairing import Pair
from ingest.scenes.scene import Asset, Grid, Scene
from ingest.scenes.stacking import Stack
from pipeline.bands import S1_NAMES, S2_BANDS
from pipeline.store import Store

pytestmark = pytest.mark.ingest
EPSG, LEFT, TOP, SIDE = 32633, 500040, 5300040, 2160
CHILD = """
import json, pathlib, re, sys
from ingest import build, planfile
from pipeline.store import Store

def peak():
    # Not ru_maxrss: a child inherits its parent's, and the process of all tests is large.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

store = Store.at(sys.argv[1])
plan = planfile.from_parquet(store.read(planfile.PLAN_NAME))
before = peak()
done = build.run_unit(plan.units[0], store=store, request=plan.request, with_label=False, fingerprint=plan.fingerprint)
print(json.dumps({"counts": dict(done.counts), "grown": peak() - before}))
"""


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Asset]:
    """All bands of a 2160 px image in blocks of 512: pixels that do not compress."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)

    def write(name: str, gsd_m: int, draw: Callable[[tuple[int, int]], np.ndarray], nodata: float) -> Asset:
        size, path = SIDE * 10 // gsd_m, folder / f"{name}.tif"
        profile = {"driver": "GTiff", "count": 1, "crs": EPSG, "nodata": nodata, "height": size, "width": size}
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
        pixels = draw((size, size))
        with rasterio.open(
            path, "w", dtype=pixels.dtype, transform=Affine(gsd_m, 0, LEFT, 0, -gsd_m, TOP), **profile
        ) as file:
            file.write(pixels, 1)
        return Asset(href=str(path), dn_offset=0)

    optical = {
        band.name: write(band.name, band.gsd_m, lambda shape: random.integers(200, 4000, shape, "u2"), 0)
        for band in S2_BANDS
    }
    radar = {
        name: write(name, 10, lambda shape: random.gamma(2, 0.05, shape).astype("f4"), -32768) for name in S1_NAMES
    }
    return optical | radar | {"SCL": write("SCL", 20, lambda shape: np.full(shape, 4, "u1"), 0)}


def test_what_the_plan_knows_of_others_is_true() -> None:
    assert GDAL_OPTIONS["GDAL_CACHEMAX"] * 2**20 == plan_of.GDAL_CACHE_BYTES
    assert (raster.READERS, heap.KEPT_BYTES) == (plan_of.BANDS_READ, plan_of.HEAP_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "chip_px", "across"),
    [
        ({}, 120, 16),
        ({"kind": "stack", "s1": (), "frames": 3}, 120, 8),
        ({"kind": "stack", "frames": 3}, 120, 8),
        ({"kind": "stack", "s1": (), "frames": 10, "s2_bands": ("B02", "B03", "B04")}, 120, 8),
        ({"kind": "stack", "s1": (), "frames": 3}, 264, 3),
    ],
    ids=["pairs", "stacks of all bands", "stacks with radar", "long stacks", "stacks of wide chips"],
)
def test_a_unit_grows_by_what_the_plan_says(
    *,
    asked: dict[str, Any],
    chip_px: int,
    across: int,
    assets: dict[str, Asset],
    make_request: Callable[..., Request],
    make_scene: Callable[..., Scene],
    tmp_path: Path,
) -> None:
    request = make_request(**asked, chip_px=chip_px)
    grid = Grid(epsg=EPSG, transform=(10.0, 0.0, LEFT, 0.0, -10.0, TOP), height_px=SIDE, width_px=SIDE)
    scenes = tuple(make_scene(f"S{i}", hours=480.0 * i, grid=grid, assets=assets) for i in range(request.frames))
    radar = make_scene("R", sensor="s1", grid=grid, assets=assets)
    found = (
        Stack(cell=0, candidates=scenes, radar=(radar,) * request.frames if request.s1 else ())
        if request.kind == "stack"
        else Pair(cell=0, s2=scenes[0], s1=radar, gap_hours=0.0)
    )
    steps = [10 * chip_px * i for i in range(across)]
    cells = [corner_cell(EPSG, LEFT + right, TOP - down, chip_px) for down in steps for right in steps]
    units = make_units([make_task(found, cell, labels={}, side=("b1-c1", "train")) for cell in cells], request)
    plan = IngestPlan(request=request, units=units, left_out=(), scenes_left_out={})
    store = Store.at(tmp_path)
    store.publish(planfile.PLAN_NAME, planfile.to_parquet(plan))
    cube.create(store, plan)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, timeout=240, check=True
    )
    told = json.loads(done.stdout)
    assert told["counts"] == {"accepted": across**2}
    assert 0.7 < units[0].memory_bytes(request) / told["grown"] < 1.5
