"""Batches of samples, in the order of the lanes, read ahead by threads.

Each batch comes with the state to resume behind it. Why threads and not worker processes: reading and decoding release
the interpreter lock, nothing is pickled, and a forked S3 client hangs.

Axes: B batch, C bands, H W pixels.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.codec import Kind
from pipeline.sample import SampleMeta
from train.batch import Batch
from train.stream.lanes import PLAN_VERSION, Ids, LanePlan
from train.stream.normalise import Constants, Scale, constants, normalise
from train.stream.samples import Samples
from train.stream.transforms import (
    Augment,
    Placement,
    check_frames,
    check_size,
    crop,
    frame_picks,
    placements,
    resize,
    turn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What a recipe says about its data."""

    global_batch: int
    """Samples of one step over all ranks."""
    kind: Kind = "pair"
    """What the data set holds."""
    frames: int | None = None
    """Of a stack: how many of its dates are drawn for each reading, in order; None: all, or a pair."""
    s1_bands: tuple[str, ...] = ()
    """By name; none: S1 is not read."""
    s2_bands: tuple[str, ...] = ()
    """By name; none: S2 is not read."""
    image_px: int
    """Pixels. Side of the images cut from chips."""
    augment: Augment = Augment()  # noqa: RUF009 - frozen
    """How they are cut."""
    scale: Scale = "two_sigma"
    """How stored values become a model's input."""
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

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """By sensor, for those that are read."""
        return {name: bands for name, bands in (("s1", self.s1_bands), ("s2", self.s2_bands)) if bands}


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
    images: Mapping[str, Tensor]
    """By sensor, (B, ..., C, H, W), filled by the readers."""
    dates: Tensor | None
    """(B, T, 3) of stacks, filled by the readers."""
    rows: list[Future[None]]
    """One per sample."""


class Loader(Iterator[tuple[Batch, StreamState]]):
    """An endless iterator of one rank's batches. Close it, or use it as a context manager: it owns threads."""

    def __init__(
        self, samples: Samples, plan: LanePlan, config: StreamConfig, *, share: Share, samples_consumed: int = 0
    ):
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
        self._readers = ThreadPoolExecutor(share.threads, thread_name_prefix="samples")

    def __next__(self) -> tuple[Batch, StreamState]:
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
            index_sha256=self._samples.known.index_sha256,
            seed=self._plan.seed,
            lanes=self._plan.lanes,
            samples_consumed=self._step * self._plan.global_batch,
        )

    def _start(self, step: int) -> _Pending:
        ids, epochs = self._plan.batch(step, self._share.rank, self._share.world_size)
        images, frames = self._buffers(len(ids)), self._frames()
        dates = None if frames is None else torch.empty(len(ids), frames, 3, dtype=torch.int64)
        cuts = placements(
            self._plan.seed,
            epochs,
            ids,
            chip_px=self._samples.known.chip_px,
            image_px=self._config.image_px,
            augment=self._config.augment,
        )
        picks = frame_picks(self._plan.seed, epochs, ids, stored=self._samples.frames, wanted=frames)
        rows = [
            self._readers.submit(self._fill, (int(sample_id), cut, pick), row=row, images=images, dates=dates)
            for row, (sample_id, cut, pick) in enumerate(zip(ids, cuts, picks, strict=True))
        ]
        return _Pending(ids=ids, epochs=epochs, images=images, dates=dates, rows=rows)

    def _buffers(self, rows: int) -> dict[str, Tensor]:
        """Room for the images: as stored, or already normalised where they are resized."""
        side, stored = self._config.image_px, {"s1": torch.float32, "s2": torch.uint16}
        dtypes = dict.fromkeys(stored, torch.float32) if self._config.augment.resizes else stored
        frames, bands = self._frames(), self._config.bands
        lead = (rows,) if frames is None else (rows, frames)
        return {name: torch.empty(*lead, len(bands[name]), side, side, dtype=dtypes[name]) for name in bands}

    def _frames(self) -> int | None:
        return self._config.frames or self._samples.frames

    def _fill(
        self,
        work: tuple[int, Placement, list[int]],
        *,
        row: int,
        images: Mapping[str, Tensor],
        dates: Tensor | None,
    ) -> None:
        sample_id, cut, pick = work
        chips = self._samples.read(sample_id)
        for name, buffer in images.items():
            chip = chips.images[name] if dates is None else chips.images[name][pick]
            buffer[row].numpy()[:] = turn(self._cut(name, chip, cut), cut)
        if dates is not None:
            dates[row] = calendar(chips.meta, pick)

    def _cut(self, name: str, chip: NDArray[Any], cut: Placement) -> NDArray[Any]:
        part = crop(chip, cut)
        if not self._config.augment.resizes:
            return part
        values = self._normalise(name, torch.from_numpy(np.ascontiguousarray(part)))
        resized: NDArray[Any] = resize(values, self._config.image_px, self._config.image_px).numpy()
        return resized

    def _normalise(self, name: str, image: Tensor) -> Tensor:
        return normalise(image, self._constants[name], scale=self._config.scale)

    def _batch(self, done: _Pending) -> Batch:
        device = self._share.device
        images = {name: image.to(device, non_blocking=True) for name, image in done.images.items()}
        if not self._config.augment.resizes:
            images = {name: self._normalise(name, image) for name, image in images.items()}
        return Batch(
            images=images,
            dates_BT3=None if done.dates is None else done.dates.to(device),
            keys=tuple(self._samples.key(int(sample_id)) for sample_id in done.ids),
            sample_ids_B=torch.from_numpy(done.ids).to(device),
            epochs_B=torch.from_numpy(done.epochs).to(device),
        )


def calendar(meta: SampleMeta | None, frames: Sequence[int]) -> Tensor:
    """Year, month and hour (UTC) of some frames of a stack, (T, 3) int64."""
    acquired = [] if meta is None else [meta.acquired[frame] for frame in frames]
    return torch.tensor([(when.year, when.month, when.hour) for when in acquired])


def stretches(samples: Samples, config: StreamConfig) -> dict[str, Constants]:
    """What to normalise each sensor with: the recipe's constants, or the data set's statistics."""
    own = {"s1": config.s1_constants, "s2": config.s2_constants}
    stats = {"s1": samples.stats.s1, "s2": samples.stats.s2}
    return {name: own[name] or constants(stats[name], bands) for name, bands in config.bands.items()}
