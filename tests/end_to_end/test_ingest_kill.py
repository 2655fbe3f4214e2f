"""kill -9 anywhere in a build, then the same command again: the tree is that of an undisturbed build, to the byte."""

from pathlib import Path

import harness
import pytest

pytestmark = [pytest.mark.ingest, pytest.mark.slow]


def _build(area: str, earth: Path, out: Path, workers: int) -> list[str]:
    where = ["--aoi", area, "--catalog", str(earth), "--out", str(out)]
    return ["-m", "ingest.cli", "build-shards", *where, "--chip-px", "60", "--workers", str(workers)]


def test_killed_three_times_equals_undisturbed(area: str, earth: Path, tmp_path: Path) -> None:
    harness.run(*_build(area, earth, tmp_path / "calm", 0))
    wanted = harness.tree(tmp_path / "calm")
    out = tmp_path / "stormy"
    receipts, kills = out / "receipts", 0
    for count in (0, 1, 3):
        command = _build(area, earth, out, 2 if count == 1 else 0)
        kills += harness.run_and_kill(
            *command, when=lambda count=count: (out / "plan.parquet").exists() and _count(receipts) >= count
        )
        assert not (out / "manifest.json").exists()
    assert kills == 3
    harness.run(*_build(area, earth, out, 1))
    assert harness.tree(out) == wanted
    assert wanted["manifest.json"]


def _count(folder: Path) -> int:
    return len(list(folder.glob("u*.json"))) if folder.exists() else 0
