"""What the loop minimises. A new model adds a class here, and the loop stays as it is.

Axes: B batch, N numbers.
"""

from typing import Protocol

from torch import Tensor, nn

from train.batch import Batch, Losses
from train.models.croma import Croma, CromaConfig
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.stream.noise import uniform


class Objective(Protocol):
    """A module, and what to do with it on a batch."""

    @property
    def module(self) -> nn.Module:
        """The bare module: its parameters are trained, its state dict is saved."""

    def losses(self, wrapped: nn.Module, batch: Batch) -> Losses:
        """The losses of one rank's batch: means over its rows, so that ranks average to the global batch.

        Args:
            wrapped: `module` as the loop wrapped it for its ranks; call this one, once.
            batch: of this rank.
        """


class CromaObjective:
    """CROMA pretraining on pairs, its masks drawn for each sample and epoch."""

    def __init__(self, config: CromaConfig, *, seed: int) -> None:
        """Build the model; its first weights come from torch's global generator."""
        self.module = Croma(config)
        self._seed = seed

    def losses(self, wrapped: nn.Module, batch: Batch) -> Losses:
        """Contrastive and reconstruction losses."""
        count = self.module.config.patches
        noise_s1_BL, noise_s2_BL = (_noise(batch, self._seed, f"mask {name}", count) for name in ("s1", "s2"))
        losses: Losses = wrapped(
            batch.images["s1"], batch.images["s2"], noise_s1_BL=noise_s1_BL, noise_s2_BL=noise_s2_BL
        )
        return losses


class SatmaeObjective:
    """SatMAE pretraining on the S2 side of pairs, or on stacks."""

    def __init__(self, config: SatmaeConfig, *, seed: int) -> None:
        """Build the model; its first weights come from torch's global generator."""
        self.module = Satmae(config)
        self._seed = seed

    def losses(self, wrapped: nn.Module, batch: Batch) -> Losses:
        """Reconstruction loss of the hidden patches."""
        noise_BN = _noise(batch, self._seed, "mask", self.module.config.noise_count)
        dates = batch.dates_BT3 if self.module.config.variant == "temporal" else None
        losses: Losses = wrapped(batch.images["s2"], noise=noise_BN, dates_BT3=dates)
        return losses


def _noise(batch: Batch, seed: int, purpose: str, count: int) -> Tensor:
    return uniform(seed, batch.epochs_B, batch.sample_ids_B, purpose=purpose, count=count)
