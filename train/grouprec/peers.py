"""The ranks of a run: who takes which pairs of a batch, and their gradients joined, so that all hold the same model.

The sum over a batch is the same however it is shared, so two ranks compute what one does, up to rounding.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


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

    def rows(self, rows: Tensor, gradient: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Rows and their gradients of all ranks.

        Args:
            rows: (R,) of this rank.
            gradient: (R, D) of this rank.
            count: the largest R of any rank.
        """
        if self.world_size == 1:
            return rows, gradient
        missing = count - len(rows)
        rows, gradient = (
            torch.nn.functional.pad(rows, (0, missing)),
            torch.nn.functional.pad(gradient, (0, 0, 0, missing)),
        )
        all_rows = [torch.empty_like(rows) for _ in range(self.world_size)]
        all_gradients = [torch.empty_like(gradient) for _ in range(self.world_size)]
        dist.all_gather(all_rows, rows)
        dist.all_gather(all_gradients, gradient)
        return torch.cat(all_rows), torch.cat(all_gradients)

    def any(self, *, here: bool) -> bool:
        """Whether something is so on one rank or more; all ranks wait for each other."""
        return here if self.world_size == 1 else bool(self.total(torch.tensor(float(here))) > 0)

    def total(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts."""
        if self.world_size > 1:
            dist.all_reduce(part)
        return part
