"""Real Sentinel pixels: the documented commands find the eight pairs, and the objectives learn from them."""

import calendar
import json
import statistics
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest

from pipeline import manifest
from pipeline.codec import decode
from pipeline.sample import StackSample
from pipeline.store import Store

pytestmark = [pytest.mark.ingest, pytest.mark.train, pytest.mark.slow]
STEPS = 40


@pytest.fixture(scope="module")
def pairs(real_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight real pairs as 120 px chips."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    pytest.importorskip("torch", reason="needs the train extra")
    data = tmp_path_factory.mktemp("real") / "pairs"
    where = ["--aoi", str(real_catalog / "aois" / "all.geojson"), "--catalog", str(real_catalog), "--out", str(data)]
    what = ["--s1", "rtc,grd", "--max-gap", "3d", "--chip-px", "120", "--val", "0", "--workers", "0"]
    harness.run("-m", "ingest.cli", "build-shards", *where, *what, "--grid", "aoi")
    assert json.loads((data / "manifest.json").read_text())["counts"] == {"accepted": 8}
    return data


@pytest.mark.parametrize(("script", "recipe"), [("croma.py", "tiny"), ("satmae.py", "tiny_group")])
def test_loss_falls_on_real_pixels(pairs: Path, tmp_path: Path, script: str, recipe: str) -> None:
    learn(script, recipe, pairs, tmp_path / "run")


@pytest.fixture(scope="module")
def stack(real_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten months of WorldCereal that hold anything, three bands, 96 px."""
    data = tmp_path_factory.mktemp("real") / "stack"
    assert stack_months(real_catalog, data, frames=10) == {"accepted": 1}
    return data


def stack_months(real_catalog: Path, data: Path, *, frames: int) -> dict[str, int]:
    """Make stacks of WorldCereal's twelve months; the outcomes."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    where = ["--aoi", str(real_catalog / "aois" / "worldcereal_belgium.geojson"), "--catalog", str(real_catalog)]
    what = ["--kind", "stack", "--frames", str(frames), "--min-gap", "20d", "--bands", "B02,B03,B04", "--chip-px", "96"]
    rest = ["--grid", "aoi", "--val", "0", "--workers", "0", "--out", str(data)]
    harness.run("-m", "ingest.cli", "build-shards", *where, *what, *rest)
    counts: dict[str, int] = json.loads((data / "manifest.json").read_text())["counts"]
    return counts


def test_real_months_are_cut_into_disjoint_stacks(real_catalog: Path, tmp_path: Path) -> None:
    """November has only the two empty months beside it, so that it is the one of the ten that is left over."""
    counts = stack_months(real_catalog, tmp_path / "three", frames=3)
    assert counts == {"accepted": 3, "too few dates: s2 nodata": 1}
    months = [[when.month for when in sample.meta.acquired] for sample in samples(tmp_path / "three")]
    assert months == [[2, 3, 4], [5, 6, 7], [8, 9, 10]]


def test_a_real_stack_is_the_catalog_s_pixels_and_month_midpoints(stack: Path, real_catalog: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the ingest extra")
    (sample,) = samples(stack)
    months = [(when.year, when.month) for when in sample.meta.acquired]
    assert months == [(2020, 11), *((2021, month) for month in range(2, 11))]
    for frame, (when, scene_id) in enumerate(zip(sample.meta.acquired, sample.meta.scene_ids["s2"], strict=True)):
        days = calendar.monthrange(when.year, when.month)[1]
        middle = datetime(when.year, when.month, 1, tzinfo=when.tzinfo) + timedelta(days=days / 2)
        assert abs(when - middle) <= timedelta(days=1)
        item = real_catalog / "sentinel-2-l2a" / scene_id
        for band, name in enumerate(("B02", "B03", "B04")):
            href = json.loads((item / f"{scene_id}.json").read_text())["assets"][name]["href"]
            with rasterio.open(item / href) as file:
                col, row = ~file.transform @ (sample.meta.transform[2], sample.meta.transform[5])
                window = rasterio.windows.Window(round(col), round(row), 96, 96)
                wanted = file.read(1, window=window)
            np.testing.assert_array_equal(sample.s2[frame, band], wanted)


def samples(data: Path) -> list[StackSample]:
    """The samples of a data set, in shard order."""
    store, found = Store.at(str(data)), []
    known = manifest.load(store)
    for row in manifest.load_index(store, known).to_pylist():
        members: dict[str, bytes] = {}
        for name in (*(spec.name for spec in known.members), "json"):
            start = row[f"{name}_offset"]
            suffix = "json" if name == "json" else f"{name}.{known.codec}"
            members[suffix] = store.read_range(row["shard"], start, start + row[f"{name}_size"])
        sample: Any = decode(row["key"], members, kind=known.kind, specs=known.members)
        found.append(sample)
    return found


def test_loss_falls_on_real_dates(stack: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    # One sample makes one lane, which one rank reads.
    learn("satmae.py", "tiny_temporal", stack, tmp_path / "run", launch=())


def test_features_of_real_pixels_tell_land_cover_apart(pairs: Path, real_catalog: Path, tmp_path: Path) -> None:
    """Better than the majority class, on neighbours of the same places: a sanity check and no benchmark."""
    parquet = pytest.importorskip("pyarrow.parquet")
    data, run, features = tmp_path / "data", tmp_path / "run", tmp_path / "features.parquet"
    where = ["--aoi", str(real_catalog / "aois" / "all.geojson"), "--catalog", str(real_catalog), "--out", str(data)]
    what = ["--s1", "rtc,grd", "--chip-px", "40", "--labels", "labels", "--val", "0", "--workers", "0"]
    harness.run("-m", "ingest.cli", "build-shards", *where, *what)
    learn("croma.py", "tiny", pairs, run, launch=())
    embed = ["--run", str(run), "--data", str(data), "--sensor", "joint", "--out", str(features)]
    harness.run("train/embed.py", *embed)
    table = parquet.read_table(features)
    known = [row for row, label in enumerate(table["label"].to_pylist()) if label is not None]
    halves = [tmp_path / "even.parquet", tmp_path / "odd.parquet"]
    for half, rows in zip(halves, (known[::2], known[1::2]), strict=True):
        parquet.write_table(table.take(rows), half)
    probe = ["--train", str(halves[0]), "--test", str(halves[1]), "--probes", "knn,linear", "--json"]
    told = json.loads(harness.run("train/probe.py", *probe).stdout)
    assert (told["train"], told["test"], told["classes"]) == (30, 30, 4)
    assert all(one["value"] > one["chance"] + 0.1 for one in told["results"])


def learn(script: str, recipe: str, data: Path, out: Path, *, launch: tuple[str, ...] = harness.LAUNCH) -> None:
    """Train, on two ranks by default; the loss must fall by a tenth."""
    train = ["--recipe", recipe, "--data", str(data), "--out", str(out), "--steps", str(STEPS), "--batch", "8"]
    harness.run(*launch, f"train/{script}", *train)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS
    assert statistics.mean(losses[-5:]) < 0.9 * statistics.mean(losses[:5])
    assert (out / f"step-{STEPS:08d}" / "COMMIT.json").exists()
    assert (out / f"step-{STEPS:08d}" / "model.safetensors").stat().st_size > 0
