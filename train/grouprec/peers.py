"""The ranks of a run: who takes which pairs of a batch, and their gradients joined, so that all hold the same model.

The sum over a batch is the same however it is shared, so two ranks compute what one does, up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

Floats = NDArray[np.floating]
Array = TypeVar("Array", Ints, Vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Of one rank."""

    rank: int = 0
    """Number of this one."""
    world_size: int = 1
    """How many there are."""

    def share(self, count: int) -> slice:
        """Which pairs of a batch are this rank's."""
        return slice(self.rank, count, self.world_size)

    def rows(self, rows: Ints, gradient: Vectors, pairs: int) -> tuple[Ints, Vectors]:
        """Rows and their gradients of all ranks, one rank behind the other.

        Args:
            rows: (R,) of this rank: three for each of its pairs.
            gradient: (R, D) of this rank.
            pairs: of the whole batch.
        """
        if self.world_size == 1:
            return rows, gradient
        counts = [3 * len(range(rank, pairs, self.world_size)) for rank in range(self.world_size)]
        return self._gathered(rows, counts), self._gathered(gradient, counts)

    def any(self, *, here: bool) -> bool:
        """Whether something is so on one rank or more; all ranks wait for each other."""
        return bool(self.total(np.array([float(here)]))[0] > 0)

    def total(self, part: Floats) -> Floats:
        """The sum of all ranks' parts."""
        if self.world_size > 1:
            dist.all_reduce(torch.from_numpy(part))
        return part

    def _gathered(self, part: Array, counts: Sequence[int]) -> Array:
        """Parts of all ranks, of so many rows; they travel at one length, for ranks may differ by a pair."""
        room = np.zeros((max(counts), *part.shape[1:]), part.dtype)
        room[: len(part)] = part
        parts = [torch.empty_like(torch.from_numpy(room)) for _ in counts]
        dist.all_gather(parts, torch.from_numpy(room))
        found: Array = np.concatenate([part.numpy()[:count] for part, count in zip(parts, counts, strict=True)])
        return found
