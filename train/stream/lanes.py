"""Lanes: which sample is read when, as a pure function of (seed, epoch, shard sizes). No file, no thread, no torch.

An epoch's shards are permuted and laid end to end, and the line is cut at exact sample boundaries into L lanes. Step k
takes `[k g, (k + 1) g)` of every lane, g = global batch / L, and rank r of R owns the lanes `[r L / R, (r + 1) L / R)`:
the global batch does not depend on R. A lane runs on into the next epoch, so there is no last, shorter batch.

Slot p of lane l is the `p L + l`-th sample of the run, and its epoch is `(p L + l) // N`. Hence lanes stay within one
sample of each other for ever, an epoch is exactly N consecutive samples, and any position is found without replaying.

Why more lanes and not a shuffle buffer: a batch touches up to L shards, so a window of one or two shards mixes well,
and there is no buffer to restore. Permutations come from raw Philox bits, which numpy never changes between versions.

Axes: S shards.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StreamError

PLAN_VERSION = 1
"""Raised whenever the same seed would give another order."""
MAX_LANES = 240
"""Divides CROMA's batch of 7,200 and has twenty divisors: world sizes to choose from."""

Ids = NDArray[np.int64]


class Plan(Protocol):
    """Which samples each rank reads in each step."""

    @property
    def seed(self) -> int:
        """Of all that is drawn for a sample."""

    @property
    def lanes(self) -> int:
        """L."""

    @property
    def global_batch(self) -> int:
        """Samples of one step over all ranks."""

    @property
    def steps(self) -> int | None:
        """How many there are; None: no end."""

    def check_world_size(self, world_size: int) -> None:
        """Raise StreamError unless all of `world_size` ranks get equally much."""

    def batch(self, step: int, rank: int, world_size: int) -> tuple[Ids, Ids]:
        """Sample ids and their epochs, (global_batch / world_size,) each."""

    def valid(self, step: int, rank: int, world_size: int) -> NDArray[np.bool_]:
        """Which rows of that batch count."""

    def shards(self, step: int, rank: int, world_size: int) -> list[int]:
        """Numbers of the shards that are read from in that step, and around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Epoch:
    """The line of one epoch's shards."""

    shards_S: Ids
    """Shard numbers in this epoch's order."""
    bounds_S: Ids
    """Where each shard begins on the line; one more for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """A part of a lane that is shuffled as a whole."""

    first: int
    """Lane slot of its first sample, within the epoch."""
    ids: NDArray[np.unsignedinteger]
    """Sample ids in the order in which they are read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanePlan:
    """The order of all samples of an endless run. Remembers one window per lane: use it from one thread."""

    shard_sizes: Sequence[int] | Ids
    """Samples of each shard; sample ids count through them."""
    lanes: int
    """L. Every world size that divides it is legal."""
    global_batch: int
    """Samples of one step over all ranks; a multiple of L."""
    seed: int
    """Of all permutations."""
    window: int = 2
    """Shards of a lane that are shuffled together."""
    _starts: Ids = field(init=False, repr=False)
    _epochs: dict[int, _Epoch] = field(init=False, repr=False, default_factory=dict)
    _windows: dict[int, tuple[int, _Window]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be dealt fairly."""
        sizes = np.asarray(self.shard_sizes, np.int64)
        object.__setattr__(self, "_starts", np.concatenate(([0], sizes.cumsum())))
        if self.lanes < 1 or self.window < 1:
            raise StreamError(f"{self.lanes} lanes with a window of {self.window} shards: both must be 1 or more.")
        if self.global_batch < 1 or self.global_batch % self.lanes:
            raise StreamError(
                f"a global batch of {self.global_batch} cannot be taken evenly from {self.lanes} lanes. "
                f"Use a multiple of {self.lanes}, or one of {divisors(self.global_batch)} lanes."
            )
        if self.samples < self.lanes:
            raise StreamError(
                f"{self.samples} samples cannot fill {self.lanes} lanes. Ingest more, or use fewer lanes: "
                f"{[n for n in divisors(self.global_batch) if n <= self.samples]}."
            )

    @property
    def samples(self) -> int:
        """N, samples of an epoch."""
        return int(self._starts[-1])

    @property
    def steps(self) -> None:
        """There is no last one."""

    def check_world_size(self, world_size: int) -> None:
        """Raise StreamError unless `world_size` ranks get equally many lanes."""
        if world_size < 1 or self.lanes % world_size:
            raise StreamError(
                f"{self.lanes} lanes cannot be shared by {world_size} ranks. Start {divisors(self.lanes)} ranks, "
                "or train with a global batch that your number of ranks divides."
            )

    def batch(self, step: int, rank: int, world_size: int) -> tuple[Ids, Ids]:
        """What `rank` reads in `step`.

        Returns:
            Sample ids and their epochs, (global_batch / world_size,) each, lane by lane: joined in rank order they are
            the same at every legal world size.

        Raises:
            StreamError: `world_size` does not divide the lanes.
        """
        self.check_world_size(world_size)
        per_lane, owned = self.global_batch // self.lanes, self.lanes // world_size
        lanes = np.repeat(np.arange(rank * owned, (rank + 1) * owned), per_lane)
        slots = np.tile(np.arange(step * per_lane, (step + 1) * per_lane), owned)
        epochs = (slots * self.lanes + lanes) // self.samples
        ids = [self._sample(*place) for place in zip(lanes.tolist(), epochs.tolist(), slots.tolist(), strict=True)]
        return np.array(ids, np.int64), epochs

    def valid(self, step: int, rank: int, world_size: int) -> NDArray[np.bool_]:  # noqa: ARG002 - of the protocol
        """All rows count."""
        return np.ones(self.global_batch // world_size, bool)

    def shards(self, step: int, rank: int, world_size: int) -> list[int]:
        """Numbers of the shards in the windows that `rank` reads from in `step`, lane by lane, each once.

        Raises:
            StreamError: `world_size` does not divide the lanes.
        """
        self.check_world_size(world_size)
        per_lane, owned = self.global_batch // self.lanes, self.lanes // world_size
        found: dict[int, None] = {}
        for lane in range(rank * owned, (rank + 1) * owned):
            slot = step * per_lane
            while slot < (step + 1) * per_lane:
                epoch = (slot * self.lanes + lane) // self.samples
                before = self._slots_before(epoch, lane)
                places, last = self._places(epoch, lane, slot - before)
                found |= dict.fromkeys(self._line(epoch).shards_S[places.start : places.stop].tolist())
                slot = before + last
        return list(found)

    def _sample(self, lane: int, epoch: int, slot: int) -> int:
        """The sample at a lane's slot."""
        offset = slot - self._slots_before(epoch, lane)
        known_epoch, window = self._windows.get(lane, (-1, None))
        if window is None or known_epoch != epoch or not 0 <= offset - window.first < window.ids.size:
            window = self._window(epoch, lane, offset)
            self._windows[lane] = epoch, window
        return int(window.ids[offset - window.first])

    def _slots_before(self, epoch: int, lane: int) -> int:
        """How many slots of `lane` lie in earlier epochs."""
        return (epoch * self.samples + self.lanes - 1 - lane) // self.lanes

    def _cut(self, epoch: int, lane: int) -> int:
        """Where `lane` begins on the line of `epoch`: the sum of `_slots_before`'s growth over the lanes before it."""
        whole, rest = divmod(epoch * self.samples, self.lanes)
        next_whole, next_rest = divmod((epoch + 1) * self.samples, self.lanes)
        return lane * (next_whole - whole) + min(lane, next_rest) - min(lane, rest)

    def _window(self, epoch: int, lane: int, offset: int) -> _Window:
        """The shuffled window of `lane` that holds its `offset`-th sample of `epoch`."""
        start, stop = self._cut(epoch, lane), self._cut(epoch, lane + 1)
        places, _ = self._places(epoch, lane, offset)
        ids = np.concatenate([self._piece(epoch, place, (start, stop)) for place in places])
        bounds_S = self._line(epoch).bounds_S
        number = (places.start - int(np.searchsorted(bounds_S, start, "right")) + 1) // self.window
        order = permutation(ids.size, self.seed, "window", epoch, lane, number)
        return _Window(first=max(int(bounds_S[places.start]) - start, 0), ids=ids[order])

    def _places(self, epoch: int, lane: int, offset: int) -> tuple[range, int]:
        """Places on the line of the window that holds `lane`'s `offset`-th sample, and the offset behind its last."""
        bounds_S = self._line(epoch).bounds_S
        start, stop = self._cut(epoch, lane), self._cut(epoch, lane + 1)
        first = int(np.searchsorted(bounds_S, start, "right")) - 1
        here = int(np.searchsorted(bounds_S, start + offset, "right")) - 1
        begin = first + (here - first) // self.window * self.window
        places = range(begin, min(begin + self.window, bounds_S.size - 1))
        return places, min(int(bounds_S[places.stop]), stop) - start

    def _piece(self, epoch: int, place: int, cut: tuple[int, int]) -> NDArray[np.unsignedinteger]:
        """Ids of the samples of the shard at `place` on the line that lie within `cut`."""
        line = self._line(epoch)
        shard, begin, end = int(line.shards_S[place]), int(line.bounds_S[place]), int(line.bounds_S[place + 1])
        start, stop = max(cut[0], begin) - begin, min(cut[1], end) - begin
        dtype = np.uint32 if self.samples < 2**32 else np.uint64
        if stop <= start:
            return np.empty(0, dtype)
        whole = start == 0 and stop == end - begin
        order = np.arange(stop) if whole else permutation(end - begin, self.seed, "split", epoch, shard)[start:stop]
        ids: NDArray[np.unsignedinteger] = (order + self._starts[shard]).astype(dtype)
        return ids

    def _line(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            shards = permutation(self._starts.size - 1, self.seed, "shards", epoch)
            bounds = np.concatenate(([0], np.diff(self._starts)[shards].cumsum()))
            for old in sorted(self._epochs)[:-1]:
                del self._epochs[old]
            self._epochs[epoch] = _Epoch(shards_S=shards, bounds_S=bounds)
        return self._epochs[epoch]


def permutation(size: int, *key: int | str) -> Ids:
    """A permutation of `range(size)` that depends on `key` alone.

    Sorting random numbers that carry their index in the low bits: no ties, so every sorting algorithm agrees.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    bits = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(size)
    low = np.uint64((1 << max(size - 1, 1).bit_length()) - 1)
    tagged = (bits & ~low) | np.arange(size, dtype=np.uint64)
    tagged.sort()
    return (tagged & low).astype(np.int64)


def divisors(number: int) -> list[int]:
    """All divisors, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def default_lanes(global_batch: int, samples: int) -> int:
    """The largest divisor of the global batch up to `MAX_LANES` that the samples can fill.

    >>> default_lanes(7200, 1_000_000)
    240
    """
    return max((n for n in divisors(global_batch) if n <= min(MAX_LANES, samples)), default=1)
