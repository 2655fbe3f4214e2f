"""InfoNCE between the two sensors, over the samples of all ranks.

Every rank compares its own rows with everyone's (open_clip's "local loss"), so no rank holds the full matrix. Modes:

* `exact`: gathered features keep their gradient. The gradient that DDP averages is that of one process with the whole
  batch. The logit scale is clamped at ln 100, as in CLIP.
* `official`: what CROMA's published code does. Gathered features carry no gradient, not even a rank's own at world
  size 1, which halves the feature gradient and turns it. The logit scale is not clamped.

Loss values are the same in both. Ranks must hold equally many rows.

Axes: S sensors (SAR, optical), B local rows, G rows of all ranks, D width.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from train.choices import Mode
from train.models.blocks import at_least_float32

MAX_LOGIT_SCALE = math.log(100.0)
_FIRST_LOGIT_SCALE = math.log(1 / 0.07)


class _GatherRows(torch.autograd.Function):
    """All ranks' rows, whose gradient goes back to the rank that owns them."""

    @staticmethod
    def forward(ctx: Any, rows_SBD: Tensor) -> Tensor:
        ctx.rows = rows_SBD.shape[1]
        return _gather(rows_SBD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SGD: Tensor) -> Tensor:
        grad_SGD = grad_SGD.contiguous()
        dist.all_reduce(grad_SGD)
        first = dist.get_rank() * ctx.rows
        return grad_SGD[:, first : first + ctx.rows]


def _gather(rows_SBD: Tensor) -> Tensor:
    parts = [torch.empty_like(rows_SBD) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows_SBD.contiguous())
    return torch.cat(parts, dim=1)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows_SBD: Tensor, *, mode: Mode) -> Tensor:
    """Rows of all ranks in rank order, (S, G, D); with gradient in mode `exact` only.

    Without a process group, or with one process, these are the rows themselves.
    """
    if mode == "official":
        rows_SBD = rows_SBD.detach()
    if _world_size() == 1:
        return rows_SBD
    if mode == "official":
        return _gather(rows_SBD)
    gathered: Tensor = _GatherRows.apply(rows_SBD)  # type: ignore[no-untyped-call]
    return gathered


def info_nce(s1_BD: Tensor, s2_BD: Tensor, logit_scale: Tensor, *, mode: Mode = "exact") -> Tensor:
    """Symmetric cross-entropy of each row against the other sensor's rows on all ranks (CROMA section 3.1).

    Args:
        s1_BD: (B, D) this rank's SAR features, of any length.
        s2_BD: (B, D) this rank's optical features; row i belongs to row i of `s1_BD`.
        logit_scale: scalar, natural logarithm of the inverse temperature.
        mode: whether gradient flows through the features of the other side.

    Returns:
        Scalar, the mean over this rank's rows, in float32 or better.
    """
    features_SBD = functional.normalize(at_least_float32(torch.stack((s1_BD, s2_BD))), dim=-1)
    others_SGD = gather_rows(features_SBD, mode=mode).flip(0)
    logits_SBG = logit_scale.exp() * features_SBD @ others_SGD.transpose(1, 2)
    rows, rank = s1_BD.shape[0], dist.get_rank() if _world_size() > 1 else 0
    labels_B = torch.arange(rows, device=s1_BD.device) + rank * rows
    return functional.cross_entropy(logits_SBG.flatten(0, 1), labels_B.repeat(2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contrast:
    """The contrastive loss of a whole batch, as one of its micro-batches of B rows sees it."""

    value: Tensor
    """Scalar, the loss."""
    gradient_SBD: Tensor
    """Of the loss, by this micro-batch's projected features; times the batch's rows over B."""
    scale_gradient: Tensor
    """Scalar. Of the loss, by the logit scale."""

    def of(self, features_SBD: Tensor, logit_scale: Tensor) -> Tensor:
        """A scalar with the loss's value, whose gradient is this micro-batch's part of the loss's."""
        pull = (features_SBD * self.gradient_SBD).sum() + logit_scale * self.scale_gradient
        return self.value + pull - pull.detach()


class ContrastiveHead(nn.Module):
    """The projections and the temperature that only the loss needs."""

    def __init__(self, width: int, *, mode: Mode = "exact") -> None:
        super().__init__()
        self.mode: Mode = mode
        self.s1_proj = nn.Linear(width, width)
        self.s2_proj = nn.Linear(width, width)
        self.logit_scale = nn.Parameter(torch.tensor(_FIRST_LOGIT_SCALE))

    def project(self, s1_GAP_BD: Tensor, s2_GAP_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features to the space they are compared in, in the weights' dtype even under autocast."""
        with torch.autocast(s1_GAP_BD.device.type, enabled=False):
            dtype = self.s1_proj.weight.dtype
            return self.s1_proj(s1_GAP_BD.to(dtype)), self.s2_proj(s2_GAP_BD.to(dtype))

    def loss(self, s1_BD: Tensor, s2_BD: Tensor) -> Tensor:
        """`info_nce` of projected features, at this head's temperature and mode."""
        self._clamp()
        with torch.autocast(s1_BD.device.type, enabled=False):
            return info_nce(s1_BD, s2_BD, self.logit_scale, mode=self.mode)

    def contrasts(self, s1_BD: Tensor, s2_BD: Tensor, rows: int) -> list[Contrast]:
        """The loss of a whole batch of projected features, for its micro-batches of `rows` rows each.

        Without gradient to the features' own origin: each micro-batch computes its features anew.
        """
        features_SBD = torch.stack((s1_BD.detach(), s2_BD.detach())).requires_grad_()
        self._clamp()
        scale = self.logit_scale.detach().clone().requires_grad_()
        with torch.enable_grad(), torch.autocast(s1_BD.device.type, enabled=False):
            value = info_nce(features_SBD[0], features_SBD[1], scale, mode=self.mode)
            gradient_SBD, scale_gradient = torch.autograd.grad(value, (features_SBD, scale))
        total = features_SBD.shape[1]
        return [
            Contrast(value=value.detach(), gradient_SBD=part * (total / part.shape[1]), scale_gradient=scale_gradient)
            for part in torch.split(gradient_SBD, rows, dim=1)
        ]

    def forward(self, s1_GAP_BD: Tensor, s2_GAP_BD: Tensor, contrast: Contrast | None = None) -> Tensor:
        """Pooled features (B, D) of both sensors to the contrastive loss; of a micro-batch, to its part of it."""
        s1_BD, s2_BD = self.project(s1_GAP_BD, s2_GAP_BD)
        if contrast is None:
            return self.loss(s1_BD, s2_BD)
        return contrast.of(torch.stack((s1_BD, s2_BD)), self.logit_scale)

    def _clamp(self) -> None:
        """In place, as CLIP does: a clamp inside the graph would give a zero gradient and never let go."""
        if self.mode == "exact":
            with torch.no_grad():
                self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
