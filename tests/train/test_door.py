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


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--seed", "-1"), ("--seed", "9" * 30), ("--batch", "0"), ("--batch", "9" * 12), ("--seed", "nan")],
)
def test_numbers_that_no_generator_and_no_memory_takes_are_refused(
    capsys: pytest.CaptureFixture[str], flag: str, text: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        flags.parse("", CROMA_RECIPES, ["--recipe", "tiny", "--data", "x", "--out", "y", flag, text])
    assert ended.value.code == 2
    assert f"argument {flag}: '{text}' is no whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [
        ("--dates", "x", "--dates x: write START/END"),
        ("--dates", "2024-06-01", "--dates 2024-06-01: write START/END"),
        ("--bbox", "1,2,3", "--bbox 1,2,3: write W,S,E,N"),
        ("--bbox", "nan,0,1,1", "a box from nan to 1.0 degrees east"),
        ("--rank-timeout", "1e30", "--rank-timeout"),
    ],
)
def test_the_flag_that_is_wrong_is_the_one_that_is_named(
    *, data: Store, tmp_path: Path, flag: str, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        _check(data, Store.at(tmp_path / "run"), flag, text)


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
