"""The training loop. It counts steps and knows an objective, not a model.

One step: batch → forward → backward (ranks average) → is it worth learning from? → update. Ranks exchange twice: before
the forward, on the host, whether all have their batch and nobody was asked to stop; after the backward, on the device,
the losses. So they stop together, and before the update. The host never waits for the device: the numbers of a step
are read while the next one runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.errors import PretrainError, StreamError
from train import late, optim, ranks, sharding
from train.accumulate import backward
from train.batch import Batch, Losses
from train.ema import Ema
from train.guard import Guard
from train.late import Late
from train.meter import Pace, Row
from train.models.blocks import compile_layers, set_recompute
from train.objective import Objective
from train.optim import OptimConfig, lr_at, peak_lr, set_lr
from train.pace import Pacer
from train.stop import Stopped, StopRequest
from train.stream.config import StreamState
from train.stream.loader import Loader

_NO_HASHES = torch.zeros(0, dtype=torch.int64)


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
    """Rate, clipping and skipping."""
    probe_every: int | None = None
    """Steps; None: never."""

    def lr(self, samples: int) -> float:
        """The rate of the step that ends behind `samples`."""
        peak = peak_lr(self.optim, self.global_batch)
        return lr_at(samples, total=self.steps * self.global_batch, peak=peak, config=self.optim)

    def saves(self, done: int) -> bool:
        """Whether a checkpoint follows step `done`."""
        return done % self.checkpoint_every == 0 or done == self.steps

    def probes(self, done: int) -> bool:
        """Whether the model is probed behind step `done`."""
        return self.probe_every is not None and (done % self.probe_every == 0 or done == self.steps)


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
    guard: Guard
    """Remembers what losses are usual."""
    loader: Loader
    """This rank's batches."""
    pacer: Pacer
    """Measures."""
    micro_batch: int | None = None
    """Samples of this rank that are in memory at once; None: all of a step."""
    ema: Ema | None = None
    """Average of the module's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the loop calls, on every rank alike."""

    report: Callable[[Row], None]
    """After each step, once its numbers are here; where it fails, all ranks stop before they learn anything more."""
    save: Callable[[int, StreamState], None]
    """With the steps done and the state behind them: every so many steps, at the end and when asked to stop."""
    failed: Callable[[], PretrainError | None]
    """What has gone wrong beside the loop; does not wait."""
    damaged: Callable[[Sequence[int]], None]
    """With this rank's samples that others stand in for, on all ranks if any has one; where too many are, all stop."""
    diverged: Callable[[int], str]
    """Writes down how to repeat a step that must not be learned from; says where."""
    stop: StopRequest
    """Of this rank's process."""
    probe: Callable[[int, StreamState], None] = lambda *_: None
    """With the steps done and the state behind them, now and then; before `save`, whose checkpoint vouches for it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Next:
    """A batch that all ranks have theirs of."""

    batch: Batch
    state: StreamState
    batch_hash: str
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Done:
    """A step whose numbers are not read yet."""

    step: int
    found: _Next
    lr: float
    numbers: Late
    pace: Pace


def prepare(
    accelerator: Accelerator, objective: Objective, *, compiled: bool, recompute: bool, sharded: bool = False
) -> nn.Module:
    """The objective's module on its device, its gradients averaged over ranks.

    Args:
        accelerator: of the run.
        objective: whose module is changed in place.
        compiled: compile each layer.
        recompute: keep only the layers' inputs for the backward pass.
        sharded: share parameters, gradients and moments over the ranks (FSDP2); of no use to a single one.
    """
    set_recompute(objective.module, on=recompute)
    if compiled:
        compile_layers(objective.module)
    if sharded and accelerator.num_processes > 1:
        precision = accelerator.mixed_precision
        sharding.shard(objective.module, mesh=sharding.mesh_of(accelerator.device), precision=precision)
        return objective.module.train()
    wrapped: nn.Module = accelerator.prepare(objective.module)
    ranks.guard(accelerator)
    return wrapped.train()


def train(trainee: Trainee, schedule: Schedule, hooks: Hooks) -> None:
    """Run to the end of `schedule`.

    Raises:
        Stopped: a rank was asked to stop; everything up to there is saved.
        StreamError: too many steps in a row were skipped.
        PretrainError: a batch could not be read, or a checkpoint not be written, on any rank.
    """
    reader = _Reader(schedule, hooks)
    saved, state = schedule.first_step, None
    for done in range(schedule.first_step + 1, schedule.steps + 1):
        found = _next(trainee, hooks, reader.error or hooks.failed())
        if found is None:
            _save(trainee, hooks, reader, saved=saved, done=done - 1, state=state)
            raise Stopped(f"asked to stop: step {done - 1} is saved. The same command with --resume goes on from it.")
        state = found.state
        numbers, rate = _learn(trainee, schedule, found.batch, state)
        reader.add(_Done(step=done, found=found, lr=rate, numbers=numbers, pace=trainee.pacer.step()))
        if schedule.probes(done):
            reader.flush()
            with trainee.pacer.paused():
                hooks.probe(done, state)
        if schedule.saves(done):
            saved = _save(trainee, hooks, reader, saved=saved, done=done, state=state)


class _Reader:
    """Reads the numbers of each step once the next one is under way, and reports them."""

    def __init__(self, schedule: Schedule, hooks: Hooks) -> None:
        self.error: PretrainError | None = None
        self._schedule, self._hooks = schedule, hooks
        self._waiting: _Done | None = None
        self._skipped = 0

    def add(self, done: _Done) -> None:
        """One more step; the one before is read."""
        self.flush()
        self._waiting = done

    def flush(self) -> None:
        """Read and report what waits."""
        done, self._waiting = self._waiting, None
        if done is None or self.error is not None:
            return
        try:
            self._report(done)
        except PretrainError as error:
            self.error = error

    def _report(self, done: _Done) -> None:
        numbers = done.numbers.read()
        loss, norm, skipped = numbers.pop("loss"), numbers.pop("grad_norm"), bool(numbers.pop("skipped"))
        self._hooks.report(
            Row(
                step=done.step,
                samples=done.found.state.samples_consumed,
                loss=loss,
                parts=numbers,
                lr=done.lr,
                grad_norm=norm,
                batch_hash=done.found.batch_hash,
                quarantined=done.found.quarantined,
                skipped=skipped,
                pace=done.pace,
            )
        )
        self._skipped = self._skipped + 1 if skipped else 0
        if skipped:
            self._tell(done.step, {"loss": loss, "gradient norm": norm})

    def _tell(self, step: int, numbers: dict[str, float]) -> None:
        where = self._hooks.diverged(step)
        if self._skipped >= self._schedule.optim.skips:
            raise StreamError(
                f"step {step} gave {numbers}: {self._skipped} steps in a row were not learned from. {where} "
                "Lower the learning rate or clip the gradient in the recipe, and start again."
            )


def _save(trainee: Trainee, hooks: Hooks, reader: _Reader, *, saved: int, done: int, state: StreamState | None) -> int:
    """Report all steps so far, and save what is not saved; the step that is."""
    reader.flush()
    ranks.fail_together(trainee.accelerator, reader.error)
    if state is not None and done > saved:
        ranks.together(trainee.accelerator, lambda: hooks.save(done, state))
    return done


def _next(trainee: Trainee, hooks: Hooks, error: PretrainError | None) -> _Next | None:
    """The next batch, once all ranks have theirs; None where one is to stop."""
    read, stop = None, hooks.stop.made
    if error is None and not stop:
        try:
            with trainee.pacer.waiting():
                read = next(trainee.loader)
        except PretrainError as caught:
            error = caught
    hashes_B, damaged = (_NO_HASHES, ()) if read is None else (read[0].hashes_B, read[0].damaged)
    total, quarantined, failed, stopped = ranks.exchange(
        hashes_B, damaged=len(damaged), failed=error is not None, stop=stop
    )
    if failed:
        ranks.fail_together(trainee.accelerator, error)
    if stopped or read is None:
        return None
    if quarantined:
        hooks.damaged(damaged)
    return _Next(batch=read[0], state=read[1], batch_hash=f"{total:016x}", quarantined=quarantined)


def _learn(trainee: Trainee, schedule: Schedule, batch: Batch, state: StreamState) -> tuple[Late, float]:
    """Learn from a batch; its numbers, on their way, and the rate."""
    trainee.optimizer.zero_grad(set_to_none=True)
    losses = backward(trainee.accelerator, trainee.objective, trainee.wrapped, batch, rows=trainee.micro_batch)
    numbers = _means(losses)
    limit = math.inf if schedule.optim.grad_clip is None else schedule.optim.grad_clip
    norm = sharding.gradient_norm(list(trainee.objective.module.parameters()), limit)
    skip = trainee.guard.judge(numbers["loss"], norm)
    rate = schedule.lr(state.samples_consumed)
    set_lr(trainee.optimizer, rate)
    optim.skip_if(trainee.optimizer, skip)
    optim.step(trainee.optimizer)
    if trainee.ema is not None:
        trainee.ema.update(trainee.objective.module, samples=state.samples_consumed, skip=skip)
    return late.send({**numbers, "grad_norm": norm, "skipped": skip}), rate


def _means(losses: Losses) -> dict[str, Tensor]:
    """Loss and parts over the global batch, on the device."""
    names = ("loss", *losses.parts)
    means = ranks.mean([losses.total, *losses.parts.values()])
    return dict(zip(names, means, strict=True))
