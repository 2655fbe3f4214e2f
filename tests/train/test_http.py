"""A data set behind http://: a run gives the rows that it gives from a folder, whatever the server does on the way."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from flaky_server import serving
from tiny_run import RUN, Failing, Killed, train

from pipeline.errors import SourceError
from pipeline.store import TRIES, Store
from train import checkpoint
from train.meter import read_rows, steady
from train.stream import cache

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once, and a shard is many ranges."""
    monkeypatch.setattr("pipeline.store._pause_s", lambda attempt: 0.0)
    monkeypatch.setattr(cache, "PART_BYTES", 5000)


@pytest.fixture(scope="module")
def calm(pairs: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The run from the folder."""
    out = Store.at(str(tmp_path_factory.mktemp("calm") / "run"))
    train(pairs, out.url)
    return out


def same(out: Store, calm: Store) -> bool:
    name = f"{checkpoint.folder(RUN.steps)}/{checkpoint.MODEL_NAME}"
    rows = [[steady(row) for row in read_rows(store)] for store in (out, calm)]
    return rows[0] == rows[1] and out.read(name) == calm.read(name)


class Faults:
    """Every third answer is `what`, but no file's more often than a request is tried again."""

    def __init__(self, what: str) -> None:
        self._what, self.made = what, Counter[str]()

    def __call__(self, path: str, number: int) -> str | None:
        if number % 3 or self.made[path] >= TRIES - 1:
            return None
        self.made[path] += 1
        return self._what


@pytest.mark.parametrize("kept_gb", [1.0, 0.0], ids=["cached", "uncached"])
@pytest.mark.parametrize("what", ["503", "reset"])
def test_a_server_that_fails_now_and_then_gives_what_the_folder_gives(
    *, pairs: Store, calm: Store, tmp_path: Path, what: str, kept_gb: float
) -> None:
    out, faults = Store.at(str(tmp_path / "run")), Faults(what)
    with serving(Path(pairs.path("")), faults) as (url, _):
        train(url, out.url, cache=str(tmp_path), cache_gb=kept_gb)
    assert sum(count for path, count in faults.made.items() if path.endswith(".tar")) > 3
    assert same(out, calm)


def test_a_server_gives_what_the_folder_gives(pairs: Store, calm: Store, tmp_path: Path) -> None:
    out = Store.at(str(tmp_path / "run"))
    with serving(Path(pairs.path(""))) as (url, asked):
        train(url, out.url, cache=str(tmp_path), cache_gb=1.0)
    assert same(out, calm)
    assert len({path for path in asked if path.endswith(".tar")}) == 4
    assert max(row["pace"]["cache_hit_share"] for row in read_rows(out)) == 1.0


def test_a_server_that_goes_away_ends_the_run_and_a_resume_gives_the_rest(
    pairs: Store, calm: Store, tmp_path: Path
) -> None:
    out, folder = Store.at(str(tmp_path / "run")), tmp_path / "data"
    shutil.copytree(pairs.path(""), folder)
    gone = []
    with serving(folder, lambda path, _: "503" if gone and path.endswith(".tar") else None) as (url, _):
        with pytest.raises(Killed):
            train(url, out.url, make=lambda: Failing(3), cache_gb=0.0)
        gone.append(True)
        with pytest.raises(SourceError, match="503"):
            train(url, out.url, resume=True, cache_gb=0.0)
        assert checkpoint.steps(out)
        gone.clear()
        train(url, out.url, resume=True, cache_gb=0.0)
    assert same(out, calm)
