"""Is a step worth learning from? Decided on the device, alike on all ranks, without waiting for it.

A step whose loss or gradient is not finite, or far above those of the last steps, changes nothing: the optimizer is
told so by the flag that gradient scalers use. What was seen of the accepted steps is state: it is in the checkpoint.

Axes: Q quantities (loss, gradient norm), W window.
"""

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import StreamError

WINDOW = 128
"""Accepted steps that the next one is compared with; fewer are no comparison."""
FILE_NAME = "guard.safetensors"
_PREFIX = "guard/"


class Guard:
    """Remembers the last accepted steps."""

    def __init__(self, sigmas: float | None, device: torch.device) -> None:
        """`sigmas` above the mean is too far; None: only what is not finite is refused."""
        self._sigmas = sigmas
        self.seen_QW = torch.zeros(2, WINDOW, dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether to skip a step, scalar bool on the device; an accepted one is remembered.

        Args:
            loss: of the global batch, the same on all ranks.
            norm: of the averaged gradient.
        """
        now_Q = torch.stack((loss.detach().double(), norm.detach().double()))
        good = now_Q.isfinite().all()
        if self._sigmas is not None:
            std_Q, mean_Q = torch.std_mean(self.seen_QW, dim=1)
            near = (now_Q <= mean_Q + self._sigmas * std_Q).all()
            good = good & (near | (self.count < WINDOW))
        here_W = torch.arange(WINDOW, device=self.count.device) == self.count % WINDOW
        self.seen_QW = torch.where(here_W & good, now_Q.nan_to_num()[:, None], self.seen_QW)
        self.count = self.count + good
        return ~good

    def tensors(self) -> dict[str, Tensor]:
        """Its state, by name."""
        return {f"{_PREFIX}seen": self.seen_QW, f"{_PREFIX}count": self.count}

    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take back what `tensors` gave; returns the tensors that are not its own.

        Raises:
            StreamError: they are not there.
        """
        try:
            self.seen_QW = tensors[f"{_PREFIX}seen"].to(self.seen_QW.device)
            self.count = tensors[f"{_PREFIX}count"].to(self.count.device)
        except KeyError as error:
            raise StreamError(
                f"the checkpoint has no {error}: an older release wrote it. Resume with that release."
            ) from error
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}


def guard_file(guard: Guard) -> dict[str, bytes]:
    """Its state as an object beside the shards of a checkpoint, by name."""
    return {FILE_NAME: safetensors.torch.save({name: tensor.cpu() for name, tensor in guard.tensors().items()})}
