"""The command: what it prints and writes, stopped and resumed, on two ranks, wrong requests; and serving."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import StreamError, UsageError
from pipeline.store import Store
from train import checkpoint, itr, meter
from train.grouprec import command, job, source
from train.grouprec.fit import Trainer
from train.grouprec.job import Options, Surroundings
from train.grouprec.peers import Peers
from train.grouprec.serve import Server
from train.grouprec.source import Source

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ROOT = Path(__file__).parents[2]
DATA = "planted:users=120,items=60,groups=3,per_user=10"
FLAGS = ["--epochs", "8", "--batch", "256", "--lr", "0.01", "--baselines", "popularity,ease"]


OPTIONS = Options(protocols=("full",))
RESUMED = Options(protocols=("full",), resume=True)


def _itr(*flags: str, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launch, "train/itr.py", *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def planted() -> Source:
    return source.read(DATA, None, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two methods and two seeds."""
    out = tmp_path_factory.mktemp("itr") / "out"
    found = _itr("--data", DATA, "--out", str(out), "--mode", "recommended,bpr", "--seeds", "2", "--json", *FLAGS)
    assert found.returncode == 0, found.stderr
    (out / "stdout.json").write_text(found.stdout)
    return out


def test_the_table_has_a_line_for_each_method(run: Path) -> None:
    lines = json.loads((run / "stdout.json").read_text())["lines"]
    assert [line["method"] for line in lines] == ["popularity", "ease", "recommended", "bpr"]
    assert {line["protocol"] for line in lines} == {"full"}
    assert [line["figures"]["expected"][0]["seeds"] for line in lines] == [1, 1, 2, 2]
    popularity, recommended = lines[0]["figures"]["expected"][3], lines[2]["figures"]["expected"][3]
    assert recommended["mean"] > popularity["mean"]


def test_what_is_written(run: Path, planted: Source) -> None:
    store = Store.at(str(run / "recommended-seed-1"))
    found = job.read_outcome(store)
    assert found is not None
    assert found.grouping is not None
    assert found.grouping.adjusted_rand is not None
    assert [report.epoch for report in found.epochs] == [*range(1, 9)]
    assert [row["step"] for row in meter.read_rows(store)] == [*range(1, 9)]
    assert checkpoint.steps(store)[-1] == 8
    groups = json.loads(store.read(command.GROUPS_NAME))
    assert sum(group["size"] for group in groups) == planted.data.n_users
    assert all(len(group["members"]) == group["size"] and len(group["items"]) == 10 for group in groups)


@pytest.mark.parametrize("who", ["user:5", "members:5,17,30", "group:0"])
def test_recommendations_are_items_that_not_all_have(run: Path, planted: Source, who: str) -> None:
    found = _itr("--data", DATA, "--out", str(run), "--recommend", who, "--top", "7", "--json", *FLAGS)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert len(answer["items"]) == 7
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    if who == "user:5":
        assert not {int(item) for item in answer["items"]} & set(planted.data.user_items.row(5).tolist())


def _trainer(planted: Source, epochs: int = 8, mode: str = "recommended") -> Trainer:
    asked = itr.parser().parse_args(["--data", DATA, "--out", "x", *FLAGS, "--epochs", str(epochs)])
    return Trainer(planted.data, command.configure(asked, mode, "planted"), seed=0)  # type: ignore[arg-type]


def test_strangers_and_users_without_items_are_ignored_with_a_note(planted: Source) -> None:
    trainer = _trainer(planted)
    server = Server(trainer)
    alone, beside = server.recommend("members:3", 5), server.recommend("members:3,nobody", 5)
    assert (alone.items, alone.notes) == (beside.items, ())
    assert beside.notes == ("nobody: unknown and ignored.",)
    server._warm_U = np.arange(planted.data.n_users) != 3
    cold = server.recommend("members:3,4", 5)
    assert cold.notes == ("3: without items and ignored.",)
    assert cold.items == server.recommend("user:4", 5).items


def test_nobody_gets_what_is_popular(planted: Source) -> None:
    answer = Server(_trainer(planted)).recommend("user:nobody", 4)
    counts = planted.data.user_items.transposed().counts
    assert counts[[int(item) for item in answer.items]].tolist() == sorted(counts.tolist(), reverse=True)[:4]
    assert "most popular" in answer.notes[1]


def _fit(planted: Source, store: Store, stop_at: int | None, options: Options, *, mode: str) -> Any:
    epochs = iter(range(100))
    around = Surroundings(peers=Peers(), say=lambda _: None, asked_to_stop=lambda: next(epochs) + 1 == stop_at)
    return job.fit(planted, _trainer(planted, mode=mode).config, store, options, seed=0, around=around)


@pytest.mark.parametrize("mode", ["recommended", "reference", "paper"])
def test_a_stopped_and_resumed_run_equals_an_undisturbed_one(planted: Source, tmp_path: Path, mode: str) -> None:
    whole, parts = Store.at(str(tmp_path / "whole")), Store.at(str(tmp_path / "parts"))
    wanted = _fit(planted, whole, None, OPTIONS, mode=mode)
    assert _fit(planted, parts, 6, OPTIONS, mode=mode) is None
    assert _fit(planted, parts, 1, RESUMED, mode=mode) is None
    found = _fit(planted, parts, None, RESUMED, mode=mode)
    assert (found.results, found.grouping) == (wanted.results, wanted.grouping)
    one, other = (checkpoint.load(store, 8) for store in (whole, parts))
    for name in one.model:
        assert torch.equal(one.model[name], other.model[name]), name
    rows = [[meter.steady(row) for row in meter.read_rows(store)] for store in (whole, parts)]
    assert rows[0] == rows[1]


def test_a_finished_run_is_not_repeated(planted: Source, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    first = _fit(planted, store, None, OPTIONS, mode="bpr")
    assert _fit(planted, store, None, RESUMED, mode="bpr") == first
    again = _fit(planted, store, None, Options(resume=True, protocols=("full", "clean")), mode="bpr")
    assert (again.protocols, again.results) == (("full", "clean"), first.results)
    with pytest.raises(UsageError, match="holds a run already"):
        _fit(planted, store, None, OPTIONS, mode="bpr")


def test_other_settings_do_not_resume(planted: Source, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    _fit(planted, store, 3, OPTIONS, mode="bpr")
    around = Surroundings(peers=Peers(), say=lambda _: None, asked_to_stop=lambda: False)
    config = _trainer(planted, epochs=9, mode="bpr").config
    with pytest.raises(StreamError, match="epochs: 8 then, 9 now"):
        job.fit(planted, config, store, RESUMED, seed=0, around=around)
    with pytest.raises(UsageError, match="holds no checkpoint"):
        job.load(planted, config, Store.at(str(tmp_path / "empty")), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["recommended", "bpr"])
def test_two_ranks_compute_what_one_does(tmp_path: Path, mode: str) -> None:
    """The batch is shared, so the figures are those of one rank up to rounding."""
    config = ROOT / "infra" / "accelerate" / "cpu-two-ranks.yaml"
    flags = ["--data", DATA, "--mode", mode, "--json", *FLAGS]
    launch = ("-m", "accelerate.commands.launch", "--config_file", str(config))
    one, two = _itr(*flags, "--out", str(tmp_path / "1")), _itr(*flags, "--out", str(tmp_path / "2"), launch=launch)
    assert two.returncode == 0, two.stderr
    figures = [[line["figures"]["expected"] for line in json.loads(run.stdout)["lines"]] for run in (one, two)]
    for line, other in zip(*figures, strict=True):
        assert [one["mean"] for one in line] == pytest.approx([one["mean"] for one in other], abs=0.02)
    losses = [[row["loss"] for row in meter.read_rows(Store.at(str(tmp_path / f"{n}/{mode}-seed-0")))] for n in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data", "nowhere"],
            "userRatingTrain.txt is not there. Give a folder in the format of Mafengwo and CAMRa2011, a .csv",
        ),
        (["--data", "planted:users=x"], "none of"),
        (["--data", DATA, "--mode", "best"], "'best' is none of paper"),
        (["--data", DATA, "--mode", ""], "--mode '': name one or more of paper"),
        (["--data", DATA, "--protocols", ","], "--protocols ',': name one or more of listed"),
        (["--data", DATA, "--lr", "nan"], "use a positive rate"),
        (["--data", DATA, "--members", "x.csv"], "--members x.csv goes with a table"),
        (["--data", "planted:noise=nan"], "noise from 0 to 1"),
        (["--data", DATA, "--out", __file__], "Not a directory"),
        (["--data", DATA, "--report", __file__], "is a file. Give a folder"),
        (["--data", DATA, "--epochs", "0"], "--epochs 0"),
        (["--data", DATA, "--groups", "3"], "--groups 3"),
        (["--data", DATA, "--seeds", "0"], "--seeds 0"),
        (["--data", DATA, "--recommend", "user:1"], "holds no checkpoint"),
    ],
)
def test_wrong_requests_are_errors(tmp_path: Path, flags: list[str], message: str) -> None:
    asked = itr.parser().parse_args(["--out", str(tmp_path), *flags])
    around = Surroundings(peers=Peers(), say=lambda _: None, asked_to_stop=lambda: False)
    with pytest.raises(UsageError) as error:
        command.run(asked, around)
    assert message in str(error.value)


def test_where_the_page_lies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.grouprec.planted_check.check", list)
    flags = ["--data", DATA, "--out", str(tmp_path / "out"), "--mode", "bpr", "--epochs", "1"]
    said: list[str] = []
    around = Surroundings(peers=Peers(), say=said.append, asked_to_stop=lambda: False)
    assert command.run(itr.parser().parse_args([*flags, "--report", str(tmp_path / "page")]), around)
    assert said[-1].startswith(f"{tmp_path}/page/report.html")
    assert (tmp_path / "page" / "report.html").exists()


def test_a_malformed_line_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "userRatingTrain.txt").write_text("0 1\n0 one\n")
    found = _itr("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert found.returncode == 2
    assert "userRatingTrain.txt, line 2: '0 one'" in found.stderr
    assert "Traceback" not in found.stderr


def test_flags_are_frozen() -> None:
    """A new flag needs a reason why it is neither a mode's field nor a default: say it in the pull request."""
    parser = itr.parser()
    assert {option for action in parser._actions for option in action.option_strings} == {
        *("-h", "--help", "--data", "--members", "--out", "--mode", "--baselines", "--seed", "--seeds", "--epochs"),
        *("--lr", "--batch", "--negatives", "--backbone", "--scorer", "--identifier", "--groups", "--protocols"),
        *("--from", "--resume", "--checkpoint-every", "--keep", "--report", "--recommend", "--top", "--json"),
    }
    assert all(action.help for action in parser._actions)
