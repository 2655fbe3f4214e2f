"""kill -9 anywhere in a build, then the same command again: the tree is that of an undisturbed build, to the byte."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import harness
import pytest

pytestmark = [pytest.mark.ingest, pytest.mark.slow]


def _build(area: str, earth: Path, out: Path, *, workers: int) -> list[str]:
    where = ["--aoi", area, "--catalog", str(earth), "--out", str(out)]
    return ["-m", "ingest.cli", "build-shards", *where, "--chip-px", "60", "--workers", str(workers)]


def _receipts(out: Path) -> int:
    return len(list(out.glob("receipts/u*.json")))


def _after(seconds: float) -> Callable[[], bool]:
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() > end_s


@pytest.mark.timeout(600)  # ten starts of Python: a loaded machine takes its time
def test_killed_three_times_equals_undisturbed(area: str, earth: Path, tmp_path: Path) -> None:
    harness.run(*_build(area, earth, tmp_path / "calm", workers=0))
    wanted = harness.tree(tmp_path / "calm")
    out = tmp_path / "stormy"
    for count, workers in ((0, 0), (1, 2), (3, 0)):
        command = _build(area, earth, out, workers=workers)
        assert harness.run_and_kill(
            *command, when=lambda count=count: (out / "plan.parquet").exists() and _receipts(out) >= count
        )
        assert not (out / "manifest.json").exists()
    harness.run(*_build(area, earth, out, workers=1))
    assert harness.tree(out) == wanted
    assert wanted["manifest.json"]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_twenty_times_at_random_equals_undisturbed(area: str, earth: Path, tmp_path: Path) -> None:
    harness.run(*_build(area, earth, tmp_path / "calm", workers=0))
    out, kills, draw = tmp_path / "stormy", 0, random.Random(0)
    while kills < 20:
        command = _build(area, earth, out, workers=draw.randrange(3))
        if harness.run_and_kill(*command, when=_after(draw.uniform(1, 8))):
            kills += 1
        else:  # it was quicker: what it finished must be right, and is then built anew
            assert harness.tree(out) == harness.tree(tmp_path / "calm")
            out = tmp_path / f"stormy-{kills}"
    harness.run(*_build(area, earth, out, workers=0))
    assert harness.tree(out) == harness.tree(tmp_path / "calm")
