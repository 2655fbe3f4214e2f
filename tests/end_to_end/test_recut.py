"""The training reads what was cut out of a finished data set as it reads any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store

pytestmark = [pytest.mark.ingest, pytest.mark.train]


def test_train_reads_pieces(tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    from typer.testing import CliRunner

    from ingest.cli import app
    from train.stream.samples import open_samples

    limits = ["--max-cloud", "100", "--max-nodata", "100", "--val", "0", "--workers", "0"]
    build = ["build-shards", "--aoi", tiny.aoi, "--catalog", str(tiny.root), "--out", str(tmp_path / "whole")]
    for command in (
        [*build, "--chip-px", "24", *limits],
        ["shards", "--from-cube", str(tmp_path / "whole"), "--out", str(tmp_path / "cut"), "--chip-px", "12"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    bands = {"s2": S2_NAMES, "s1": S1_NAMES}
    whole, cut = (
        open_samples(Store.at(str(tmp_path / name)), "train", kind="pair", bands=bands) for name in ("whole", "cut")
    )
    assert cut.samples == 4 * whole.samples == 4 * 18
    sums = [sum(one.read(i).images["s2"].sum(dtype=np.float64) for i in range(one.samples)) for one in (whole, cut)]
    assert sums[0] == sums[1] > 0
