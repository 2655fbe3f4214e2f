"""Pretrain SatMAE: band groups on the S2 side of pairs, or stacks of several dates.

accelerate launch --config_file infra/accelerate/cpu-two-ranks.yaml train/satmae.py
    --recipe tiny_group --data OUT --out RUN
"""

import sys

from train import flags
from train.objective import SatmaeObjective
from train.recipes.satmae import RECIPES


def main() -> int:
    """Parse, build, run; the exit code."""
    return flags.main(__doc__, RECIPES, lambda run: SatmaeObjective(run.model, seed=run.seed))


if __name__ == "__main__":
    sys.exit(main())
