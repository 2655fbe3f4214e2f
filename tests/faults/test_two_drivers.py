"""Two drivers of one build at the same time do no harm: both end well, and the tree is that of one."""

import subprocess
import sys
from pathlib import Path

import harness
import pytest
from tiny_earth import Tiny
from typer.testing import CliRunner

from ingest.cli import app

pytestmark = [pytest.mark.ingest, pytest.mark.slow]


def test_two_builds_at_once_equal_one(tiny: Tiny, tmp_path: Path) -> None:
    build = ["build-shards", "--aoi", tiny.aoi, "--catalog", str(tiny.root), "--chip-px", "24", "--workers", "0"]
    one = CliRunner().invoke(app, [*build, "--out", str(tmp_path / "one")])
    assert one.exit_code == 0, one.output
    both = [sys.executable, "-m", "ingest.cli", *build, "--out", str(tmp_path / "both")]
    drivers = [subprocess.Popen(both, cwd=harness.ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [driver.communicate(timeout=100)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert harness.tree(tmp_path / "both") == harness.tree(tmp_path / "one")
