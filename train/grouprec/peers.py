"""The ranks of a run: who takes which pairs of a batch, and their gradients joined, so that all hold the same model.

The sum over a batch is the same however it is shared, so two ranks compute what one does, up to rounding.
"""

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

    def rows(self, rows: Ints, gradient: Vectors, count: int) -> tuple[Ints, Vectors]:
        """Rows and their gradients of all ranks.

        Args:
            rows: (R,) of this rank.
            gradient: (R, D) of this rank.
            count: the largest R of any rank.
        """
        if self.world_size == 1:
            return rows, gradient
        missing = count - len(rows)
        return self._gathered(np.pad(rows, (0, missing))), self._gathered(np.pad(gradient, ((0, missing), (0, 0))))

    def any(self, *, here: bool) -> bool:
        """Whether something is so on one rank or more; all ranks wait for each other."""
        return bool(self.total(np.array([float(here)]))[0] > 0)

    def total(self, part: Floats) -> Floats:
        """The sum of all ranks' parts."""
        if self.world_size > 1:
            dist.all_reduce(torch.from_numpy(part))
        return part

    def _gathered(self, part: Array) -> Array:
        own = torch.from_numpy(part)
        parts = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(parts, own)
        found: Array = torch.cat(parts).numpy()
        return found
