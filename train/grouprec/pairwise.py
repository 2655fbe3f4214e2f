"""Scores of user and item vectors, and the gradient of BPR, written out.

Why not autograd: a step has 512 pairs, and its time is the calls. Written out, it touches only the rows of its own
users and items, which is also what makes millions of users affordable. A test compares with autograd.

Axes: B pairs, 3 user, liked and other, 2 liked and other, P scores of both, D width, H hidden.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from train.grouprec.names import ScorerName
from train.grouprec.sphere import Vectors

Float32 = NDArray[np.float32]

_HIDDEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Of the mean loss."""

    margin_B: Float32
    """By how much the other item is liked better, over the temperature: the loss is its softplus."""
    vectors_3BD: Float32
    """By the vectors."""
    head_1W: Vectors
    """By the network's weights."""


def head(scorer: ScorerName, width: int, generator: torch.Generator) -> Vectors:
    """(1, W) First weights of the network, all in one row as `weights` reads them; none for `dot`.

    Uniform as torch draws them; for `mlp_sigmoid` weights are normal of deviation 1. itr.md is silent on it: only with
    these do the pseudo-groups fall to 1 by epoch 20 and group scores saturate by epoch 100, as in the released code.
    """
    if scorer == "dot":
        return np.zeros((1, 0), np.float32)
    near, far = width**-0.5, _HIDDEN**-0.5
    bounds = torch.cat((torch.full((_HIDDEN * (width + 1),), near), torch.full((_HIDDEN + 1,), far)))
    drawn: Vectors = (bounds * (2 * torch.rand(1, len(bounds), generator=generator) - 1)).numpy()
    if scorer == "mlp_sigmoid":
        first, _, second, _ = weights(drawn, width)
        torch.from_numpy(first).normal_(generator=generator)
        torch.from_numpy(second).normal_(generator=generator)
    return drawn


def weights(head_1W: Vectors, width: int) -> tuple[Vectors, Vectors, Float32, Float32]:
    """First weights (H, D) and biases (H, 1), second weights (H,) and bias (1,): views of the row."""
    row, first = head_1W[0], _HIDDEN * width
    return (
        row[:first].reshape(_HIDDEN, width),
        row[first : first + _HIDDEN].reshape(_HIDDEN, 1),
        row[first + _HIDDEN : -1],
        row[-1:],
    )


def gradient(vectors_3BD: Float32, head_1W: Vectors, scorer: ScorerName, *, temperature: float, pairs: int) -> Gradient:
    """Of the mean over a batch of softplus((s(other) - s(liked)) / temperature).

    Args:
        vectors_3BD: of some or all pairs of the batch.
        head_1W: the network's weights.
        scorer: of a user and an item.
        temperature: above 1 softer.
        pairs: of the whole batch.

    Source: itr.md, sections 2.1 and 3.3; the temperature is that of section 5.2.
    """
    user_BD, items_2BD = vectors_3BD[0], vectors_3BD[1:]
    product = user_BD * items_2BD
    if scorer == "dot":
        margin_B, by_score = _bpr(product @ np.ones(product.shape[-1], np.float32), temperature, pairs)
        by_product, by_head = by_score[..., None], head_1W
    else:
        margin_B, by_product, by_head = _through_head(product, head_1W, scorer, temperature=temperature, pairs=pairs)
    found_3BD = np.empty_like(vectors_3BD)
    np.multiply(by_product, user_BD, out=found_3BD[1:])
    by_user = np.multiply(by_product, items_2BD, out=product)
    np.add(by_user[0], by_user[1], out=found_3BD[0])
    return Gradient(margin_B=margin_B, vectors_3BD=found_3BD, head_1W=by_head)


def softplus(x: Float32) -> Float32:
    """log(1 + exp(x)), which is x where that is large."""
    found: Float32 = np.logaddexp(x, np.float32(0))
    return found


def _bpr(scores_2B: Float32, temperature: float, pairs: int) -> tuple[Float32, Float32]:
    margin_B: Float32 = (scores_2B[1] - scores_2B[0]) / temperature
    slopes_2B = np.empty_like(scores_2B)
    np.divide(sigmoid(margin_B), temperature * pairs, out=slopes_2B[1])
    np.negative(slopes_2B[1], out=slopes_2B[0])
    return margin_B, slopes_2B


def sigmoid(x: Float32) -> Float32:
    """1 / (1 + exp(-x)); far below 0 it is 0, as torch has it."""
    with np.errstate(over="ignore"):
        found: Float32 = np.reciprocal(1 + np.exp(-x))
    return found


def _through_head(
    product: Float32, head_1W: Vectors, scorer: ScorerName, *, temperature: float, pairs: int
) -> tuple[Float32, Float32, Vectors]:
    """Margins, and gradients; the network stands on the left of its inputs, which takes a fifth of the time."""
    flat_PD = product.reshape(-1, product.shape[-1])
    first, biases, second, bias = weights(head_1W, flat_PD.shape[1])
    hidden_HP = first @ flat_PD.T
    hidden_HP += biases
    np.maximum(hidden_HP, 0, out=hidden_HP)
    scores_P = second @ hidden_HP + bias
    if scorer == "mlp_sigmoid":
        scores_P = sigmoid(scores_P)
    margin_B, by_score_2B = _bpr(scores_P.reshape(2, -1), temperature, pairs)
    by_score_P = by_score_2B.reshape(-1)
    if scorer == "mlp_sigmoid":
        by_score_P *= scores_P * (1 - scores_P)
    by_hidden_HP: Float32 = second[:, None] * by_score_P
    by_hidden_HP *= hidden_HP > 0
    by_head = (
        (by_hidden_HP @ flat_PD).reshape(-1),
        by_hidden_HP.sum(axis=1),
        hidden_HP @ by_score_P,
        by_score_P.sum(keepdims=True),
    )
    by_product: Float32 = (by_hidden_HP.T @ first).reshape(product.shape)
    return margin_B, by_product, np.concatenate(by_head)[None]
