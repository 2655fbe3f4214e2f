"""What every run is, what follows from it by arithmetic, and what the command line may change of it."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch

from train import flops
from train.choices import Mode
from train.models.croma import Croma, CromaConfig
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.optim import OptimConfig, peak_lr
from train.stream.config import StreamConfig
from train.stream.lanes import default_lanes, divisors
from train.stream.where import Where

R = TypeVar("R", bound="Any")
_STATE_BYTES = 16
"""Of a trained number: weight, gradient and two moments in float32."""


class Run(Protocol):
    """A recipe: a frozen dataclass that holds all that decides what a run computes."""

    @property
    def model(self) -> CromaConfig | SatmaeConfig:
        """The network."""

    @property
    def stream(self) -> StreamConfig:
        """The data."""

    @property
    def optim(self) -> OptimConfig:
        """Optimizer and schedule."""

    @property
    def steps(self) -> int:
        """Length of the run."""

    @property
    def precision(self) -> str:
        """`no` or `bf16`."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    @property
    def ema(self) -> float | None:
        """What 256 samples leave of a moving average of the weights."""

    @property
    def tokens(self) -> int:
        """Tokens of a sample; for CROMA of each sensor."""

    @property
    def kept_tokens(self) -> int:
        """Those that are not hidden."""

    def module(self) -> Croma | Satmae:
        """The model, built anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What follows from a recipe and a data set."""

    parameters: int
    """Trained numbers."""
    gflop_per_sample: float
    """Billions of operations, forward and backward."""
    state_gb: float
    """Gigabytes of weights, gradients and AdamW's moments, on each rank."""
    activation_mb: float
    """Megabytes of saved activations per sample, about."""
    tokens: int
    """Of a sample; for CROMA of each sensor."""
    kept_tokens: int
    """Those that are not hidden."""
    global_batch: int
    """Samples of a step."""
    lanes: int
    """L."""
    world_sizes: tuple[int, ...]
    """Ranks that can share the lanes."""
    peak_lr: float
    """After warm-up."""
    steps: int
    """Of the run."""
    samples: int
    """In the data set's split."""
    epochs: float
    """Of the run."""


def derive(run: Run, samples: int) -> Derived:
    """What follows from `run` on a split of `samples`; no memory is taken."""
    batch = run.stream.global_batch
    lanes = run.stream.lanes or default_lanes(batch, samples)
    trained = parameters(run)
    return Derived(
        parameters=trained,
        gflop_per_sample=round(flops.step(run.model) / 1e9, 3),
        state_gb=round(trained * _STATE_BYTES / 1e9, 3),
        activation_mb=round(flops.activation_bytes(run.model, run.precision) / 1e6, 3),
        tokens=run.tokens,
        kept_tokens=run.kept_tokens,
        global_batch=batch,
        lanes=lanes,
        world_sizes=tuple(divisors(lanes)),
        peak_lr=peak_lr(run.optim, batch),
        steps=run.steps,
        samples=samples,
        epochs=round(run.steps * batch / samples, 2),
    )


def parameters(run: Run) -> int:
    """Numbers that are trained; the model is built without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in run.module().parameters() if parameter.requires_grad)


def override(
    run: R, *, steps: int | None, global_batch: int | None, mode: Mode | None, seed: int, ema: float | None = None
) -> R:
    """`run` with what the command line asked for; None keeps the recipe's."""
    stream = run.stream if global_batch is None else replace(run.stream, global_batch=global_batch)
    model = run.model if mode is None else replace(run.model, mode=mode)
    length, average = run.steps if steps is None else steps, run.ema if ema is None else ema
    changed: R = replace(run, stream=stream, model=model, steps=length, seed=seed, ema=average)
    return changed


def narrowed(run: R, where: Where | None) -> R:
    """`run` on some samples of its split; None keeps the recipe's."""
    changed: R = run if where is None else replace(run, stream=replace(run.stream, where=where))
    return changed
