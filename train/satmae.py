# PYTHON_ARGCOMPLETE_OK
"""Pretrain SatMAE: band groups on the S2 side of pairs, or stacks of several dates.

python train/satmae.py --recipe tiny_group --data OUT --out RUN
accelerate launch train/satmae.py --recipe tiny_temporal --data STACKS --out RUN
"""

import sys

from train import flags
from train.choices import SATMAE_RECIPES


def main() -> int:
    """Parse, build, run; the exit code."""
    asked = flags.parse(__doc__, SATMAE_RECIPES)
    from train.launch import launch
    from train.objective import SatmaeObjective
    from train.recipes.satmae import RECIPES

    return launch(asked, RECIPES, lambda run: SatmaeObjective(run.model, seed=run.seed))


if __name__ == "__main__":
    sys.exit(main())
