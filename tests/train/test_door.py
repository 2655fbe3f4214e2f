"""What is refused before torch is imported: by a process that could not import it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store import Store
from train import door, flags
from train.choices import CROMA_RECIPES

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from train import croma; sys.exit(croma.main())"


@pytest.fixture
def data(pairs_at: Callable[..., Store], tmp_path: Path) -> Store:
    return pairs_at(str(tmp_path / "data"), chip_px=120, shards=(("train", 4),))


def test_a_missing_data_set_needs_no_torch(tmp_path: Path) -> None:
    command = (sys.executable, "-c", WITHOUT_TORCH, "--recipe", "tiny", "--data", tmp_path, "--out", tmp_path / "run")
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: {tmp_path} has no manifest.json")
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "step-00000003/COMMIT.json"])
def test_a_run_that_was_begun_asks_for_resume(data: Store, tmp_path: Path, name: str) -> None:
    out = Store.at(tmp_path / "run")
    _check(data, out)
    out.publish(name, b"{}")
    with pytest.raises(UsageError, match="--resume"):
        _check(data, out)
    _check(data, out, "--resume")


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_run_does_not_go_into_a_data_set(data: Store, resume: list[str]) -> None:
    with pytest.raises(UsageError, match="holds a data set"):
        _check(data, data, *resume)


def _check(data: Store, out: Store, *more: str) -> None:
    words = ["--recipe", "tiny", "--data", data.url, "--out", out.url, *more]
    door.check(flags.parse("", CROMA_RECIPES, words))
