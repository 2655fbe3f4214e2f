"""Batches of pairs, in the order of the lanes, read ahead by threads.

Each batch comes with the state to resume behind it. Why threads and not worker processes: reading and decoding release
the interpreter lock, nothing is pickled, and a forked S3 client hangs.

Axes: B batch, C bands, H W pixels.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from train.batch import PairBatch
from train.stream.lanes import PLAN_VERSION, Ids, LanePlan
from train.stream.pairs import Pairs
from train.stream.transforms import Constants, Placement, check_size, constants, normalise, place, placements


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What a recipe says about its data."""

    global_batch: int
    """Samples of one step over all ranks."""
    s1_bands: tuple[str, ...]
    """By name."""
    s2_bands: tuple[str, ...]
    """By name."""
    image_px: int
    """Pixels. Side of the images cut from chips."""
    split: str = "train"
    """Of the data set."""
    lanes: int | None = None
    """None: the largest divisor of the global batch up to 240. World sizes must divide it."""
    window: int = 2
    """Shards of a lane that are shuffled together."""
    s1_constants: Constants | None = None
    """dB. None: from the data set's statistics."""
    s2_constants: Constants | None = None
    """Digital numbers. None: from the data set's statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a stream stands: all there is to resume it, on any legal world size."""

    plan_version: int
    """Of `lanes`."""
    index_sha256: str
    """The data set."""
    seed: int
    """Of order and augmentation."""
    lanes: int
    """L."""
    samples_consumed: int
    """Over all ranks, since the run began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of each batch is read here, and how."""

    rank: int = 0
    """Among the ranks of the run."""
    world_size: int = 1
    """Ranks of the run."""
    device: torch.device | str = "cpu"
    """Where batches are put and normalised."""
    threads: int = 4
    """Readers."""
    prefetch: int = 2
    """Batches that are read ahead."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pending:
    """A batch that is being read."""

    ids: Ids
    """(B,) sample ids."""
    epochs: Ids
    """(B,) their epochs."""
    images: tuple[Tensor, Tensor]
    """(B, C, H, W) s1 and s2 as stored, filled by the readers."""
    rows: list[Future[None]]
    """One per sample."""


class PairLoader(Iterator[tuple[PairBatch, StreamState]]):
    """An endless iterator of one rank's batches. Close it, or use it as a context manager: it owns threads."""

    def __init__(self, pairs: Pairs, plan: LanePlan, config: StreamConfig, *, share: Share, samples_consumed: int = 0):
        """Begin behind `samples_consumed`; no byte is read yet.

        Raises:
            StreamError: the world size does not divide the lanes.
            UsageError: chips are smaller than images, or nothing is known to normalise with.
        """
        plan.check_world_size(share.world_size)
        check_size(pairs.chip_px, config.image_px)
        self._pairs, self._plan, self._config, self._share = pairs, plan, config, share
        self._s1 = config.s1_constants or constants(pairs.stats.s1, config.s1_bands)
        self._s2 = config.s2_constants or constants(pairs.stats.s2, config.s2_bands)
        self._step = samples_consumed // plan.global_batch
        self._pending: deque[_Pending] = deque()
        self._readers = ThreadPoolExecutor(share.threads, thread_name_prefix="pairs")

    def __next__(self) -> tuple[PairBatch, StreamState]:
        """The next batch and the state behind it.

        Raises:
            CorruptShard: a sample's bytes are damaged.
            SourceError: the store kept failing.
        """
        while len(self._pending) <= self._share.prefetch:
            self._pending.append(self._start(self._step + len(self._pending)))
        done = self._pending[0]
        for row in done.rows:
            row.result()
        self._pending.popleft()
        self._step += 1
        return self._batch(done), self._state()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the threads."""
        self.close()

    def close(self) -> None:
        """End the threads; reads that have not begun are dropped."""
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _state(self) -> StreamState:
        return StreamState(
            plan_version=PLAN_VERSION,
            index_sha256=self._pairs.index_sha256,
            seed=self._plan.seed,
            lanes=self._plan.lanes,
            samples_consumed=self._step * self._plan.global_batch,
        )

    def _start(self, step: int) -> _Pending:
        ids, epochs = self._plan.batch(step, self._share.rank, self._share.world_size)
        side = self._config.image_px
        s1 = torch.empty(len(ids), len(self._config.s1_bands), side, side, dtype=torch.float32)
        s2 = torch.empty(len(ids), len(self._config.s2_bands), side, side, dtype=torch.uint16)
        cuts = placements(self._plan.seed, epochs, ids, slack_px=self._pairs.chip_px - side)
        rows = [
            self._readers.submit(self._fill, int(sample_id), cut, images=(s1[row].numpy(), s2[row].numpy()))
            for row, (sample_id, cut) in enumerate(zip(ids, cuts, strict=True))
        ]
        return _Pending(ids=ids, epochs=epochs, images=(s1, s2), rows=rows)

    def _fill(self, sample_id: int, cut: Placement, *, images: tuple[NDArray[Any], NDArray[Any]]) -> None:
        s1, s2 = self._pairs.read(sample_id)
        images[0][:] = place(s1, cut, self._config.image_px)
        images[1][:] = place(s2, cut, self._config.image_px)

    def _batch(self, done: _Pending) -> PairBatch:
        device = self._share.device
        s1, s2 = (image.to(device, non_blocking=True) for image in done.images)
        return PairBatch(
            s1_BCHW=normalise(s1, self._s1),
            s2_BCHW=normalise(s2, self._s2),
            keys=tuple(self._pairs.key(int(sample_id)) for sample_id in done.ids),
            sample_ids_B=torch.from_numpy(done.ids).to(device),
            epochs_B=torch.from_numpy(done.epochs).to(device),
        )
