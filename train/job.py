"""One run from a recipe to its last checkpoint: find its place, build, loop, close.

Everything that can fail on some ranks only is done `together`, and checked before anything is written.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator

from pipeline import record
from train import door, flops, loop, plugins, ranks, resume, revision
from train.checkpoint import Checkpoint
from train.desk import Desk, quarantine_of, versions, writer_of
from train.ema import Ema
from train.guard import Guard
from train.models import weights
from train.models.croma import CromaConfig
from train.objective import Objective
from train.optim import adamw, load_optimizer
from train.options import Options
from train.pace import Pacer
from train.place import Job, open_job, share_of
from train.recipes.run import Run, derive
from train.sharding import cut
from train.stop import Stopped, stoppable
from train.stream.loader import Loader, stretches


def fit(recipe: Run, options: Options, *, objective: Callable[[], Objective]) -> None:
    """Train `recipe` on `options.data` into `options.out`.

    Args:
        recipe: what to compute.
        options: where and how.
        objective: builds it; first weights come from torch's global generator.

    Raises:
        ranks.Lost: another rank is gone; on those that are left.
        PretrainError: on every rank if on any.
    """
    if plugins.take_fsdp(os.environ):
        options = replace(options, shard=True)
    with ranks.losing(options.rank_timeout):
        accelerator = ranks.start(recipe.precision, timeout_s=options.rank_timeout)
        try:
            _fit(recipe, options, accelerator, objective)
        finally:
            ranks.finish(accelerator)


def _fit(recipe: Run, options: Options, accelerator: Accelerator, objective: Callable[[], Objective]) -> None:
    job, trainee = _prepare(recipe, options, accelerator, objective)
    if trainee is not None:
        with trainee.loader:
            _begin(job)
            _run(job, trainee)
    if options.dry_run:
        job.reporter.say("nothing was written (--dry-run).")
    else:
        job.reporter.say(f"{job.out.url} holds the checkpoint of step {recipe.steps}.")


def _prepare(
    recipe: Run, options: Options, accelerator: Accelerator, objective: Callable[[], Objective]
) -> tuple[Job, loop.Trainee | None]:
    """What runs, checked on all ranks; no trainee where nothing is left to do. A checkpoint's tensors end here."""
    job, found = ranks.together(accelerator, lambda: open_job(recipe, options, accelerator))
    _check_ranks(job)
    job.reporter.facts({**_where(job), **_derived(job)})
    nothing_to_do = options.dry_run or job.first_step >= recipe.steps
    return job, None if nothing_to_do else _trainee(job, found, objective)


def _check_ranks(job: Job) -> None:
    state = resume.stream_state(job.plan, job.samples.known.index_sha256, job.first_step)
    ranks.check_equal((record.fingerprint(job.recipe), state, *versions().items()))


def _begin(job: Job) -> None:
    """Write down at the beginning what runs."""
    written = {"recipe": record.to_json(job.recipe), "derived": _derived(job), "versions": versions(), **_where(job)}
    written["revision"] = revision.of_code()
    written["normalisation"] = record.to_json(stretches(job.samples, job.recipe.stream))
    if job.accelerator.is_main_process and job.first_step == 0:
        job.out.publish(door.RUN_NAME, record.dumps(written))


def _where(job: Job) -> dict[str, object]:
    where: dict[str, object] = {
        "data": job.samples.store.url,
        "out": job.out.url,
        "ranks": job.accelerator.num_processes,
    }
    if isinstance(job.recipe.model, CromaConfig):
        where["negatives"] = job.plan.global_batch - 1
    return where | {"device": str(job.accelerator.device), "done_steps": job.first_step}


def _derived(job: Job) -> Mapping[str, object]:
    facts: Mapping[str, object] = record.to_json(derive(job.recipe, job.samples.samples))
    return facts


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
    return Loader(job.samples, job.plan, job.recipe.stream, share=share_of(job), samples_consumed=done)


def _run(job: Job, trainee: loop.Trainee) -> None:
    writer = ranks.together(job.accelerator, lambda: writer_of(job))
    quarantine = ranks.together(job.accelerator, lambda: quarantine_of(job))
    desk = Desk(job=job, trainee=trainee, writer=writer, quarantine=quarantine)
    with stoppable() as stop, writer or nullcontext():
        job.reporter.begin(job.first_step, job.recipe.steps)
        stopped: Stopped | None = None
        try:
            loop.train(trainee, _schedule(job), desk.hooks(stop))
        except Stopped as error:
            stopped = error
        finally:
            job.reporter.end()
        # A checkpoint that could not be written is every rank's failure.
        ranks.together(job.accelerator, lambda: None if writer is None else writer.saver.wait())
        if stopped is not None:
            raise stopped


def _schedule(job: Job) -> loop.Schedule:
    return loop.Schedule(
        first_step=job.first_step,
        steps=job.recipe.steps,
        checkpoint_every=job.options.checkpoint_every,
        global_batch=job.plan.global_batch,
        optim=job.recipe.optim,
        probe_every=None if job.validation is None else job.options.probe_every,
    )
