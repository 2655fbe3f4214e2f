"""A run of seconds in this process, and how it is made to die; its data are those of `tiny_pairs`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store
from train.batch import Batch, Losses
from train.job import fit
from train.models.croma import CromaConfig
from train.objective import CromaObjective
from train.optim import OptimConfig
from train.options import Options
from train.recipes.croma import CromaRun
from train.stream.config import StreamConfig

MODEL = CromaConfig(encoder_dim=16, depth=2, heads=2, patch=4, image_px=16, decoder_dim=16, decoder_heads=2)
RUN = CromaRun(
    name="test",
    model=MODEL,
    stream=StreamConfig(global_batch=5, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16),
    optim=OptimConfig(base_lr=0.2, grad_clip=1.0),
    steps=12,
    precision="no",
)
"""25 samples in batches of 5: an epoch ends every 5 steps."""


class Killed(BaseException):
    """What a test throws where a kill would strike."""


class Failing(CromaObjective):
    """An objective that dies, or whose loss becomes NaN from there on, at a given batch of its life."""

    def __init__(self, at: int, *, nans: int = 0) -> None:
        super().__init__(MODEL, seed=0)
        self._left, self._nans = at, nans

    def losses(self, wrapped: nn.Module, batch: Batch, **more: Any) -> Losses:
        self._left -= 1
        losses = super().losses(wrapped, batch, **more)
        if self._left == 0 and not self._nans:
            raise Killed
        bad = 0 >= self._left > -self._nans
        return dataclasses.replace(losses, total=losses.total * float("nan")) if bad else losses


def train(data: Store | str, out: str, run: CromaRun = RUN, *, make: Callable | None = None, **options: object) -> None:
    """Fit `run` on `data` into `out`, in this process."""
    build = make or (lambda: CromaObjective(run.model, seed=run.seed))
    url = data if isinstance(data, str) else data.url
    asked = Options(data=url, out=out, **{"checkpoint_every": 1, "threads": 2, **options})
    fit(run, asked, objective=build)
