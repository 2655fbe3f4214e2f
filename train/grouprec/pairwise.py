"""Scores of user and item vectors, and the gradient of BPR, written out.

Why not autograd: a step has 512 pairs, and its time is the calls. Written out, it touches only the rows of its own
users and items, which is also what makes millions of users affordable. A test compares with autograd.

Axes: B pairs, 2 liked and other, D width, H hidden.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ScorerName = Literal["dot", "mlp", "mlp_sigmoid"]
SCORERS: tuple[ScorerName, ...] = ("dot", "mlp", "mlp_sigmoid")
"""Inner product · small network on the product · the same behind a sigmoid, which saturates: to reproduce."""
_HIDDEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Of the mean loss."""

    margin_B: Tensor
    """By how much the other item is liked better, over the temperature: the loss is its softplus."""
    user_BD: Tensor
    """By the users' vectors."""
    items_2BD: Tensor
    """By the items' vectors."""
    head_1W: Tensor
    """By the network's weights."""


def head(scorer: ScorerName, width: int, generator: torch.Generator) -> Tensor:
    """(1, W) First weights of the network, all in one row as `weights` reads them; none for `dot`.

    Uniform as torch draws them; for `mlp_sigmoid` weights are normal of deviation 1. itr.md is silent on it: only with
    these do the pseudo-groups fall to 1 by epoch 20 and group scores saturate by epoch 100, as in the released code.
    """
    if scorer == "dot":
        return torch.zeros(1, 0)
    near, far = width**-0.5, _HIDDEN**-0.5
    bounds = torch.cat((torch.full((_HIDDEN * (width + 1),), near), torch.full((_HIDDEN + 1,), far)))
    drawn = bounds * (2 * torch.rand(1, len(bounds), generator=generator) - 1)
    if scorer == "mlp_sigmoid":
        first, _, second, _ = weights(drawn, width)
        first.normal_(generator=generator)
        second.normal_(generator=generator)
    return drawn


def weights(head_1W: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First weights (H, D) and biases (H, 1), second weights (H,) and bias (1,): views of the row."""
    row, first = head_1W[0], _HIDDEN * width
    return (
        row[:first].view(_HIDDEN, width),
        row[first : first + _HIDDEN].view(_HIDDEN, 1),
        row[first + _HIDDEN : -1],
        row[-1:],
    )


def gradient(
    user_BD: Tensor, items_2BD: Tensor, head_1W: Tensor, scorer: ScorerName, *, temperature: float, pairs: int
) -> Gradient:
    """Of the mean over a batch of softplus((s(other) - s(liked)) / temperature).

    Args:
        user_BD: of some or all pairs of the batch.
        items_2BD: what they like, and the others.
        head_1W: the network's weights.
        scorer: of a user and an item.
        temperature: above 1 softer.
        pairs: of the whole batch.

    Source: itr.md, sections 2.1 and 3.3; the temperature is that of section 5.2.
    """
    product = user_BD * items_2BD
    if scorer == "dot":
        margin_B, by_score = _bpr(product.sum(dim=-1), temperature, pairs)
        by_product, by_head = by_score.unsqueeze(-1), head_1W
    else:
        margin_B, by_product, by_head = _through_head(product, head_1W, scorer, temperature=temperature, pairs=pairs)
    by_user = by_product * items_2BD
    return Gradient(margin_B=margin_B, user_BD=by_user[0] + by_user[1], items_2BD=by_product * user_BD, head_1W=by_head)


def _bpr(scores_2B: Tensor, temperature: float, pairs: int) -> tuple[Tensor, Tensor]:
    margin_B = torch.sub(scores_2B[1], scores_2B[0]).div_(temperature)
    slope_B = torch.sigmoid(margin_B).div_(temperature * pairs)
    return margin_B, torch.stack((-slope_B, slope_B))


def _through_head(
    product: Tensor, head_1W: Tensor, scorer: ScorerName, *, temperature: float, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Margins, and gradients; the network stands on the left of its inputs, which takes a fifth of the time."""
    flat_PD = product.view(-1, product.shape[-1])
    first, biases, second, bias = weights(head_1W, flat_PD.shape[1])
    hidden_HP = (first @ flat_PD.T).add_(biases).relu_()
    scores_P = (second @ hidden_HP).add_(bias)
    if scorer == "mlp_sigmoid":
        scores_P.sigmoid_()
    margin_B, by_score_2B = _bpr(scores_P.view(2, -1), temperature, pairs)
    by_score_P = by_score_2B.view(-1)
    if scorer == "mlp_sigmoid":
        by_score_P.mul_(scores_P).mul_(1 - scores_P)
    by_hidden_HP = torch.outer(second, by_score_P).mul_(hidden_HP.sign())
    by_head = (
        (by_hidden_HP @ flat_PD).view(-1),
        by_hidden_HP.sum(dim=1),
        hidden_HP @ by_score_P,
        by_score_P.sum().view(1),
    )
    return margin_B, (by_hidden_HP.T @ first).view(product.shape), torch.cat(by_head).unsqueeze(0)
