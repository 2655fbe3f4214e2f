"""Find a run's place: its data, the order of its samples, the checkpoint to go on from. Nothing is written."""

from dataclasses import dataclass, replace

from accelerate import Accelerator

from pipeline.errors import UsageError
from pipeline.store import Store
from train import loggers, ranks, resume
from train.checkpoint import Checkpoint
from train.options import Options
from train.progress import Reporter
from train.recipes.run import Run
from train.stream.ahead import working_set
from train.stream.cache import CachedShards, cache_folder
from train.stream.config import Share
from train.stream.lanes import LanePlan, default_lanes
from train.stream.samples import Samples, open_samples
from train.stream.transforms import check_frames, check_size
from train.validation import Validation, open_validation


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


def open_job(recipe: Run, options: Options, accelerator: Accelerator) -> tuple[Job, Checkpoint | None]:
    """A run's place, and the checkpoint that it goes on from.

    Raises:
        PretrainError: on this rank; others may find nothing wrong.
    """
    reporter, stream = Reporter(speaks=accelerator.is_main_process), recipe.stream
    if accelerator.is_main_process:
        loggers.check(options.log)
    out, data = Store.at(options.out), Store.at(options.data)
    samples = open_samples(data, stream.split, kind=stream.kind, bands=stream.bands, where=stream.where)
    check_size(samples.known.chip_px, stream.image_px, stream.augment)
    check_frames(samples.frames, stream.frames)
    if options.reader_processes and data.is_in_process:
        raise UsageError(f"--reader-processes cannot read {data.url}, which lies in this process. Leave it out.")
    plan = _plan(recipe, samples)
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


def share_of(job: Job) -> Share:
    """Which part of each batch this rank reads, and how."""
    return Share(
        rank=job.accelerator.process_index,
        world_size=job.accelerator.num_processes,
        device=job.accelerator.device,
        threads=job.options.threads,
        processes=job.options.reader_processes,
        on_corrupt=job.options.on_corrupt,
    )


def _plan(recipe: Run, samples: Samples) -> LanePlan:
    stream = recipe.stream
    return LanePlan(
        shard_sizes=samples.shard_sizes,
        lanes=stream.lanes or default_lanes(stream.global_batch, samples.samples),
        global_batch=stream.global_batch,
        seed=recipe.seed,
        window=stream.window,
    )


def _validation(recipe: Run, options: Options, accelerator: Accelerator, reporter: Reporter) -> Validation | None:
    if options.probe_every is None:
        return None
    limit, data = options.probe_samples, Store.at(options.data)
    return open_validation(recipe, data, accelerator, limit=limit, threads=options.threads, say=reporter.say)


def _cached(job: Job) -> Job:
    """The same job, reading through a cache where the data lies elsewhere."""
    store, options = job.samples.store, job.options
    # Foreign tars lie anywhere; they are read sample by sample.
    uncached = store.is_local or store.is_in_process or job.samples.members.foreign is not None
    folder = None if uncached else cache_folder(options.cache, options.cache_gb)
    if folder is None:
        return job
    # The ranks of a machine share the folder, and each holds its own part of the working set.
    need = working_set(job.samples, job.plan, share_of(job), job.first_step) * ranks.on_this_machine()
    if need > folder.limit:
        job.reporter.say(
            f"the cache {folder.path} may hold {folder.limit / 1e9:.1f} GB and {need / 1e9:.1f} GB are in use at once: "
            "the rest is read sample by sample. Give --cache a larger disk, or --cache-gb more."
        )
    shards = {entry.path: (entry.sha256, entry.bytes) for entry in job.samples.known.shards}
    source = CachedShards(store, shards, folder, say=job.reporter.say)
    return replace(job, samples=replace(job.samples, source=source))
