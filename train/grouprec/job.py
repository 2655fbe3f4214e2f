"""One run: where it begins, its epochs with their rows and checkpoints, and what it tells at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pipeline import record
from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train import checkpoint
from train.grouprec import drift, outcome, saving
from train.grouprec.drift import Yesterday
from train.grouprec.fit import Report, Trainer
from train.grouprec.modes import FitConfig
from train.grouprec.names import Protocol
from train.grouprec.outcome import OUTCOME_NAME, Outcome, memory_mb
from train.grouprec.peers import Peers
from train.grouprec.source import Source
from train.meter import Meter, Pace, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What does not change the result."""

    resume: bool = False
    """Go on from the last checkpoint; begin where there is none."""
    checkpoint_every: int = 10
    """Epochs."""
    keep: int = 2
    """How many of the newest checkpoints stay."""
    protocols: Sequence[Protocol] = ("listed",)
    """Among which items is ranked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Who else is there."""

    peers: Peers
    """The ranks."""
    say: Callable[[str], None]
    """Told to people, on rank 0."""
    asked_to_stop: Callable[[], bool]
    """Whether this process was asked to stop."""
    before: Yesterday | None = None
    """A run to begin from."""


def fit(
    source: Source, config: FitConfig, store: Store, options: Options, *, seed: int, around: Surroundings
) -> Outcome | None:
    """Train and evaluate; None where the run was asked to stop, and saved.

    Raises:
        PretrainError: OUT holds another run, or its checkpoint is of other data or settings.
    """
    done = _together(lambda: _finished(store, options, config), around.peers)
    if done is not None:
        return done
    trainer = Trainer(source.data, config, seed=seed, peers=around.peers)
    _together(lambda: _restore(trainer, source, store, resume=options.resume, around=around), around.peers)
    with _metering(store, trainer.state.epochs, around.peers) as meter:
        reports = _epochs(trainer, meter, options, around, save=lambda: _save(trainer, source, store, options.keep))
    if not trainer.done:
        return None
    trainer.finish()
    found = outcome.of_run(trainer, source, reports, options.protocols)
    if around.peers.rank == 0:
        drift.leave(store, source.data)
        store.publish(OUTCOME_NAME, record.dumps(found))
    return found


def _epochs(
    trainer: Trainer, meter: Meter | None, options: Options, around: Surroundings, *, save: Callable[[], None]
) -> list[Report]:
    """All epochs that are left, or those up to a stop, which are saved; rank 0 has the meter, tells and saves."""
    reports: list[Report] = []
    stopping = False
    while not trainer.done and not stopping:
        reports.append(trainer.epoch())
        stopping = around.peers.any(here=around.asked_to_stop())
        if meter is None:
            continue
        _tell(reports[-1], trainer, meter, around.say)
        if stopping or trainer.done or trainer.state.epochs % options.checkpoint_every == 0:
            meter.publish()
            save()
    return reports


def _save(trainer: Trainer, source: Source, store: Store, keep: int) -> None:
    checkpoint.save(store, saving.pack(trainer, source.sha256), keep=keep)


@contextmanager
def _metering(store: Store, epochs: int, peers: Peers) -> Iterator[Meter | None]:
    if peers.rank:
        yield None
        return
    meter = Meter(store, resumed_step=epochs, say=lambda _: None)
    with closing(meter):
        yield meter


def load(source: Source, config: FitConfig, store: Store, *, seed: int) -> Trainer:
    """The model of a finished run.

    Raises:
        PretrainError: there is none, or it is of other data or settings.
    """
    found = checkpoint.latest(store, lambda _: None)
    if found is None:
        raise UsageError(f"{store.url} holds no checkpoint. Train first, with the same --data, --mode and --seed.")
    trainer = Trainer(source.data, config, seed=seed)
    saving.unpack(found, trainer, source.sha256, where=store.url)
    trainer.finish()
    return trainer


def read_outcome(store: Store) -> Outcome | None:
    """What a run told; None where it is not finished.

    Raises:
        ContractError: the file is damaged.
    """
    try:
        return record.loads(Outcome, store.read(OUTCOME_NAME), where=f"{store.url}/{OUTCOME_NAME}")
    except FileNotFoundError:
        return None


def _finished(store: Store, options: Options, config: FitConfig) -> Outcome | None:
    if not options.resume:
        if checkpoint.steps(store) or store.exists(OUTCOME_NAME):
            raise UsageError(f"{store.url} holds a run already. Go on with it by --resume, or choose another --out.")
        return None
    found = read_outcome(store)
    same = found is not None and (found.config, found.protocols) == (config, tuple(options.protocols))
    return found if same else None


def _restore(trainer: Trainer, source: Source, store: Store, *, resume: bool, around: Surroundings) -> None:
    found = checkpoint.latest(store, around.say) if resume else None
    if found is not None:
        saving.unpack(found, trainer, source.sha256, where=store.url)
        around.say(f"{store.url}: going on behind epoch {found.step}")
    elif around.before is not None:
        drift.begin(trainer, around.before, seed=trainer.seed)
        around.say(f"{around.before.url}: begun from, with {len(trainer.state.center_GD)} groups")


def _together(action: Callable[[], T], peers: Peers) -> T:
    """Do it on every rank, before any of them goes on; where it fails on one it fails on all, and nobody waits."""
    result, error = None, None
    try:
        result = action()
    except PretrainError as caught:
        error = caught
    failed = peers.any(here=error is not None)
    if failed:
        raise error or PretrainError("another rank failed: its message says why.")
    return result  # type: ignore[return-value]


def _tell(report: Report, trainer: Trainer, meter: Meter, say: Callable[[str], None]) -> None:
    parts = {"bpr": report.bpr, "pull": report.pull, "fit": report.fit, "validation": report.validation}
    meter.write(
        Row(
            step=report.epoch,
            samples=report.epoch * trainer.config.negatives * len(trainer.positives),
            loss=report.bpr,
            parts={name: value for name, value in parts.items() if value is not None}
            | {"groups": float(report.groups)},
            lr=trainer.config.lr,
            grad_norm=report.grad_norm,
            batch_hash=report.drawn,
            skipped=False,
            quarantined=0,
            pace=_pace(report),
        )
    )
    if report.validation is not None or report.epoch == 1:
        shown = "" if report.validation is None else f", validation NDCG@10 {report.validation:.4f}"
        say(f"epoch {report.epoch}: loss {report.bpr:.4f}, {report.groups} groups{shown}, {report.seconds:.2f} s")


def _pace(report: Report) -> Pace:
    return Pace(
        seconds=report.seconds,
        samples_per_s=report.pairs / max(report.seconds, 1e-9),
        data_wait_share=0.0,
        mfu=None,
        read_mb_per_s=0.0,
        cache_hit_share=None,
        retries=0,
        memory_mb=memory_mb(),
    )
