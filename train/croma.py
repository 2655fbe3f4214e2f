"""Pretrain CROMA on the shards of a data set.

accelerate launch --config_file infra/accelerate/cpu-two-ranks.yaml train/croma.py --recipe tiny --data OUT --out RUN
"""

import dataclasses
import os
import sys

from pipeline.errors import PretrainError
from train import flags
from train.job import Options, fit
from train.objective import CromaObjective
from train.recipes.croma import RECIPES, derived, override


def main() -> int:
    """Parse, build, run; the exit code."""
    asked = flags.parse(__doc__, RECIPES)
    try:
        run = override(RECIPES[asked.recipe](), steps=asked.steps, global_batch=asked.batch, seed=asked.seed)
        options = Options(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(Options)})
        build = lambda: CromaObjective(run.model, seed=run.seed)  # noqa: E731
        fit(run, options, objective=build, facts=lambda samples: derived(run, samples))
    except PretrainError as error:
        return flags.explain(error, rank=int(os.environ.get("RANK", "0")))
    except KeyboardInterrupt:
        return flags.interrupted(rank=int(os.environ.get("RANK", "0")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
