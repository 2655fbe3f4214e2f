# PYTHON_ARGCOMPLETE_OK
"""Pretrain CROMA on the pairs of a data set.

accelerate launch --config_file infra/accelerate/cpu-two-ranks.yaml train/croma.py --recipe tiny --data OUT --out RUN
python train/croma.py --recipe base --data OUT --out RUN --dry-run
"""

import sys
from argparse import Namespace
from functools import partial

from train import flags
from train.choices import CROMA_RECIPES
from train.command_line import explained


def main() -> int:
    """Parse, build, run; the exit code."""
    return explained(partial(_run, flags.parse(__doc__, CROMA_RECIPES)))


def _run(asked: Namespace) -> int:
    from train import door

    door.check(asked)
    from train.launch import launch
    from train.objective import CromaObjective
    from train.recipes.croma import RECIPES

    return launch(asked, RECIPES, lambda run: CromaObjective(run.model, seed=run.seed))


if __name__ == "__main__":
    sys.exit(main())
