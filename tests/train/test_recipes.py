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
from train.models.croma import Croma
from train.recipes.croma import RECIPES, CromaRun, base, derived, large, override, tiny

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_built_and_goes_round_as_json(name: str) -> None:
    run = RECIPES[name]()
    assert run.name == name
    with torch.device("meta"):
        assert sum(one.numel() for one in Croma(run.model).parameters()) == derived(run, 10**6).parameters
    assert record.loads(CromaRun, record.dumps(run), where="recipe") == run


def test_published_sizes() -> None:
    """Trainable parameters of the official pretraining class (reference/croma.md, 2.3)."""
    assert derived(base(), 10**6).parameters == 199_552_385
    assert derived(large(), 10**6).parameters == 678_793_089


def test_derived_numbers_of_base() -> None:
    numbers = derived(base(), 1_004_316)
    assert (numbers.tokens, numbers.kept_tokens, numbers.lanes) == (225, 56, 240)
    assert numbers.peak_lr == pytest.approx(1.125e-4)
    assert numbers.epochs == pytest.approx(300, abs=0.1)
    assert {1, 2, 8, 16, 240} <= set(numbers.world_sizes)


def test_the_command_line_overrides_three_things() -> None:
    run = override(tiny(), steps=7, global_batch=32, seed=3)
    assert (run.steps, run.stream.global_batch, run.seed) == (7, 32, 3)
    assert override(tiny(), steps=None, global_batch=None, seed=0) == tiny()
    for steps, batch in ((0, None), (None, 0)):
        with pytest.raises(UsageError):
            override(tiny(), steps=steps, global_batch=batch, seed=0)


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
    parser = flags.parser("", RECIPES)
    assert {option for action in parser._actions for option in action.option_strings} == {
        *("-h", "--help", "--recipe", "--data", "--out", "--steps", "--batch"),
        *("--seed", "--resume", "--checkpoint-every", "--threads"),
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
    assert (config["num_processes"] > 1) == (config["distributed_type"] == "MULTI_GPU")
    assert config["mixed_precision"] == "no"
