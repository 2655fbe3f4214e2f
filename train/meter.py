"""What a run tells: one JSON line per step (the source of truth), one per probing, and TensorBoard curves. Rank 0 only.

The fields of a row but `TIMING` are deterministic: the rows of a run that was killed and resumed equal those of an
undisturbed one. Hence rows behind the step that is resumed from are dropped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import record
from pipeline.store import Store
from train import rows
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

    def __init__(self, store: Store, *, resumed_step: int, say: Callable[[str], None]) -> None:
        """Drop the rows behind `resumed_step` and go on from there."""
        self._store, self._resumed = store, resumed_step
        self._steps = RowFile(store, METRICS_NAME, resumed_step=resumed_step)
        self._probes = self._probe_file() if store.exists(PROBES_NAME) else None
        self._board = Board(Path(store.path(BOARD_NAME)), resumed_step, say) if store.is_local else None
        if self._board is None:
            say(f"TensorBoard writes to local folders only: {METRICS_NAME} in {store.url} is all there is.")

    def write(self, row: Row) -> None:
        """Add a step.

        Raises:
            SourceError: the disk is full.
        """
        if self._board is not None:
            self._board.write(_curves(row), row.step)
        self._steps.write(record.to_json(row))

    def probed(self, found: Probed, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add what probes found; `pictures` (rows, H, W, 3), by sensor, go beside the curves.

        Raises:
            SourceError: the disk is full.
        """
        if self._board is not None:
            self._board.write({f"probe/{name}": value for name, value in found.values.items()}, found.step)
            self._board.draw({f"reconstruction/{name}": rows for name, rows in pictures.items()}, found.step)
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
        if self._board is not None:
            self._board.close()

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


class Board:
    """TensorBoard curves; a failure ends them and not the run."""

    def __init__(self, folder: Path, resumed_step: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._writer: Any = None
        self._try(lambda: self._open(folder, resumed_step))

    def write(self, curves: Mapping[str, float], step: int) -> None:
        """Add a step to some curves."""
        if self._writer is not None:
            self._try(lambda: self._add(curves, step))

    def draw(self, pictures: Mapping[str, NDArray[np.uint8]], step: int) -> None:
        """Add pictures, (rows, H, W, 3) uint8 each, one row below the other."""
        for name, rows_RHWC in pictures.items():
            if self._writer is not None:
                tall_HWC = rows_RHWC.reshape(-1, *rows_RHWC.shape[2:])
                self._try(partial(self._writer.add_image, name, tall_HWC, step, dataformats="HWC"))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _open(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only rank 0 needs it

        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1)

    def _add(self, curves: Mapping[str, float], step: int) -> None:
        for name, value in curves.items():
            self._writer.add_scalar(name, value, step)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, curves are not worth a run
            self._writer = None
            self._say(f"TensorBoard failed and is off: {error!r}. {METRICS_NAME} goes on.")
