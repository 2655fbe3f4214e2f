# PYTHON_ARGCOMPLETE_OK
"""Pretrain SatMAE: band groups on the S2 side of pairs, or stacks of several dates.

python train/satmae.py --recipe tiny_group --data OUT --out RUN
accelerate launch train/satmae.py --recipe tiny_temporal --data STACKS --out RUN
"""

import sys
from argparse import Namespace
from functools import partial

from train import flags
from train.choices import SATMAE_RECIPES
from train.command_line import explained


def main() -> int:
    """Parse, build, run; the exit code."""
    return explained(partial(_run, flags.parse(__doc__, SATMAE_RECIPES)))


def _run(asked: Namespace) -> int:
    from train import door

    door.check(asked)
    from train.launch import launch
    from train.objective import SatmaeObjective
    from train.recipes.satmae import RECIPES

    return launch(asked, RECIPES, lambda run: SatmaeObjective(run.model, seed=run.seed))


if __name__ == "__main__":
    sys.exit(main())
