"""Two ranks under `accelerate launch`, killed and resumed, against an undisturbed run and against one rank."""

import shutil
from pathlib import Path
from typing import Any

import harness
import pytest
from accelerate.state import AcceleratorState
from tiny_pairs import write_pairs, write_stacks

from pipeline.store import Store
from train import checkpoint
from train.job import fit
from train.meter import PROBES_NAME, read_rows, steady
from train.objective import CromaObjective, SatmaeObjective
from train.options import Options
from train.recipes import croma, satmae
from train.recipes.run import override

pytestmark = [pytest.mark.train, pytest.mark.slow]
STEPS, EVERY = 8, 2
LAUNCH = harness.LAUNCH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unit tests' data set in the size of the tiny recipe."""
    return Path(write_pairs(str(tmp_path_factory.mktemp("pairs") / "data"), chip_px=120).url)


def _command(data: Path, out: Path, *more: str) -> list[str]:
    flags = ["--data", str(data), "--out", str(out), "--steps", str(STEPS), "--checkpoint-every", str(EVERY)]
    return ["train/croma.py", "--recipe", "tiny", *flags, *more]


def _train_alone(data: Path, out: Path, *, ema: float | None = None) -> None:
    """The same run with one rank, in this process: a start less to wait for."""
    _fit(override(croma.RECIPES["tiny"](), steps=STEPS, global_batch=None, mode=None, seed=0, ema=ema), data, out)


def _fit(run: Any, data: Path, out: Path) -> None:
    build = {"croma": CromaObjective, "satmae": SatmaeObjective}[run.objective]
    options = Options(data=str(data), out=str(out), resume=True, checkpoint_every=EVERY)
    try:
        fit(run, options, objective=lambda: build(run.model, seed=0))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def _committed(out: Path) -> int:
    return len(list(out.glob(f"step-*/{checkpoint.COMMIT_NAME}")))


def test_killed_ranks_resume_to_the_bit_and_two_equal_one(data: Path, tmp_path: Path) -> None:
    calm, stormy, elastic, one = (tmp_path / name for name in ("calm", "stormy", "elastic", "one"))
    harness.run(*LAUNCH, *_command(data, calm))
    assert harness.run_and_kill(*LAUNCH, *_command(data, stormy, "--resume"), when=lambda: _committed(stormy) > 0)
    harness.wait_for_end(stormy)
    shutil.copytree(stormy, elastic)
    assert 0 < checkpoint.steps(Store.at(stormy))[-1] < STEPS
    harness.run(*LAUNCH, *_command(data, stormy, "--resume"))
    wanted, resumed = (read_rows(Store.at(out)) for out in (calm, stormy))
    assert [row["step"] for row in wanted] == list(range(1, STEPS + 1))
    assert [steady(row) for row in resumed] == [steady(row) for row in wanted]
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = Path(checkpoint.folder(STEPS)) / name
        assert (stormy / last).read_bytes() == (calm / last).read_bytes()
    for out in (one, elastic):
        _train_alone(data, out)
        alone = read_rows(Store.at(out))
        assert [row["batch_hash"] for row in alone] == [row["batch_hash"] for row in wanted]
        assert [row["loss"] for row in alone] == pytest.approx([row["loss"] for row in wanted], rel=1e-3)
    alone = read_rows(Store.at(one))
    assert alone[0]["loss"] == pytest.approx(wanted[0]["loss"], rel=1e-6)
    assert alone[0]["grad_norm"] == pytest.approx(wanted[0]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("recipe", ["tiny_group", "tiny_temporal"])
def test_two_ranks_of_satmae_equal_one(recipe: str, data: Path, tmp_path: Path) -> None:
    run = override(satmae.RECIPES[recipe](), steps=2, global_batch=None, mode=None, seed=0)
    source = data if run.stream.kind == "pair" else Path(write_stacks(str(tmp_path / "data"), chip_px=120).url)
    flags = ["--recipe", recipe, "--data", str(source), "--steps", "2", "--out", str(tmp_path / "two")]
    harness.run(*LAUNCH, "train/satmae.py", *flags)
    _fit(run, source, tmp_path / "one")
    two, one = (read_rows(Store.at(tmp_path / name)) for name in ("two", "one"))
    assert [row["batch_hash"] for row in two] == [row["batch_hash"] for row in one]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-5)


def test_shared_parameters_learn_the_same_and_resume_on_one_rank(data: Path, tmp_path: Path) -> None:
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    more = ("--ema", "0.5", "--probe-every", "4")
    harness.run(*LAUNCH, *_command(data, whole, *more))
    harness.run(*LAUNCH, *_command(data, shards, "--shard", *more))
    wanted, found = (read_rows(Store.at(str(out))) for out in (whole, shards))
    assert [row["batch_hash"] for row in found] == [row["batch_hash"] for row in wanted]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in wanted], rel=1e-4)
    assert [row["grad_norm"] for row in found] == pytest.approx([row["grad_norm"] for row in wanted], rel=1e-3)
    wanted_probes, found_probes = (read_rows(Store.at(str(out)), PROBES_NAME) for out in (whole, shards))
    assert [row["step"] for row in found_probes] == [4, 8]
    for was, now in zip(wanted_probes, found_probes, strict=True):
        assert now["values"].keys() == was["values"].keys()
        for name in ("rank_me/s1", "rank_me/s2", "rank_me/joint"):
            assert now["values"][name] == pytest.approx(was["values"][name], rel=1e-2)
    last = shards / checkpoint.folder(STEPS)
    assert (last / "model-00001-of-00002.safetensors").exists()
    shutil.rmtree(last)
    _train_alone(data, shards, ema=0.5)
    alone = read_rows(Store.at(str(shards)))
    assert [row["batch_hash"] for row in alone] == [row["batch_hash"] for row in wanted]
    assert [row["loss"] for row in alone] == pytest.approx([row["loss"] for row in wanted], rel=1e-3)


def test_micro_batches_of_two_ranks_compare_with_all_samples(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out, more in ((whole, []), (parts, ["--micro-batch", "3"])):
        harness.run(*LAUNCH, *_command(data, out, "--steps", "2", *more))
    for was, now in zip(*(read_rows(Store.at(str(out))) for out in (whole, parts)), strict=True):
        assert now["batch_hash"] == was["batch_hash"]
        assert now["loss"] == pytest.approx(was["loss"], rel=1e-5)
        assert now["grad_norm"] == pytest.approx(was["grad_norm"], rel=1e-4)
