"""What the loop calls, tied to a run's folder: rows, checkpoints, probes, and what must be told of a step."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

from pipeline import record
from pipeline.errors import PretrainError
from train import loop, ranks, resume, sharded_checkpoint
from train.checkpoint import STATE_NAME, Checkpoint, folder, prune, state_bytes
from train.fence import claim
from train.guard import guard_file
from train.loggers import SERVICES, About, Logger
from train.meter import Meter, Probed, Row
from train.optim import optimizer_tensors
from train.place import Job
from train.quarantine import Quarantine
from train.saver import Keep, Saver, Writer
from train.stop import StopRequest
from train.stream.config import StreamState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Desk:
    """Where what the loop says is written down."""

    job: Job
    """The run."""
    trainee: loop.Trainee
    """What is saved and probed."""
    writer: Writer | None
    """On rank 0."""
    quarantine: Quarantine
    """On every rank."""

    def hooks(self, stop: StopRequest) -> loop.Hooks:
        """What the loop calls."""
        return loop.Hooks(
            report=self.report,
            save=self.save,
            failed=self.failed,
            damaged=self.damaged,
            diverged=self.diverged,
            stop=stop,
            probe=self.probe,
        )

    def report(self, row: Row) -> None:
        """One more step."""
        self.job.reporter.step(row)
        if self.writer is not None:
            self.writer.meter.write(row)

    def save(self, done: int, state: StreamState) -> None:
        """Its checkpoint; with shards every rank writes its part."""
        if self.writer is not None:
            self.writer.meter.publish()
        if self.job.options.shard and self.job.accelerator.num_processes > 1:
            _save_shards(self.job, self.trainee, done=done, state=state, writer=self.writer)
        elif self.writer is not None:
            self.writer.saver.save(_checkpoint(self.job, self.trainee, done=done, state=state))

    def failed(self) -> PretrainError | None:
        """What went wrong with the last checkpoint."""
        return None if self.writer is None else self.writer.saver.failed()

    def damaged(self, sample_ids: Sequence[int]) -> None:
        """These samples of this rank are damaged; called on all ranks."""
        met = ranks.joined(sample_ids)
        ranks.together(self.job.accelerator, lambda: self.quarantine.add(met))

    def diverged(self, step: int) -> str:
        """This step was not learned from; where it is written down."""
        return _bundle(self.job, step) if self.writer is not None else ""

    def probe(self, done: int, state: StreamState) -> None:
        """Every rank encodes its share of the validation split; rank 0 writes what is found."""
        validation, writer = self.job.validation, self.writer
        if validation is None:
            return
        module, ema = self.trainee.objective.module, self.trainee.ema
        seen = validation.look(module.state_dict() if ema is None else ema.state(module))
        row = Probed(step=done, samples=state.samples_consumed, val_samples=seen.val_samples, values=seen.values)
        ranks.together(
            self.job.accelerator, lambda: None if writer is None else writer.meter.probed(row, seen.pictures)
        )


def writer_of(job: Job) -> Writer | None:
    """Rank 0 writes for all."""
    if not job.accelerator.is_main_process:
        return None
    fence, options = claim(job.out, job.reporter.say, first_step=job.first_step), job.options
    keep = Keep(newest=options.keep, every=options.keep_every)
    return Writer(
        meter=Meter(job.out, resumed_step=job.first_step, say=job.reporter.say, services=_services(job)),
        saver=Saver(job.out, keep=keep, check=fence.check),
        check=fence.check,
    )


def quarantine_of(job: Job) -> Quarantine:
    """Of a run."""
    return Quarantine(job.out, job.samples, writes=job.accelerator.is_main_process, say=job.reporter.say)


def versions() -> dict[str, str]:
    """The packages that decide what a run computes."""
    names = ("sentinel-pretrain", "torch", "numpy", "accelerate", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _services(job: Job) -> dict[str, Callable[[], Logger]]:
    if not job.options.log:
        return {}
    config = {"recipe": record.to_json(job.recipe), "versions": versions()}
    about = About(name=job.out.url.rstrip("/").rpartition("/")[2], key=resume.key(job.out), config=config)
    return {name: partial(SERVICES[name], about) for name in job.options.log}


def _save_shards(job: Job, trainee: loop.Trainee, *, done: int, state: StreamState, writer: Writer | None) -> None:
    """Every rank writes its own part; the loop waits for it."""
    if writer is not None:
        writer.check()
    sharded_checkpoint.save(
        job.out.within(folder(done)),
        module=trainee.objective.module,
        optimizer=trainee.optimizer,
        averages={} if trainee.ema is None else trainee.ema.tensors(),
        others={STATE_NAME: state_bytes(_about(job, done, state)), **guard_file(trainee.guard)},
    )
    if writer is not None:
        prune(job.out, done, keep=job.options.keep, every=job.options.keep_every)


def _about(job: Job, done: int, state: StreamState) -> Checkpoint:
    """A checkpoint without its tensors."""
    return Checkpoint(
        step=done, stream=state, recipe=record.to_json(job.recipe), versions=versions(), model={}, optimizer={}
    )


def _bundle(job: Job, step: int) -> str:
    """What it takes to repeat a step that was not learned from; says where it stands."""
    ids, epochs = job.plan.batch(step - 1, 0, 1)
    about = {
        "step": step,
        "seed": job.recipe.seed,
        "keys": list(job.samples.keys(ids)),
        "sample_ids": ids.tolist(),
        "epochs": epochs.tolist(),
        "recipe": record.to_json(job.recipe),
        "versions": versions(),
    }
    name = f"skipped/step-{step:08d}.json"
    job.out.publish(name, record.dumps(about))
    job.reporter.say(f"step {step} was not learned from: its samples stand in {name}")
    return f"What was read is in {job.out.url}/{name}."


def _checkpoint(job: Job, trainee: loop.Trainee, *, done: int, state: StreamState) -> Checkpoint:
    module = trainee.objective.module
    averages = {} if trainee.ema is None else trainee.ema.tensors()
    optimizer = {**optimizer_tensors(trainee.optimizer, module), **trainee.guard.tensors(), **averages}
    return replace(_about(job, done, state), model=module.state_dict(), optimizer=optimizer)
