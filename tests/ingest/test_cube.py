"""The cube as other people's tools see it, against the shards."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.testing import assert_array_equal

from ingest import cube, planfile
from ingest.build import build
from ingest.cube import georeferenced, open_cube
from ingest.plan import ROWS_PER_SHARD, IngestPlan
from ingest.request import Request
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store

pytestmark = pytest.mark.ingest


@pytest.fixture(scope="module")
def out(make_request: Callable[..., Request], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cube")
    build(make_request(labels=("labels",), codec="npy", val_percent=50.0, seed=1), str(out), workers=0)
    return out


@pytest.fixture(scope="module")
def plan(out: Path) -> IngestPlan:
    return planfile.from_parquet((out / "plan.parquet").read_bytes())


def _samples(out: Path) -> dict[str, dict[str, Any]]:
    """What the standard library and numpy find in the shards."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("shards/*/*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, name = info.name.partition(".")
                data = tar.extractfile(info).read()  # type: ignore[union-attr]
                value = json.loads(data) if name == "json" else np.load(io.BytesIO(data))
                found.setdefault(key, {})[name.removesuffix(".npy")] = value
    return found


def test_rows_are_the_shards_samples_and_the_rest_is_fill(out: Path, plan: IngestPlan) -> None:
    opened, samples = open_cube(Store.at(out)).load(), _samples(out)
    assert opened.sizes["sample"] == plan.rows == 3 * ROWS_PER_SHARD
    accepted = opened["accepted"].values
    assert set(opened["key"].values[accepted]) == set(samples)
    for row in range(plan.rows):
        key = str(opened["key"].values[row])
        if accepted[row]:
            for name in ("s2", "s1", "mask", "label"):
                assert_array_equal(opened[name].values[row], samples[key][name])
        else:
            assert not opened["s2"].values[row].any()
            assert np.isnan(opened["s1"].values[row]).all()
            assert (opened["mask"].values[row] == 3).all()
            assert not opened["label"].values[row].any()


def test_coordinates_are_the_plans(out: Path, plan: IngestPlan) -> None:
    opened = open_cube(Store.at(out))
    assert opened["band"].values.tolist() == list(S2_NAMES)
    assert opened["polarisation"].values.tolist() == list(S1_NAMES)
    rows = {unit.first_row + i: task for unit in plan.units for i, task in enumerate(unit.tasks)}
    for row in range(plan.rows):
        one = opened.isel(sample=row)
        if row not in rows:
            assert (str(one["key"].values), int(one["epsg"])) == ("", 0)
            assert np.isnan(one["left_m"])
            continue
        task = rows[row]
        assert (str(one["key"].values), str(one["cell_id"].values)) == (task.key, task.cell.cell_id)
        assert (int(one["epsg"]), str(one["split"].values)) == (task.cell.epsg, task.split)
        assert (float(one["left_m"]), float(one["top_m"])) == (task.cell.left_m, task.cell.top_m)
        assert (float(one["lon"]), float(one["lat"])) == task.cell.center_lonlat
        for name, scene in (("time", task.s2), ("s1_time", task.s1)):
            want = np.datetime64(round(scene.acquired.timestamp()), "s")
            assert one[name].values.astype("datetime64[s]") == want


_PLAIN = """
import sys, warnings
warnings.simplefilter("error")
import xarray
cube = xarray.open_zarr(sys.argv[1])
print(dict(cube.sizes), sorted(map(str, cube.variables)))
cube["s2"].isel(sample=0).load(), cube["s1"].isel(sample=0).load(), cube["key"].load(), cube["time"].load()
"""


def test_plain_xarray_opens_it_without_a_warning(out: Path) -> None:
    command = [sys.executable, "-c", _PLAIN, str(out / "cube.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "'sample': 48" in done.stdout
    assert xr.open_zarr(out / "cube.zarr", mask_and_scale=False)["s2"].dtype == np.uint16


@pytest.mark.filterwarnings(
    "ignore:Use `@` matmul:PendingDeprecationWarning"
)  # rioxarray multiplies affines the old way
def test_a_sample_becomes_a_geotiff(out: Path, plan: IngestPlan, tmp_path: Path) -> None:
    task, opened = plan.units[0].tasks[3], open_cube(Store.at(out))
    chip = georeferenced(opened, 3)
    assert chip.rio.crs.to_epsg() == 32633
    chip.rio.to_raster(tmp_path / "chip.tif")
    with rasterio.open(tmp_path / "chip.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == task.cell.transform
        assert_array_equal(file.read(), opened["s2"].values[3])


def test_chunks_are_samples_and_shards_are_units(out: Path) -> None:
    meta = json.loads((out / "cube.zarr" / "s2" / "zarr.json").read_text())
    assert meta["shape"] == [48, 12, 24, 24]
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [ROWS_PER_SHARD, 12, 24, 24]
    (sharding,) = meta["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [1, 12, 24, 24]
    assert meta["dimension_names"] == ["sample", "band", "y", "x"]


def test_creating_again_touches_no_chip(out: Path, plan: IngestPlan) -> None:
    before = {path: path.read_bytes() for path in (out / "cube.zarr").rglob("*") if path.is_file()}
    cube.create(Store.at(out), plan)
    assert {path: path.read_bytes() for path in (out / "cube.zarr").rglob("*") if path.is_file()} == before


def test_memory_holds_the_same_cube(out: Path, plan: IngestPlan) -> None:
    build(plan.request, "memory://cube-parity", workers=0)
    xr.testing.assert_identical(open_cube(Store.at("memory://cube-parity")).load(), open_cube(Store.at(out)).load())
