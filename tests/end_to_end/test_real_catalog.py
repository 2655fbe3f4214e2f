"""Real Sentinel pixels: the documented command finds the eight pairs, and CROMA learns from them."""

import json
import statistics
import sys
from pathlib import Path

import harness
import pytest

pytestmark = [pytest.mark.ingest, pytest.mark.train, pytest.mark.slow]
CONFIG = harness.ROOT / "infra" / "accelerate" / "cpu-two-ranks.yaml"
STEPS = 40


def test_loss_falls_on_real_pixels(real_catalog: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    pytest.importorskip("torch", reason="needs the train extra")
    data, out = tmp_path / "data", tmp_path / "run"
    where = ["--aoi", str(real_catalog / "aois" / "all.geojson"), "--catalog", str(real_catalog), "--out", str(data)]
    what = ["--s1", "rtc,grd", "--max-gap", "3d", "--chip-px", "120", "--val", "0", "--workers", "0"]
    harness.run("-m", "ingest.cli", "build-shards", *where, *what, "--grid", "aoi")
    assert json.loads((data / "manifest.json").read_text())["counts"] == {"accepted": 8}
    train = ["--recipe", "tiny", "--data", str(data), "--out", str(out), "--steps", str(STEPS), "--batch", "8"]
    launch = str(Path(sys.executable).parent / "accelerate")
    harness.run(launch, "launch", "--config_file", str(CONFIG), str(harness.ROOT / "train" / "croma.py"), *train)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS
    assert statistics.mean(losses[-5:]) < 0.9 * statistics.mean(losses[:5])
    assert (out / f"step-{STEPS:08d}" / "COMMIT.json").exists()
    assert (out / f"step-{STEPS:08d}" / "model.safetensors").stat().st_size > 0
