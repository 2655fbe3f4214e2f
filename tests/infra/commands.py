"""Commands of containers, given to the parsers that they would meet: nothing is run."""

from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[2]


def parse(words: list[str]) -> None:
    """Give a command to the parser that it would meet; an unknown flag or choice ends in an exception."""
    match words:
        case ["ingest", name, *rest]:
            from ingest.cli import app

            _click(typer.main.get_command(app).commands[name], rest)
        case ["dask", "scheduler" | "worker" as name, *rest]:
            from distributed.cli import dask_scheduler, dask_worker

            _click({"scheduler": dask_scheduler, "worker": dask_worker}[name].main, rest)
        case ["python", "infra/accelerate/launch.py", *rest]:
            from accelerate.commands.launch import launch_command_parser

            asked = launch_command_parser().parse_args(rest)
            assert (ROOT / asked.config_file).exists()
            parse(["python", asked.training_script, *asked.training_script_args])
        case ["python", "train/croma.py", *rest]:
            from train import flags
            from train.recipes.croma import RECIPES

            flags.parse("", RECIPES, rest)
        case ["python", "train/itr.py", *rest]:
            from train import itr
            from train.grouprec import command

            asked = itr.parser().parse_args(rest)
            command._check(asked)
            assert command._modes(asked)
        case _:
            pytest.fail(f"no parser is known for {words}")


def _click(command: Any, words: list[str]) -> None:
    with command.make_context(command.name, list(words)):
        pass
