"""Real Sentinel pixels: the documented commands find the eight pairs, and the objectives learn from them."""

import json
import statistics
from pathlib import Path

import harness
import pytest

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


def learn(script: str, recipe: str, data: Path, out: Path) -> None:
    """Train on two ranks; the loss must fall by a tenth."""
    train = ["--recipe", recipe, "--data", str(data), "--out", str(out), "--steps", str(STEPS), "--batch", "8"]
    harness.run(*harness.LAUNCH, f"train/{script}", *train)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS
    assert statistics.mean(losses[-5:]) < 0.9 * statistics.mean(losses[:5])
    assert (out / f"step-{STEPS:08d}" / "COMMIT.json").exists()
    assert (out / f"step-{STEPS:08d}" / "model.safetensors").stat().st_size > 0
