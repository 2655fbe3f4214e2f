"""A training command behind its flags: build, run, say in one message why it ended early."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipeline.errors import PretrainError
from train.command_line import INTERRUPTED
from train.door import options_of
from train.job import fit
from train.objective import Objective
from train.ranks import Lost
from train.recipes.run import narrowed, override
from train.stop import Stopped
from train.stream.where import where

R = TypeVar("R", bound=Any)


def launch(asked: Namespace, recipes: Mapping[str, Callable[[], R]], objective: Callable[[R], Objective]) -> int:
    """Build and run; the exit code.

    Args:
        asked: the flags of `flags.parser`.
        recipes: to choose from.
        objective: builds what a recipe minimises.
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        run = override(
            recipes[asked.recipe](),
            steps=asked.steps,
            global_batch=asked.batch,
            mode=asked.mode,
            seed=asked.seed,
            ema=asked.ema,
        )
        run = narrowed(run, where(asked.bbox, asked.dates, asked.max_cloud))
        fit(run, options_of(asked), objective=lambda: objective(run))
    except PretrainError as error:
        return explain(error, rank=rank)
    except KeyboardInterrupt:
        return interrupted(rank=rank)
    return 0


def explain(error: PretrainError, *, rank: int) -> int:
    """Print the one message of a failed run, and return the exit code.

    Rank 0 speaks for all, but not for those that lost it.
    """
    if rank == 0 or isinstance(error, Lost):
        sys.stderr.write(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}\n")
    return error.exit_code


def interrupted(*, rank: int) -> int:
    """Say how to go on after Ctrl-C, once for all ranks; the exit code."""
    if rank == 0:
        sys.stderr.write("interrupted: the same command with --resume goes on from the last checkpoint\n")
    return INTERRUPTED
