"""One run from a recipe to its last checkpoint: open the data, find where to resume, build, loop, close.

Everything that can fail on some ranks only is done `together`, and checked before anything is written.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import torch
from accelerate import Accelerator

from pipeline import record
from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train import flops, loggers, loop, ranks, resume, sharded_checkpoint
from train.checkpoint import STATE_NAME, Checkpoint, folder, prune, state_bytes
from train.ema import Ema
from train.fence import claim
from train.guard import Guard, guard_file
from train.loggers import SERVICES, About, Logger
from train.meter import Meter, Probed, Row
from train.models import weights
from train.models.croma import CromaConfig
from train.objective import Objective
from train.optim import adamw, load_optimizer, optimizer_tensors
from train.pace import Pacer
from train.progress import Reporter
from train.quarantine import Quarantine
from train.recipes.run import Run, derive
from train.saver import Keep, Saver, Writer
from train.sharding import cut
from train.stop import Stopped, StopRequest, stoppable
from train.stream.ahead import working_set
from train.stream.cache import CachedShards, cache_folder
from train.stream.config import OnCorrupt, Share, StreamState
from train.stream.lanes import LanePlan, default_lanes
from train.stream.loader import Loader, stretches
from train.stream.samples import Samples, open_samples
from train.stream.transforms import check_frames, check_size
from train.validation import Validation, open_validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What does not change the result."""

    data: str
    """URL of a finished data set."""
    out: str
    """URL of the run's folder."""
    resume: bool = False
    """Go on from the last checkpoint; begin where there is none."""
    checkpoint_every: int = 100
    """Steps."""
    keep: int = 2
    """How many of the newest checkpoints stay."""
    keep_every: int | None = None
    """Steps. Besides, checkpoints of every so many steps stay."""
    micro_batch: int | None = None
    """Samples of each rank that are in memory at once; None: all of a step."""
    threads: int = 4
    """Readers of each rank."""
    compile: bool = False
    """Compile each layer."""
    recompute: bool = False
    """Keep only the layers' inputs for the backward pass."""
    shard: bool = False
    """Share parameters, gradients and the optimizer's state over the ranks."""
    cache: str | None = None
    """Folder of this machine for shards of stores elsewhere; None: the one for temporary files."""
    cache_gb: float | None = None
    """Gigabytes. Its limit; None: half of what is free, 0: no cache."""
    on_corrupt: OnCorrupt = "stop"
    """What a sample does whose bytes are damaged in the store."""
    init: str | None = None
    """URL of weights of any published layout to begin with; not looked at when a checkpoint is there."""
    probe_every: int | None = None
    """Steps. The model is probed on the validation split every so many, and at the end; None: never."""
    probe_samples: int = 2048
    """Samples of a split that probes look at, at most."""
    log: Sequence[str] = ()
    """Services that curves and pictures also go to, of `loggers.SERVICES`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        counts = ("checkpoint_every", "keep", "keep_every", "micro_batch", "threads", "probe_every", "probe_samples")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: use 1 or more.")
        if self.shard and self.micro_batch is not None:
            raise UsageError("--shard and --micro-batch do not go together yet: use more ranks, or --recompute.")
        if self.cache_gb is not None and not 0 <= self.cache_gb < math.inf:
            raise UsageError(f"--cache-gb {self.cache_gb}: use 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A run that has found its place: nothing is written yet."""

    recipe: Run
    """What to compute."""
    options: Options
    """Where and how."""
    accelerator: Accelerator
    """This rank."""
    reporter: Reporter
    """Speaks on rank 0."""
    out: Store
    """The run's folder."""
    samples: Samples
    """The samples."""
    plan: LanePlan
    """Their order."""
    first_step: int
    """Steps that are done already."""
    validation: Validation | None
    """What probes the model."""


def fit(recipe: Run, options: Options, *, objective: Callable[[], Objective]) -> None:
    """Train `recipe` on `options.data` into `options.out`.

    Args:
        recipe: what to compute.
        options: where and how.
        objective: builds it; first weights come from torch's global generator.

    Raises:
        PretrainError: on every rank if on any.
    """
    accelerator = ranks.start(recipe.precision)
    try:
        job, trainee = _prepare(recipe, options, accelerator, objective)
        if trainee is not None:
            with trainee.loader:
                _run(job, trainee)
        job.reporter.say(f"{job.out.url} holds the checkpoint of step {recipe.steps}.")
    finally:
        accelerator.end_training()


def versions() -> dict[str, str]:
    """The packages that decide what a run computes."""
    names = ("sentinel-pretrain", "torch", "numpy", "accelerate", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _prepare(
    recipe: Run, options: Options, accelerator: Accelerator, objective: Callable[[], Objective]
) -> tuple[Job, loop.Trainee | None]:
    """What runs, checked on all ranks; no trainee where nothing is left to do. A checkpoint's tensors end here."""
    job, found = ranks.together(accelerator, lambda: _open(recipe, options, accelerator))
    _check_ranks(job)
    _begin(job, facts=record.to_json(derive(recipe, job.samples.samples)))
    return job, None if job.first_step >= recipe.steps else _trainee(job, found, objective)


def _open(recipe: Run, options: Options, accelerator: Accelerator) -> tuple[Job, Checkpoint | None]:
    reporter, stream = Reporter(speaks=accelerator.is_main_process), recipe.stream
    if accelerator.is_main_process:
        loggers.check(options.log)
    out, data = Store.at(options.out), Store.at(options.data)
    samples = open_samples(data, stream.split, kind=stream.kind, bands=stream.bands, where=stream.where)
    check_size(samples.known.chip_px, stream.image_px, stream.augment)
    check_frames(samples.frames, stream.frames)
    plan = LanePlan(
        shard_sizes=samples.shard_sizes,
        lanes=stream.lanes or default_lanes(stream.global_batch, samples.samples),
        global_batch=stream.global_batch,
        seed=recipe.seed,
        window=stream.window,
    )
    plan.check_world_size(accelerator.num_processes)
    found = resume.find(out, resume=options.resume, say=reporter.say)
    if found is not None:
        state = resume.stream_state(plan, samples.known.index_sha256, found.step)
        resume.check_same(found, recipe, state, where=out.url)
    job = Job(
        recipe=recipe,
        options=options,
        accelerator=accelerator,
        reporter=reporter,
        out=out,
        samples=samples,
        plan=plan,
        first_step=0 if found is None else found.step,
        validation=_validation(recipe, options, accelerator, reporter),
    )
    return _cached(job), found


def _validation(recipe: Run, options: Options, accelerator: Accelerator, reporter: Reporter) -> Validation | None:
    if options.probe_every is None:
        return None
    limit, data = options.probe_samples, Store.at(options.data)
    return open_validation(recipe, data, accelerator, limit=limit, threads=options.threads, say=reporter.say)


def _check_ranks(job: Job) -> None:
    state = resume.stream_state(job.plan, job.samples.known.index_sha256, job.first_step)
    ranks.check_equal((record.fingerprint(job.recipe), state, *versions().items()))


def _begin(job: Job, *, facts: Mapping[str, object]) -> None:
    """Say, and at the beginning write down, what is about to run."""
    where = {"data": job.samples.store.url, "out": job.out.url, "ranks": job.accelerator.num_processes}
    if isinstance(job.recipe.model, CromaConfig):
        where["negatives"] = job.plan.global_batch - 1
    where |= {"device": str(job.accelerator.device), "done_steps": job.first_step}
    job.reporter.facts({**where, **facts})
    written = {"recipe": record.to_json(job.recipe), "derived": facts, "versions": versions(), **where}
    written["normalisation"] = record.to_json(stretches(job.samples, job.recipe.stream))
    if job.accelerator.is_main_process and job.first_step == 0:
        job.out.publish(resume.RUN_NAME, record.dumps(written))


def _trainee(job: Job, found: Checkpoint | None, objective: Callable[[], Objective]) -> loop.Trainee:
    torch.manual_seed(job.recipe.seed)
    built = objective()
    if found is not None:
        weights.load(built.module, found.model)
    elif job.options.init is not None:
        init = job.options.init
        ranks.together(job.accelerator, lambda: weights.initial(built.module, init))
    options = job.options
    wrapped = loop.prepare(
        job.accelerator, built, compiled=options.compile, recompute=options.recompute, sharded=options.shard
    )
    optimizer = adamw(built.module, job.recipe.optim)
    guard = Guard(job.recipe.optim.skip_sigmas, job.accelerator.device)
    ema = _ema(job, built)
    if found is not None:
        others = cut(guard.load(found.optimizer), built.module)
        load_optimizer(optimizer, built.module, others if ema is None else ema.load(others))
    return loop.Trainee(
        accelerator=job.accelerator,
        objective=built,
        wrapped=wrapped,
        optimizer=optimizer,
        guard=guard,
        loader=_loader(job),
        pacer=_pacer(job),
        micro_batch=job.options.micro_batch,
        ema=ema,
    )


def _ema(job: Job, objective: Objective) -> Ema | None:
    decay = job.recipe.ema
    return None if decay is None else Ema(objective.module, decay=decay, batch=job.plan.global_batch)


def _pacer(job: Job) -> Pacer:
    return Pacer(
        job.samples,
        global_batch=job.plan.global_batch,
        flops=flops.step(job.recipe.model),
        device=job.accelerator.device,
        world_size=job.accelerator.num_processes,
    )


def _loader(job: Job) -> Loader:
    done = job.first_step * job.plan.global_batch
    return Loader(job.samples, job.plan, job.recipe.stream, share=_share(job), samples_consumed=done)


def _share(job: Job) -> Share:
    return Share(
        rank=job.accelerator.process_index,
        world_size=job.accelerator.num_processes,
        device=job.accelerator.device,
        threads=job.options.threads,
        on_corrupt=job.options.on_corrupt,
    )


def _cached(job: Job) -> Job:
    """The same job, reading through a cache where the data lies elsewhere."""
    store, options = job.samples.store, job.options
    # Foreign tars lie anywhere; they are read sample by sample.
    uncached = store.is_local or store.is_in_process or job.samples.members.foreign is not None
    folder = None if uncached else cache_folder(options.cache, options.cache_gb)
    if folder is None:
        return job
    # The ranks of a machine share the folder, and each holds its own part of the working set.
    need = working_set(job.samples, job.plan, _share(job), job.first_step) * ranks.on_this_machine()
    if need > folder.limit:
        job.reporter.say(
            f"the cache {folder.path} may hold {folder.limit / 1e9:.1f} GB and {need / 1e9:.1f} GB are in use at once: "
            "the rest is read sample by sample. Give --cache a larger disk, or --cache-gb more."
        )
    shards = {entry.path: (entry.sha256, entry.bytes) for entry in job.samples.known.shards}
    source = CachedShards(store, shards, folder, say=job.reporter.say)
    return replace(job, samples=replace(job.samples, source=source))


def _run(job: Job, trainee: loop.Trainee) -> None:
    writer = ranks.together(job.accelerator, lambda: _writer(job))
    quarantine = ranks.together(job.accelerator, lambda: _quarantine(job))
    with stoppable() as stop, writer or nullcontext():
        job.reporter.begin(job.first_step, job.recipe.steps)
        stopped: Stopped | None = None
        try:
            loop.train(trainee, _schedule(job), _hooks(job, trainee, writer, quarantine=quarantine, stop=stop))
        except Stopped as error:
            stopped = error
        finally:
            job.reporter.end()
        # A checkpoint that could not be written is every rank's failure.
        ranks.together(job.accelerator, lambda: None if writer is None else writer.saver.wait())
        if stopped is not None:
            raise stopped


def _writer(job: Job) -> Writer | None:
    """Rank 0 writes for all."""
    if not job.accelerator.is_main_process:
        return None
    fence, options = claim(job.out, job.reporter.say), job.options
    keep = Keep(newest=options.keep, every=options.keep_every)
    return Writer(
        meter=Meter(job.out, resumed_step=job.first_step, say=job.reporter.say, services=_services(job)),
        saver=Saver(job.out, keep=keep, check=fence.check),
        check=fence.check,
    )


def _quarantine(job: Job) -> Quarantine:
    return Quarantine(job.out, job.samples, writes=job.accelerator.is_main_process, say=job.reporter.say)


def _services(job: Job) -> dict[str, Callable[[], Logger]]:
    if not job.options.log:
        return {}
    config = {"recipe": record.to_json(job.recipe), "versions": versions()}
    about = About(name=job.out.url.rstrip("/").rpartition("/")[2], key=resume.key(job.out), config=config)
    return {name: partial(SERVICES[name], about) for name in job.options.log}


def _schedule(job: Job) -> loop.Schedule:
    return loop.Schedule(
        first_step=job.first_step,
        steps=job.recipe.steps,
        checkpoint_every=job.options.checkpoint_every,
        global_batch=job.plan.global_batch,
        optim=job.recipe.optim,
        probe_every=None if job.validation is None else job.options.probe_every,
    )


def _hooks(
    job: Job, trainee: loop.Trainee, writer: Writer | None, *, quarantine: Quarantine, stop: StopRequest
) -> loop.Hooks:
    sharded = job.options.shard and job.accelerator.num_processes > 1

    def report(row: Row) -> None:
        job.reporter.step(row)
        if writer is not None:
            writer.meter.write(row)

    def save(done: int, state: StreamState) -> None:
        if writer is not None:
            writer.meter.publish()
        if sharded:
            _save_shards(job, trainee, done=done, state=state, writer=writer)
        elif writer is not None:
            writer.saver.save(_checkpoint(job, trainee, done=done, state=state))

    def failed() -> PretrainError | None:
        return None if writer is None else writer.saver.failed()

    def damaged(sample_ids: Sequence[int]) -> None:
        met = ranks.joined(sample_ids)
        ranks.together(job.accelerator, lambda: quarantine.add(met))

    def diverged(step: int) -> str:
        return _bundle(job, step) if writer is not None else ""

    def probe(done: int, state: StreamState) -> None:
        _probe(job, trainee, done=done, state=state, writer=writer)

    return loop.Hooks(
        report=report, save=save, failed=failed, damaged=damaged, diverged=diverged, stop=stop, probe=probe
    )


def _probe(job: Job, trainee: loop.Trainee, *, done: int, state: StreamState, writer: Writer | None) -> None:
    """Every rank encodes its share of the validation split; rank 0 writes what is found."""
    if job.validation is None:
        return
    module, ema = trainee.objective.module, trainee.ema
    seen = job.validation.look(module.state_dict() if ema is None else ema.state(module))
    row = Probed(step=done, samples=state.samples_consumed, val_samples=seen.val_samples, values=seen.values)
    ranks.together(job.accelerator, lambda: None if writer is None else writer.meter.probed(row, seen.pictures))


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
