"""Who reads the rows of batches: threads of this process, or of others.

Threads of this process cost nothing to start and suffice for about ten cores. Beyond that, and beside a step that
launches thousands of GPU kernels, all wait for the interpreter's lock: `processes` then reads elsewhere.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from train.stream.config import Share, StreamConfig
from train.stream.ring import Slot, new_slot
from train.stream.rows import Filler, Row

_TASKS = 4
"""Pieces of a batch for each reader: few, since each costs a lock, but more than one, since they end at different
times."""


class Readers(Protocol):
    """Fill slots."""

    def slot(self, rows: int) -> Slot:
        """New room for a batch of `rows`, which these readers can fill."""

    def fill(self, slot: Slot, rows: Sequence[Row]) -> list[Future[None]]:
        """Begin to read `rows` into `slot`; it is filled when all that is returned is done."""

    def want(self, shards: Iterable[str]) -> None:
        """Told which shards are read now and next, as a `Source` is."""

    def close(self) -> None:
        """End; what has not begun is dropped."""


class Threads:
    """Of this process."""

    def __init__(self, filler: Filler, config: StreamConfig, share: Share) -> None:
        """No byte is read yet."""
        self._filler, self._config, self._share = filler, config, share
        self._pool = ThreadPoolExecutor(share.threads, thread_name_prefix="samples")

    def slot(self, rows: int) -> Slot:
        """As the protocol says; page-locked for a GPU."""
        pinned = torch.device(self._share.device).type == "cuda"
        return new_slot(self._filler.samples, self._config, rows=rows, pinned=pinned)

    def fill(self, slot: Slot, rows: Sequence[Row]) -> list[Future[None]]:
        """As the protocol says."""
        return [self._pool.submit(self._filler.fill, slot, piece) for piece in pieces(rows, self._share.threads)]

    def want(self, shards: Iterable[str]) -> None:
        """As the protocol says."""
        self._filler.samples.source.want(shards)

    def close(self) -> None:
        """As the protocol says."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._filler.samples.source.close()


def pieces(rows: Sequence[Row], readers: int) -> list[Sequence[Row]]:
    """The rows in parts for so many readers."""
    size = max(1, len(rows) // (_TASKS * readers))
    return [rows[first : first + size] for first in range(0, len(rows), size)]
