"""Pretrain CROMA on the pairs of a data set.

accelerate launch --config_file infra/accelerate/cpu-two-ranks.yaml train/croma.py --recipe tiny --data OUT --out RUN
"""

import sys

from train import flags
from train.objective import CromaObjective
from train.recipes.croma import RECIPES


def main() -> int:
    """Parse, build, run; the exit code."""
    return flags.main(__doc__, RECIPES, lambda run: CromaObjective(run.model, seed=run.seed))


if __name__ == "__main__":
    sys.exit(main())
