"""One pass in order: every sample once, or a fixed few; the last batch filled up with rows that do not count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StreamError
from train.stream.lanes import Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class OncePlan:
    """For validation and probes: step k holds the k-th G of the samples that are read, cut evenly over the ranks."""

    shard_sizes: tuple[int, ...]
    """Samples of each shard; sample ids count through them."""
    global_batch: int
    """G. Samples of one step over all ranks; a multiple of the world size."""
    seed: int = 0
    """Of what is drawn for a sample: masks, dates."""
    limit: int | None = None
    """Read so many samples, from everywhere alike; None: all."""

    @property
    def samples(self) -> int:
        """N. How many are read."""
        return min(self._all, self._all if self.limit is None else self.limit)

    @property
    def ids(self) -> Ids:
        """(N,) the samples that are read, ascending."""
        return self._spread(np.arange(self.samples))

    @property
    def lanes(self) -> int:
        """There is one order."""
        return 1

    @property
    def steps(self) -> int:
        """Enough for all samples."""
        return -(-self.samples // self.global_batch)

    def check_world_size(self, world_size: int) -> None:
        """Raise StreamError unless `world_size` ranks get equally many rows."""
        if world_size < 1 or self.global_batch % world_size:
            raise StreamError(f"batches of {self.global_batch} cannot be shared by {world_size} ranks: use a multiple.")

    def batch(self, step: int, rank: int, world_size: int) -> tuple[Ids, Ids]:
        """Sample ids, ascending, the last one again where there are no more; and zeros."""
        ids = self._spread(np.minimum(self._numbers(step, rank, world_size), self.samples - 1))
        return ids, np.zeros_like(ids)

    def valid(self, step: int, rank: int, world_size: int) -> NDArray[np.bool_]:
        """Rows that are there for the first time."""
        count: NDArray[np.bool_] = self._numbers(step, rank, world_size) < self.samples
        return count

    def shards(self, step: int, rank: int, world_size: int) -> list[int]:
        """Shards that the batch lies in."""
        ids, _ = self.batch(step, rank, world_size)
        numbers = np.searchsorted(np.cumsum(self.shard_sizes), [ids[0], ids[-1]], "right")
        return list(range(int(numbers[0]), int(numbers[1]) + 1))

    @property
    def _all(self) -> int:
        return sum(self.shard_sizes)

    def _spread(self, numbers: Ids) -> Ids:
        # The first ones would all lie in one place.
        return numbers * self._all // self.samples

    def _numbers(self, step: int, rank: int, world_size: int) -> Ids:
        self.check_world_size(world_size)
        rows = self.global_batch // world_size
        first = step * self.global_batch + rank * rows
        return np.arange(first, first + rows)
