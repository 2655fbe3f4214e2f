"""What a run tells: one JSON line per step (the source of truth), one per probing, and TensorBoard curves. Rank 0 only.

The fields of a row but `TIMING` are deterministic: the rows of a run that was killed and resumed equal those of an
undisturbed one. Hence rows behind the step that is resumed from are dropped.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import record
from pipeline.store import Store
from train import rows
from train.loggers import Beside, Board, Logger
from train.rows import RowFile

METRICS_NAME = "metrics.jsonl"
PROBES_NAME = "probes.jsonl"
BOARD_NAME = "tensorboard"
TIMING = ("pace",)
"""Fields that no two runs share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a step went, seen from rank 0."""

    seconds: float
    """From the end of the step before to the end of this one."""
    samples_per_s: float
    """Over all ranks."""
    data_wait_share: float
    """Share of the step in which rank 0 waited for its batch."""
    mfu: float | None
    """Model FLOPs utilisation: the model's operations over what all devices could do; None where that is not known."""
    read_mb_per_s: float
    """Megabytes that rank 0 read from the store."""
    cache_hit_share: float | None
    """Of rank 0's samples; None without a cache."""
    retries: int
    """Reads of rank 0 that failed on their way and were tried again."""
    memory_mb: float
    """Largest memory of rank 0 so far: of its GPU, or of its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step."""

    step: int
    """Steps done, this one included."""
    samples: int
    """Samples consumed over all ranks, this step's included."""
    loss: float
    """Mean over the global batch."""
    parts: Mapping[str, float]
    """Of the loss."""
    lr: float
    """Learning rate of this step."""
    grad_norm: float
    """Before clipping."""
    batch_hash: str
    """Hex. Sum of a hash of each (sample id, epoch) that was learned from, in any order."""
    quarantined: int
    """Samples of the global batch that are damaged in the store, and that others stand in for."""
    skipped: bool
    """Not learned from: not finite, or far out of the usual."""
    pace: Pace
    """How it went."""


def steady(row: Mapping[str, Any]) -> dict[str, Any]:
    """The deterministic fields of a row."""
    return {name: value for name, value in row.items() if name not in TIMING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What probes found behind one step; all of it is deterministic."""

    step: int
    """Steps done, this one included."""
    samples: int
    """Samples consumed over all ranks."""
    val_samples: int
    """Samples of the validation split that were looked at."""
    values: Mapping[str, float]
    """By name of the probe."""


def read_rows(store: Store, name: str = METRICS_NAME) -> list[dict[str, Any]]:
    """The rows of a run; a last line that a kill cut short is left out."""
    return rows.read(store, name)


class Meter:
    """Writes what a run tells: to local files as it comes, to any other store whole at each `publish`."""

    def __init__(
        self,
        store: Store,
        *,
        resumed_step: int,
        say: Callable[[str], None],
        services: Mapping[str, Callable[[], Logger]] | None = None,
    ) -> None:
        """Drop the rows behind `resumed_step` and go on from there; `services` begin beside TensorBoard."""
        self._store, self._resumed = store, resumed_step
        self._steps = RowFile(store, METRICS_NAME, resumed_step=resumed_step)
        self._probes = self._probe_file() if store.exists(PROBES_NAME) else None
        begin = dict(services or {})
        if store.is_local:
            # Two threads that import at once may meet a half-made module.
            with suppress(Exception):
                import_module("torch.utils.tensorboard")
            begin["TensorBoard"] = lambda: Board(Path(store.path(BOARD_NAME)), resumed_step)
        self._loggers = [Beside(name, one, say) for name, one in begin.items()]
        if not store.is_local:
            say(f"TensorBoard writes to local folders only: {METRICS_NAME} in {store.url} has what it would show.")

    def write(self, row: Row) -> None:
        """Add a step.

        Raises:
            SourceError: the disk is full.
        """
        for logger in self._loggers:
            logger.write(_curves(row), row.step)
        self._steps.write(record.to_json(row))

    def probed(self, found: Probed, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add what probes found; `pictures` (rows, H, W, 3), by sensor, go beside the curves.

        Raises:
            SourceError: the disk is full.
        """
        for logger in self._loggers:
            logger.write({f"probe/{name}": value for name, value in found.values.items()}, found.step)
            logger.draw({f"reconstruction/{name}": rows for name, rows in pictures.items()}, found.step)
        self._probes = self._probes or self._probe_file()
        self._probes.write(record.to_json(found))

    def publish(self) -> None:
        """Make all rows so far readable; call it before a checkpoint is committed."""
        for file in self._files:
            file.publish()

    def close(self) -> None:
        """Finish the files."""
        for file in self._files:
            file.close()
        for logger in self._loggers:
            logger.close()

    @property
    def _files(self) -> list[RowFile]:
        return [self._steps] if self._probes is None else [self._steps, self._probes]

    def _probe_file(self) -> RowFile:
        return RowFile(self._store, PROBES_NAME, resumed_step=self._resumed)


def _curves(row: Row) -> dict[str, float]:
    curves = {"loss": row.loss, **{f"loss/{name}": value for name, value in row.parts.items()}}
    curves |= {"lr": row.lr, "grad_norm": row.grad_norm, "skipped": float(row.skipped)}
    curves["quarantined"] = float(row.quarantined)
    pace = {name: getattr(row.pace, name) for name in Pace.__dataclass_fields__}
    return curves | {f"pace/{name}": value for name, value in pace.items() if value is not None}
