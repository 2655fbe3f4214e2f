"""Numbers of a step that the host reads when the next step is under way, so that a GPU never waits for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Late:
    """Scalars on their way to the host."""

    names: tuple[str, ...]
    """Of the scalars."""
    values_N: Tensor
    """float64 on the host; what is in it counts once `copied` has passed."""
    copied: torch.cuda.Event | None
    """None where there is nothing to wait for."""

    def read(self) -> dict[str, float]:
        """The scalars, once they are here."""
        if self.copied is not None:
            self.copied.synchronize()
        return dict(zip(self.names, self.values_N.tolist(), strict=True))


def send(scalars: Mapping[str, Tensor]) -> Late:
    """Begin to copy `scalars` to the host."""
    values_N = torch.stack([scalar.detach().to(torch.float64) for scalar in scalars.values()])
    if values_N.device.type != "cuda":
        return Late(names=tuple(scalars), values_N=values_N, copied=None)
    host_N = torch.empty(values_N.shape, dtype=torch.float64, pin_memory=True).copy_(values_N, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return Late(names=tuple(scalars), values_N=host_N, copied=copied)
