"""What a run's folder tells, as far as it is there; nothing is computed, and no checkpoint is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import record
from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train import checkpoint, fence, meter, rows
from train.door import RUN_NAME
from train.features import RUNS
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.reporting import history
from train.reporting.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """One run, finished or not."""

    store: Store
    """Its folder."""
    began: Mapping[str, Any]
    """What it wrote down when it began; empty where that is gone."""
    recipe: CromaRun | SatmaeRun | None
    """What it computes; None where this release cannot read it."""
    history: History
    """What was written down of each step."""
    probes: Sequence[Mapping[str, Any]]
    """One a probing."""
    checkpoints: tuple[int, ...]
    """Steps of those that are finished."""
    attempts: int
    """How often it was started."""
    resumed: tuple[int, ...]
    """Steps that were done when an attempt went on, ascending."""

    @property
    def name(self) -> str:
        """Of its folder, as it was when the run began."""
        url = str(self.began.get("out") or self.store.url)
        return url.rstrip("/").rpartition("/")[2] or url

    @property
    def done(self) -> int:
        """Steps."""
        return int(self.history.column("step")[-1]) if len(self.history) else 0

    @property
    def data(self) -> str | None:
        """Where its data set lay, redacted."""
        found = self.began.get("data")
        return None if found is None else str(found)


def open_run(url: str) -> RunFolder:
    """The run at `url`.

    Raises:
        UsageError: there is none.
        SourceError: the store kept failing.
    """
    store = Store.at(url)
    began, steps = _json(store, RUN_NAME), history.read(store, meter.METRICS_NAME)
    finished = tuple(checkpoint.steps(store))
    if not began and not len(steps) and not finished:
        raise UsageError(
            f"{store.url} has no {RUN_NAME}, no {meter.METRICS_NAME} and no checkpoint, so it is not a run. "
            "Give the --out of train/croma.py or train/satmae.py (a run of train/itr.py has its page by --report)."
        )
    starts = [_json(store, f"{fence.FOLDER}/{number:06d}.json") for number in sorted(fence.numbers(store))]
    return RunFolder(
        store=store,
        began=began,
        recipe=_recipe(began),
        history=steps,
        probes=rows.read(store, meter.PROBES_NAME),
        checkpoints=finished,
        attempts=len(starts),
        resumed=tuple(sorted({int(one["first_step"]) for one in starts[1:] if one.get("first_step")})),
    )


def _json(store: Store, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(store.read(name))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _recipe(began: Mapping[str, Any]) -> CromaRun | SatmaeRun | None:
    told = {"objective": "croma", "ema": None, **began.get("recipe", {})}
    try:
        recipe: CromaRun | SatmaeRun = record.from_json(RUNS[told["objective"]], told, where=RUN_NAME)
    except (PretrainError, KeyError):
        return None
    return recipe
