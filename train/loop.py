"""The training loop. It counts steps and knows an objective, not a model.

One step: batch → forward → backward (ranks average) → is everything finite? → update → row. Ranks exchange twice:
before the forward, whether all have their batch; after the backward, the losses. So they stop together, and before the
update.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from pipeline.errors import PretrainError, StreamError
from train import ranks
from train.batch import Batch, Losses
from train.meter import Row
from train.models.blocks import compile_layers, set_recompute
from train.objective import Objective
from train.optim import OptimConfig, lr_at, peak_lr, set_lr
from train.stream.config import StreamState
from train.stream.loader import Loader
from train.stream.noise import hash64


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Where a run begins and ends, and what it does on the way."""

    first_step: int
    """Steps already done."""
    steps: int
    """Steps of the whole run."""
    checkpoint_every: int
    """Steps."""
    global_batch: int
    """Samples of a step over all ranks."""
    optim: OptimConfig
    """Rate and clipping."""

    def lr(self, samples: int) -> float:
        """The rate of the step that ends behind `samples`."""
        peak = peak_lr(self.optim, self.global_batch)
        return lr_at(samples, total=self.steps * self.global_batch, peak=peak, config=self.optim)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """What changes from step to step."""

    accelerator: Accelerator
    """Device, process group, autocast."""
    objective: Objective
    """What is minimised."""
    wrapped: nn.Module
    """The objective's module as Accelerate wrapped it."""
    optimizer: torch.optim.Optimizer
    """Of the module's parameters."""
    loader: Loader
    """This rank's batches."""


def prepare(accelerator: Accelerator, objective: Objective, *, compiled: bool, recompute: bool) -> nn.Module:
    """The objective's module on its device, its gradients averaged over ranks.

    Args:
        accelerator: of the run.
        objective: whose module is changed in place.
        compiled: compile each layer.
        recompute: keep only the layers' inputs for the backward pass.
    """
    set_recompute(objective.module, on=recompute)
    if compiled:
        compile_layers(objective.module)
    wrapped: nn.Module = accelerator.prepare(objective.module)
    ranks.guard(accelerator)
    return wrapped.train()


def train(
    trainee: Trainee,
    schedule: Schedule,
    *,
    report: Callable[[Row], None],
    save: Callable[[int, StreamState], None],
) -> None:
    """Run to the end of `schedule`.

    Args:
        trainee: is changed.
        schedule: from where to where.
        report: called on every rank after each step; where it fails, all ranks stop before they learn anything more.
        save: called on every rank with the steps done and the state behind them, every so many steps and at the end.

    Raises:
        StreamError: a loss or a gradient is not finite; nothing was updated with it.
        PretrainError: a batch could not be read, or a checkpoint not be written, on any rank.
    """
    error: PretrainError | None = None
    for done in range(schedule.first_step + 1, schedule.steps + 1):
        row, state = _step(trainee, schedule, done, error)
        error = _error_of(lambda row=row: report(row))  # type: ignore[misc]
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            ranks.fail_together(trainee.accelerator, error)
            ranks.together(trainee.accelerator, lambda done=done, state=state: save(done, state))  # type: ignore[misc]


def _error_of(action: Callable[[], None]) -> PretrainError | None:
    try:
        action()
    except PretrainError as error:
        return error
    return None


def _step(trainee: Trainee, schedule: Schedule, done: int, error: PretrainError | None) -> tuple[Row, StreamState]:
    began_s = time.perf_counter()
    batch, state, batch_hash = _next(trainee, error)
    waited_s = time.perf_counter() - began_s
    rate = schedule.lr(state.samples_consumed)
    losses = _backward(trainee, batch)
    loss, parts, norm = _settle(trainee, schedule, losses)
    _check_finite({"loss": loss, **parts, "gradient norm": norm}, done, batch_hash)
    set_lr(trainee.optimizer, rate)
    trainee.optimizer.step()
    seconds = time.perf_counter() - began_s
    row = Row(
        step=done,
        samples=state.samples_consumed,
        loss=loss,
        parts=parts,
        lr=rate,
        grad_norm=norm,
        batch_hash=batch_hash,
        seconds=round(seconds, 4),
        samples_per_s=round(schedule.global_batch / seconds, 2),
        data_wait_share=round(waited_s / seconds, 4),
    )
    return row, state


def _next(trainee: Trainee, error: PretrainError | None) -> tuple[Batch, StreamState, str]:
    """The next batch, once all ranks have theirs, and the hash of the global batch; `error` is of the last step."""
    hashes_B = torch.zeros(0, dtype=torch.int64)
    if error is None:
        try:
            batch, state = next(trainee.loader)
            hashes_B = hash64(0, batch.epochs_B, batch.sample_ids_B, purpose="batch")
        except PretrainError as caught:
            error = caught
    total, failed = ranks.sum_hashes(trainee.accelerator, hashes_B, failed=error is not None)
    if failed:
        ranks.fail_together(trainee.accelerator, error)
    return batch, state, f"{total:016x}"


def _backward(trainee: Trainee, batch: Batch) -> Losses:
    trainee.optimizer.zero_grad(set_to_none=True)
    losses = trainee.objective.losses(trainee.wrapped, batch)
    trainee.accelerator.backward(losses.total)
    return losses


def _settle(trainee: Trainee, schedule: Schedule, losses: Losses) -> tuple[float, dict[str, float], float]:
    """Loss and parts over the global batch, and the norm of the averaged gradient, which is clipped where asked for."""
    loss, *parts = ranks.mean(trainee.accelerator, [losses.total, *losses.parts.values()])
    limit = math.inf if schedule.optim.grad_clip is None else schedule.optim.grad_clip
    norm = torch.nn.utils.clip_grad_norm_(trainee.objective.module.parameters(), limit)
    return loss, dict(zip(losses.parts, parts, strict=True)), float(norm)


def _check_finite(numbers: dict[str, float], done: int, batch_hash: str) -> None:
    """All ranks see the same numbers, so they raise together."""
    bad = {name: value for name, value in numbers.items() if not math.isfinite(value)}
    if bad:
        raise StreamError(
            f"step {done} gave {bad} (batch {batch_hash}), and nothing was updated with it. "
            "Lower the learning rate or clip the gradient in the recipe, and start again from a checkpoint before it."
        )
