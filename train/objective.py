"""What the loop minimises. A new model adds a class here, and the loop stays as it is.

Axes: B batch, N numbers.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from train.batch import Batch, Losses
from train.models.contrastive import Contrast
from train.models.croma import Croma, CromaConfig
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.stream.noise import uniform


class Objective(Protocol):
    """A module, and what to do with it on a batch."""

    @property
    def module(self) -> nn.Module:
        """The bare module: its parameters are trained, its state dict is saved."""

    def losses(self, wrapped: nn.Module, batch: Batch, *, contrast: Contrast | None = None) -> Losses:
        """The losses of one rank's batch: means over its rows, so that ranks average to the global batch.

        Args:
            wrapped: `module` as the loop wrapped it for its ranks; call this one, once.
            batch: of this rank, or a micro-batch of it.
            contrast: of a micro-batch: what `contrasts` gave for it.
        """

    def contrasts(self, pieces: Sequence[Batch]) -> Sequence[Contrast | None]:
        """What each micro-batch must know of the others for its gradient to be its part of the whole's."""


class CromaObjective:
    """CROMA pretraining on pairs, its masks drawn for each sample and epoch."""

    def __init__(self, config: CromaConfig, *, seed: int) -> None:
        """Build the model; its first weights come from torch's global generator."""
        self.module = Croma(config)
        self._seed = seed

    def losses(self, wrapped: nn.Module, batch: Batch, *, contrast: Contrast | None = None) -> Losses:
        """Contrastive and reconstruction losses."""
        losses: Losses = wrapped(batch.images["s1"], batch.images["s2"], **self.noises(batch), contrast=contrast)
        return losses

    def contrasts(self, pieces: Sequence[Batch]) -> list[Contrast | None]:
        """The contrastive loss of all samples, from one pass without gradient."""
        made = [self.module.projected(piece.images["s1"], piece.images["s2"], **self.noises(piece)) for piece in pieces]
        s1_BD, s2_BD = (torch.cat(features) for features in zip(*made, strict=True))
        return [*self.module.contrastive.contrasts(s1_BD, s2_BD, len(made[0][0]))]

    def noises(self, batch: Batch) -> dict[str, Tensor]:
        """What chooses the patches that are hidden."""
        return croma_noises(batch, self.module.config, self._seed)


class SatmaeObjective:
    """SatMAE pretraining on the S2 side of pairs, or on stacks."""

    def __init__(self, config: SatmaeConfig, *, seed: int) -> None:
        """Build the model; its first weights come from torch's global generator."""
        self.module = Satmae(config)
        self._seed = seed

    def contrasts(self, pieces: Sequence[Batch]) -> list[Contrast | None]:
        """Its loss is a mean over samples: they need not know of each other."""
        return [None] * len(pieces)

    def losses(self, wrapped: nn.Module, batch: Batch, *, contrast: Contrast | None = None) -> Losses:  # noqa: ARG002
        """Reconstruction loss of the hidden patches."""
        noise_BN = satmae_noise(batch, self.module.config, self._seed)
        dates = batch.dates_BT3 if self.module.config.variant == "temporal" else None
        losses: Losses = wrapped(batch.images["s2"], noise=noise_BN, dates_BT3=dates)
        return losses


def croma_noises(batch: Batch, config: CromaConfig, seed: int) -> dict[str, Tensor]:
    """Uniform noise by argument of `Croma.forward`, (B, L) each: of a sample and an epoch always the same."""
    return {f"noise_{name}_BL": _noise(batch, seed, f"mask {name}", config.patches) for name in ("s1", "s2")}


def satmae_noise(batch: Batch, config: SatmaeConfig, seed: int) -> Tensor:
    """Uniform noise for `Satmae.forward`, (B, `config.noise_count`): of a sample and an epoch always the same."""
    return _noise(batch, seed, "mask", config.noise_count)


def _noise(batch: Batch, seed: int, purpose: str, count: int) -> Tensor:
    return uniform(seed, batch.epochs_B, batch.sample_ids_B, purpose=purpose, count=count)
