"""What a run tells: one JSON line per step (the source of truth) and TensorBoard curves. Rank 0 only.

The fields of a row but `TIMING` are deterministic: the rows of a run that was killed and resumed equal those of an
undisturbed one. Hence rows behind the step that is resumed from are dropped.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline import record
from pipeline.errors import SourceError
from pipeline.store import Store

METRICS_NAME = "metrics.jsonl"
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


def read_rows(store: Store) -> list[dict[str, Any]]:
    """The rows of a run; a last line that a kill cut short is left out."""
    try:
        lines = store.read(METRICS_NAME).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := _parse(line)) is not None]


class Meter:
    """Writes rows: to a local file as they come, to any other store whole at each `publish`."""

    def __init__(self, store: Store, *, resumed_step: int, say: Callable[[str], None]) -> None:
        """Drop the rows behind `resumed_step` and go on from there."""
        kept = [row for row in read_rows(store) if row["step"] <= resumed_step]
        self._store = store
        self._lines = [_line(row) for row in kept]
        self._board = Board(Path(store.path(BOARD_NAME)), resumed_step, say) if store.is_local else None
        if self._board is None:
            say(f"TensorBoard writes to local folders only: {METRICS_NAME} in {store.url} is all there is.")
        self._file: TextIO | None = None
        self.publish()
        if store.is_local:
            self._lines = []
            self._file = Path(store.path(METRICS_NAME)).open("a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def write(self, row: Row) -> None:
        """Add a step.

        Raises:
            SourceError: the disk is full.
        """
        line = _line(record.to_json(row))
        if self._board is not None:
            self._board.write(row)
        if self._file is None:
            self._lines.append(line)
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise SourceError(
                f"{METRICS_NAME} of {self._store.url} failed: {error}. Make room, then resume."
            ) from error

    def publish(self) -> None:
        """Make all rows so far readable; call it before a checkpoint is committed."""
        if self._file is None:
            self._store.publish(METRICS_NAME, "".join(self._lines).encode())

    def close(self) -> None:
        """Finish the files."""
        self.publish()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class Board:
    """TensorBoard curves; a failure ends them and not the run."""

    def __init__(self, folder: Path, resumed_step: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._writer: Any = None
        self._try(lambda: self._open(folder, resumed_step))

    def write(self, row: Row) -> None:
        """Add a step to every curve."""
        if self._writer is None:
            return
        curves = {"loss": row.loss, **{f"loss/{name}": value for name, value in row.parts.items()}}
        curves |= {"lr": row.lr, "grad_norm": row.grad_norm, "skipped": float(row.skipped)}
        curves["quarantined"] = float(row.quarantined)
        pace = {name: getattr(row.pace, name) for name in Pace.__dataclass_fields__}
        curves |= {f"pace/{name}": value for name, value in pace.items() if value is not None}
        self._try(lambda: self._add(curves, row.step))

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


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row
