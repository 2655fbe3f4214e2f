"""Recipes are values that fit together; what the commands accept is frozen."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipeline import record
from pipeline.errors import UsageError
from train import flags
from train.recipes import croma, satmae
from train.recipes.croma import CromaRun, base, large, tiny
from train.recipes.run import derive, override
from train.recipes.satmae import SatmaeRun

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]
RECIPES = {**croma.RECIPES, **satmae.RECIPES}
TYPES = {"croma": CromaRun, "satmae": SatmaeRun}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_built_and_goes_round_as_json(name: str) -> None:
    run = RECIPES[name]()
    assert run.name == name
    with torch.device("meta"):
        assert sum(one.numel() for one in run.module().parameters()) == derive(run, 10**6).parameters
    assert record.loads(TYPES[run.objective], record.dumps(run), where="recipe") == run


def test_published_sizes() -> None:
    """Trainable parameters of the official pretraining class (reference/croma.md, 2.3)."""
    assert derive(base(), 10**6).parameters == 199_552_385
    assert derive(large(), 10**6).parameters == 678_793_089


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("group_base", 111_493_248),
        ("group_large", 329_044_608),
        ("temporal_large", 329_239_296),
        ("plain_large", 329_239_296),
        ("group_large_pp", 329_161_708),
    ],
)
def test_published_sizes_of_satmae(name: str, trained: int) -> None:
    """Trainable parameters of the official models (reference/satmae.md, 2.1)."""
    assert derive(RECIPES[name](), 10**6).parameters == trained


def test_published_tokens_and_rates_of_satmae() -> None:
    """reference/satmae.md, 2.2, 2.3 and 5.1."""
    group, temporal = (derive(RECIPES[name](), 10**6) for name in ("group_large", "temporal_large"))
    assert (group.tokens, group.kept_tokens, temporal.tokens, temporal.kept_tokens) == (432, 108, 588, 147)
    assert (group.peak_lr, temporal.peak_lr) == (pytest.approx(1.6e-3), pytest.approx(6e-4))
    assert derive(RECIPES["plain_large"](), 10**6).peak_lr == pytest.approx(2.4e-3)


def test_derived_numbers_of_base() -> None:
    numbers = derive(base(), 1_004_316)
    assert (numbers.tokens, numbers.kept_tokens, numbers.lanes) == (225, 56, 240)
    assert numbers.peak_lr == pytest.approx(1.125e-4)
    assert numbers.epochs == pytest.approx(300, abs=0.1)
    assert {1, 2, 8, 16, 240} <= set(numbers.world_sizes)


def test_the_command_line_overrides_four_things() -> None:
    run = override(tiny(), steps=7, global_batch=32, mode="official", seed=3)
    assert (run.steps, run.stream.global_batch, run.model.mode, run.seed) == (7, 32, "official", 3)
    assert override(tiny(), steps=None, global_batch=None, mode=None, seed=0) == tiny()
    for steps, batch in ((0, None), (None, 0)):
        with pytest.raises(UsageError):
            override(tiny(), steps=steps, global_batch=batch, mode=None, seed=0)


def test_halves_that_disagree_are_refused() -> None:
    run = tiny()
    for stream in (
        dataclasses.replace(run.stream, image_px=64),
        dataclasses.replace(run.stream, s2_bands=("B02", "B03")),
    ):
        with pytest.raises(UsageError, match="agree"):
            dataclasses.replace(run, stream=stream)


def test_flags_are_frozen() -> None:
    """A new flag needs a reason why it is neither a recipe's field nor a default: say it in the pull request."""
    parser = flags.parser("", tuple(RECIPES))
    assert {option for action in parser._actions for option in action.option_strings} == {
        *("-h", "--help", "--recipe", "--data", "--out", "--steps", "--batch"),
        *("--mode", "--seed", "--init", "--resume", "--checkpoint-every", "--threads", "--compile", "--recompute"),
        *("--cache", "--cache-gb", "--micro-batch", "--keep", "--keep-every"),
        *("--bbox", "--dates", "--max-cloud", "--shard", "--on-corrupt", "--probe-every", "--probe-samples", "--ema"),
        *("--log", "--reader-processes", "--dry-run", "--rank-timeout"),
    }
    assert all(action.help for action in parser._actions)


def test_no_module_of_train_shadows_the_standard_library() -> None:
    """`accelerate launch train/croma.py` puts train/ first on the path."""
    names = {path.stem for path in (ROOT / "train").iterdir()} - {"__init__", "__pycache__"}
    assert not names & set(sys.stdlib_module_names)
    assert not names & {"train", "pipeline", "ingest", "torch", "numpy", "accelerate"}


@pytest.mark.parametrize("path", sorted((ROOT / "infra/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_files_start_as_many_processes_as_they_say(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["use_cpu"] == path.stem.startswith("cpu")
    assert (config["num_processes"] > 1) == (config["distributed_type"] in {"MULTI_GPU", "FSDP"})
    assert config["mixed_precision"] == "no"
