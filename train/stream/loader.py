"""Batches of samples, in the order of a plan, read ahead by threads.

Each batch comes with the state to resume behind it. Why threads and not worker processes: reading and decoding release
the interpreter lock, nothing is pickled, and a forked S3 client hangs. Crops and turns are strided copies that move
fewer bytes to the device than whole chips would; the device normalises and resizes.

Axes: B batch, C bands, H W pixels.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from train.batch import Batch
from train.stream.ahead import Ahead
from train.stream.config import Share, StreamConfig, StreamState
from train.stream.device import Device
from train.stream.lanes import PLAN_VERSION, Ids, Plan
from train.stream.noise import hash64
from train.stream.normalise import Constants, constants
from train.stream.processes import Processes
from train.stream.readers import Readers, Threads
from train.stream.ring import Slot
from train.stream.rows import Filler, rows_of
from train.stream.samples import Samples
from train.stream.transforms import check_frames, check_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pending:
    """A batch that is being read."""

    ids: Ids
    """(B,) sample ids of the plan."""
    epochs: Ids
    """(B,) their epochs."""
    slot: Slot
    """Filled by the readers."""
    parts: list[Future[None]]
    """Done when it is filled."""


class Loader(Iterator[tuple[Batch, StreamState]]):
    """An iterator of one rank's batches, endless if the plan is. Close it, or use it as a context manager."""

    def __init__(self, samples: Samples, plan: Plan, config: StreamConfig, *, share: Share, samples_consumed: int = 0):
        """Begin behind `samples_consumed`; no byte is read yet.

        Raises:
            StreamError: the world size does not divide the lanes.
            UsageError: chips are smaller than images, or nothing is known to normalise with.
        """
        plan.check_world_size(share.world_size)
        check_size(samples.known.chip_px, config.image_px, config.augment)
        check_frames(samples.frames, config.frames)
        self._samples, self._plan, self._config, self._share = samples, plan, config, share
        self._constants = stretches(samples, config)
        self._step = samples_consumed // plan.global_batch
        self._pending: deque[_Pending] = deque()
        self._slots: list[Slot] = []
        self._device = Device(share.device)
        filler = Filler(samples=samples, seed=plan.seed, on_corrupt=share.on_corrupt)
        self._readers: Readers = (Processes if share.processes else Threads)(filler, config, share)
        self._ahead = Ahead(samples, plan, share, self._readers.want)

    def __next__(self) -> tuple[Batch, StreamState]:
        """The next batch and the state behind it.

        Raises:
            StopIteration: the plan has ended.
            CorruptShard: a sample's bytes are damaged.
            SourceError: the store kept failing.
            StreamError: a process that reads has ended.
        """
        self._read_ahead()
        if not self._pending:
            raise StopIteration
        done = self._pending[0]
        for part in done.parts:
            part.result()
        self._pending.popleft()
        self._step += 1
        return self._batch(done), self._state()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the readers."""
        self.close()

    def close(self) -> None:
        """End the readers; what has not begun is dropped."""
        self._readers.close()

    def _state(self) -> StreamState:
        return StreamState(
            plan_version=PLAN_VERSION,
            index_sha256=self._samples.known.index_sha256,
            seed=self._plan.seed,
            lanes=self._plan.lanes,
            samples_consumed=self._step * self._plan.global_batch,
        )

    def _read_ahead(self) -> None:
        """Start reading the batches that follow, as many as the plan has and the ring may hold."""
        while len(self._pending) <= self._share.prefetch:
            step = self._step + len(self._pending)
            if self._plan.steps is not None and step >= self._plan.steps:
                return
            self._ahead.tell(step)
            self._pending.append(self._start(step))

    def _start(self, step: int) -> _Pending:
        ids, epochs = self._plan.batch(step, self._share.rank, self._share.world_size)
        rows = rows_of(self._samples, self._config, seed=self._plan.seed, ids=ids, epochs=epochs)
        slot = self._slots.pop().free() if self._slots else self._readers.slot(len(ids))
        slot.name(ids, epochs, self._plan.valid(step, self._share.rank, self._share.world_size))
        return _Pending(ids=ids, epochs=epochs, slot=slot, parts=self._readers.fill(slot, rows))

    def _batch(self, done: _Pending) -> Batch:
        made, taken = self._device.take(done.slot, self._config, self._constants), done.slot.taken()
        self._slots.append(done.slot)
        return Batch(
            images={name: made[name] for name in done.slot.images},
            dates_BT3=made.get("dates"),
            keys=self._samples.keys(taken),
            hashes_B=hash64(0, torch.from_numpy(done.epochs), torch.from_numpy(taken), purpose="batch"),
            sample_ids_B=made["ids"],
            epochs_B=made["epochs"],
            valid_B=made["valid"],
            damaged=tuple(done.ids[taken != done.ids].tolist()),
        )


def stretches(samples: Samples, config: StreamConfig) -> dict[str, Constants]:
    """What to normalise each sensor with: the recipe's constants, or the data set's statistics."""
    own = {"s1": config.s1_constants, "s2": config.s2_constants}
    stats = {"s1": samples.stats.s1, "s2": samples.stats.s2}
    return {name: own[name] or constants(stats[name], bands) for name, bands in config.bands.items()}
