"""Checkpoints written beside the training: the loop stops for a copy of the tensors, a thread does the rest."""

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from torch import Tensor

from pipeline.errors import PretrainError
from pipeline.store import Store
from train import checkpoint
from train.checkpoint import Checkpoint
from train.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which checkpoints stay."""

    newest: int = 2
    """How many: the last, and one to fall back on."""
    every: int | None = None
    """Steps. Besides, those of every so many steps; None: no others."""


class Saver:
    """Writes one checkpoint at a time. Use it as a context manager: it owns a thread."""

    def __init__(self, store: Store, *, keep: Keep, check: Callable[[], None]) -> None:
        """`check` is called before each object is written, and raises where nothing may be written any more."""
        self._store, self._keep, self._check = store, keep, check
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")

    def save(self, made: Checkpoint) -> None:
        """Begin to write `made`, once the one before is written.

        Raises:
            PretrainError: the one before could not be written.
        """
        self.wait()
        copied = dataclasses.replace(made, model=_copies(made.model), optimizer=_copies(made.optimizer))
        self._writing = self._thread.submit(
            checkpoint.save, self._store, copied, keep=self._keep.newest, every=self._keep.every, check=self._check
        )

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            PretrainError: it could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def failed(self) -> PretrainError | None:
        """What went wrong, if that is known already; does not wait."""
        if self._writing is None or not self._writing.done():
            return None
        error = self._writing.exception()
        if error is not None and not isinstance(error, PretrainError):
            raise error
        return error

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """What has begun is finished, and the thread ends."""
        self._thread.shutdown(wait=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writer:
    """All that a run writes while it trains."""

    meter: Meter
    """Its rows."""
    saver: Saver
    """Its checkpoints."""
    check: Callable[[], None]
    """Raises where nothing may be written any more."""

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """What has begun is finished, then the files are closed."""
        with closing(self.meter), self.saver:
            pass


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, apart from what the next step changes."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
