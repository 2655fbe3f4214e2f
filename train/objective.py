"""What the loop minimises. A new model adds a class here, and the loop stays as it is.

Axes: B batch, L patches.
"""

from typing import Protocol

from torch import nn

from train.batch import Losses, PairBatch
from train.models.croma import Croma, CromaConfig
from train.stream.noise import uniform


class Objective(Protocol):
    """A module, and what to do with it on a batch."""

    @property
    def module(self) -> nn.Module:
        """The bare module: its parameters are trained, its state dict is saved."""

    def losses(self, wrapped: nn.Module, batch: PairBatch) -> Losses:
        """The losses of one rank's batch: means over its rows, so that ranks average to the global batch.

        Args:
            wrapped: `module` as the loop wrapped it for its ranks; call this one, once.
            batch: of this rank.
        """


class CromaObjective:
    """CROMA pretraining, its masks drawn for each sample and epoch."""

    def __init__(self, config: CromaConfig, *, seed: int) -> None:
        """Build the model; its first weights come from torch's global generator."""
        self.module = Croma(config)
        self._seed = seed

    def losses(self, wrapped: nn.Module, batch: PairBatch) -> Losses:
        """Contrastive and reconstruction losses."""
        noise_s1_BL, noise_s2_BL = (
            uniform(
                self._seed,
                batch.epochs_B,
                batch.sample_ids_B,
                purpose=f"mask {sensor}",
                count=self.module.config.patches,
            )
            for sensor in ("s1", "s2")
        )
        losses: Losses = wrapped(batch.s1_BCHW, batch.s2_BCHW, noise_s1_BL=noise_s1_BL, noise_s2_BL=noise_s2_BL)
        return losses
