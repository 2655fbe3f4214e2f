"""What a finished run tells: its figures, its groups, its cost. JSON beside its checkpoints."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.grouprec import agreement, evaluate
from train.grouprec.evaluate import Result
from train.grouprec.fit import Report, Trainer
from train.grouprec.modes import FitConfig
from train.grouprec.names import Protocol
from train.grouprec.source import Source

OUTCOME_NAME = "outcome.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """The pseudo-groups at the end."""

    identifier: str
    """That found them."""
    sizes: tuple[int, ...]
    """Users of each, the largest first."""
    silhouette: float | None
    """Of the users' vectors, over a sample; None for fewer than two groups."""
    adjusted_rand: float | None
    """Agreement with planted groups; None where none were planted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run of one method with one seed."""

    method: str
    """Mode, or baseline."""
    data: str
    """The data's name."""
    seed: int
    """Of the run; 0 for methods that draw nothing."""
    config: FitConfig | None
    """None: a baseline."""
    protocols: tuple[Protocol, ...]
    """Among which items was ranked."""
    results: tuple[Result, ...]
    """Its figures."""
    grouping: Grouping | None
    """None: there are no pseudo-groups."""
    epochs: tuple[Report, ...]
    """How each went, of those of the last start."""
    kept_epoch: int
    """Whose vectors were evaluated."""
    seconds: float
    """Of all epochs that are listed."""
    memory_mb: float
    """Largest memory of the process so far."""


def of_run(trainer: Trainer, source: Source, epochs: list[Report], protocols: Sequence[Protocol]) -> Outcome:
    """Evaluate a finished run: the only time that its test rows are looked at."""
    return Outcome(
        method=trainer.config.mode,
        data=source.name,
        seed=trainer.seed,
        config=trainer.config,
        protocols=tuple(protocols),
        results=tuple(evaluate.results(trainer.scorer(), source.data, protocols)),
        grouping=_grouping(trainer, source),
        epochs=tuple(epochs),
        kept_epoch=trainer.state.best_epoch or trainer.state.epochs,
        seconds=sum(report.seconds for report in epochs),
        memory_mb=memory_mb(),
    )


def of_baseline(
    scorer: evaluate.Scorer, source: Source, method: str, protocols: Sequence[Protocol], *, seconds: float
) -> Outcome:
    """Evaluate a method that is not trained by epochs."""
    return Outcome(
        method=method,
        data=source.name,
        seed=0,
        config=None,
        protocols=tuple(protocols),
        results=tuple(evaluate.results(scorer, source.data, protocols)),
        grouping=None,
        epochs=(),
        kept_epoch=0,
        seconds=seconds,
        memory_mb=memory_mb(),
    )


def memory_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _grouping(trainer: Trainer, source: Source) -> Grouping | None:
    groups, config = trainer.state.groups(), trainer.config.grouping
    if config is None or not len(groups.centers_GD):
        return None
    own, truth = groups.assignment_U, source.truth_U
    taken = own >= 0
    return Grouping(
        identifier=config.identify.identifier,
        sizes=tuple(np.sort(groups.sizes)[::-1].tolist()),
        silhouette=agreement.silhouette(trainer.vectors()[0], own),
        adjusted_rand=None if truth is None else agreement.adjusted_rand(own[taken], truth[taken]),
    )
