"""What a recipe says about its data, how a rank reads its part of it, and where a stream stands."""

from dataclasses import dataclass

import torch

from pipeline.codec import Kind
from train.choices import OnCorrupt
from train.stream.normalise import Constants, Scale
from train.stream.transforms import Augment
from train.stream.where import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What a recipe says about its data."""

    global_batch: int
    """Samples of one step over all ranks."""
    kind: Kind = "pair"
    """What the data set holds."""
    frames: int | None = None
    """Of a stack: how many of its dates are drawn for each reading, in order; None: all, or a pair."""
    s1_bands: tuple[str, ...] = ()
    """By name; none: S1 is not read."""
    s2_bands: tuple[str, ...] = ()
    """By name; none: S2 is not read."""
    image_px: int
    """Pixels. Side of the images cut from chips."""
    augment: Augment = Augment()  # noqa: RUF009 - frozen
    """How they are cut."""
    scale: Scale = "two_sigma"
    """How stored values become a model's input."""
    split: str = "train"
    """Of the data set."""
    where: Where | None = None
    """Which of its samples; None: all."""
    lanes: int | None = None
    """None: the largest divisor of the global batch up to 240. World sizes must divide it."""
    window: int = 2
    """Shards of a lane that are shuffled together."""
    s1_constants: Constants | None = None
    """dB. None: from the data set's statistics."""
    s2_constants: Constants | None = None
    """Digital numbers. None: from the data set's statistics."""

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """By sensor, for those that are read."""
        return {name: bands for name, bands in (("s1", self.s1_bands), ("s2", self.s2_bands)) if bands}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a stream stands: all there is to resume it, on any legal world size."""

    plan_version: int
    """Of `lanes`."""
    index_sha256: str
    """The data set."""
    seed: int
    """Of order and augmentation."""
    lanes: int
    """L."""
    samples_consumed: int
    """Over all ranks, since the run began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of each batch is read here, and how."""

    rank: int = 0
    """Among the ranks of the run."""
    world_size: int = 1
    """Ranks of the run."""
    device: torch.device | str = "cpu"
    """Where batches are put, normalised and resized."""
    threads: int = 4
    """Readers, in each process that reads."""
    processes: int = 0
    """That read beside this one; 0: this one does."""
    prefetch: int = 2
    """Batches that are read ahead."""
    on_corrupt: OnCorrupt = "stop"
    """What a damaged sample does."""
