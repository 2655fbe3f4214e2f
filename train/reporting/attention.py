"""How far heads look: the mean distance between a patch and those that it attends to, layer by layer and head by head.

Axes: B batch, L tokens, N heads, Q queries, K keys, E head width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.page.document import Number, table
from pipeline.page.drawing import svg
from train.batch import Batch
from train.features import Encoder
from train.models import vit
from train.models.blocks import Bias, CrossAttention, SelfAttention
from train.models.croma import Croma
from train.models.positions import AlibiRows, alibi_bias, grid_yx
from train.models.satmae import Satmae
from train.reporting import reading, words
from train.reporting.axes import Frame, grid
from train.reporting.encoded import batches, plan_of
from train.stream.samples import Samples
from train.validation import pooled

Attention = SelfAttention | CrossAttention | vit.Attention
SAMPLES = 8
_ENCODERS = {"s1_encoder": "SAR encoder", "s2_encoder": "optical encoder", "joint_encoder": "fusion encoder"}
_NEAR, _FAR = (0.25, 0.45, 0.9), (0.93, 0.55, 0.13)
"""Colours of the steepest and of the flattest slope."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One attention."""

    of: str
    """Which encoder, and what looks at what."""
    number: int
    """From 1."""
    distance_N: Tensor
    """(N,) float64 mean distance of each head, in patches."""


def section(encoder: Encoder, samples: Samples) -> str:
    """A picture for each encoder, and the numbers."""
    plan = plan_of(samples, SAMPLES, seed=encoder.run.seed)
    with batches(encoder, samples, plan) as read:
        batch, _ = next(read)
    layers = distances(encoder.module, batch)
    side = encoder.module.config.grid
    even = float(_grid_distances(side).mean())
    alone = slopes_alone(encoder.module) if isinstance(encoder.module, Croma) else None
    groups = {name: [one for one in layers if one.of == name] for name in dict.fromkeys(one.of for one in layers)}
    metres = encoder.patch_px * 10
    slopes = (
        "The column on the left is what the 2D-ALiBi slopes alone would give, with no regard to content: steep slopes "
        "look near (blue), flat ones far (orange). A head's line says how far content moves it from there. "
        if alone is not None
        else ""
    )
    return (
        f"<p>Mean distance between a patch and the patches it attends to, in patches of {metres} m (for pixels of "
        f"10 m), over {plan.samples} validation images. {slopes}Dashed: attention that is even over the image.</p>"
        + words.plots([words.plot(name, draw(ones, alone, even), _said(ones)) for name, ones in groups.items()])
        + words.told(
            "heads of one layer spread over near and far, and not all where their slope puts them.",
            "every head on the dashed line (attention to everything alike) or every head near 0 (to itself only).",
            reading.moved(
                _mean_move(layers, alone, even), "where their slopes put them" if alone is not None else "even"
            ),
        )
        + _table(groups, alone)
    )


@torch.no_grad()
def distances(module: Croma | Satmae, batch: Batch) -> list[Layer]:
    """Of every attention of the encoders, on whole images, in the order of the layers."""
    found: list[Layer] = []
    with _watched(module, found):
        pooled(module, batch)
    return found


def slopes_alone(model: Croma) -> Tensor:
    """(N,) float64: the distances that the bias alone gives, as if no token had any content."""
    places = grid_yx(model.config.grid, model.config.grid)
    weights_NQK = alibi_bias(places, places, model.slopes_N.float().cpu()).double().softmax(dim=-1)
    return mean_distance(weights_NQK[None], model.config.grid)


def mean_distance(weights_BNQK: Tensor, side: int) -> Tensor:
    """(N,) float64: mean over samples and queries of the distance that each head's attention spans, in patches.

    Args:
        weights_BNQK: rows that sum to 1. Queries and keys are the patches of a square, row by row; of band groups and
            stacks slot by slot: the same place in another slot is at distance 0.
        side: patches along one side of the square.
    """
    queries, keys = (count // side**2 for count in weights_BNQK.shape[-2:])
    distance_QK = _grid_distances(side).repeat(queries, keys)
    return (weights_BNQK.double() * distance_QK).sum(dim=-1).mean(dim=(0, 2))


def _grid_distances(side: int) -> Tensor:
    places = grid_yx(side, side).double()
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


@contextmanager
def _watched(module: Croma | Satmae, found: list[Layer]) -> Iterator[None]:
    """Within, every attention of the encoders that runs leaves a layer in `found`."""
    handles = []
    for name, part in module.named_modules():
        if isinstance(part, Attention):
            handles.append(part.register_forward_pre_hook(_hook(name, module.config.grid, found), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, side: int, found: list[Layer]) -> Callable[..., None]:
    def hook(part: Attention, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        of, number = _named(name, part)
        weights = weights_of(part, *given, **named)
        found.append(Layer(of=of, number=number, distance_N=mean_distance(weights.cpu(), side)))

    return hook


def weights_of(part: Attention, tokens_BLD: Tensor, *others: Any) -> Tensor:
    """(B, N, Q, K): what an attention gives each key, of patches only: a class token is left out, the rest sums to 1.

    Args:
        part: the attention.
        tokens_BLD: what it is called with.
        others: the context of a cross-attention, and the bias.
    """
    heads = part.heads
    bias: Bias | None = None
    if isinstance(part, vit.Attention):
        q_BLD, k_BLD, _ = part.qkv(tokens_BLD).chunk(3, dim=-1)
    elif isinstance(part, CrossAttention):
        context_BKD, bias = others
        q_BLD, k_BLD = part.to_q(part.input_norm(tokens_BLD)), part.to_k(part.input_norm(context_BKD))
    else:
        (bias,) = others
        q_BLD, k_BLD, _ = part.to_qkv(part.input_norm(tokens_BLD)).chunk(3, dim=-1)
    q_BNLE, k_BNLE = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q_BLD, k_BLD))
    scores_BNQK: Tensor = (q_BNLE @ k_BNLE.transpose(2, 3)).double() * q_BNLE.shape[-1] ** -0.5
    if bias is None:
        scores_BNQK = scores_BNQK[..., 1:, 1:]
        return scores_BNQK.softmax(dim=-1)
    scores_BNQK = scores_BNQK + (bias.rows(0, bias.query_yx.shape[-2]) if isinstance(bias, AlibiRows) else bias)
    return scores_BNQK.softmax(dim=-1)


def _mean_move(layers: Sequence[Layer], alone: Tensor | None, even: float) -> float:
    """Mean over heads and layers of how far content moves a head's distance, in patches."""
    every = torch.stack([one.distance_N for one in layers])
    return float((every - (even if alone is None else alone)).abs().mean())


def _named(name: str, part: Attention) -> tuple[str, int]:
    """Which encoder and which layer of it: `s1_encoder.transformer.layers.3.0`, `blocks.3.attn`."""
    words_of = name.split(".")
    number = int(next(word for word in words_of if word.isdigit())) + 1
    of = _ENCODERS.get(words_of[0], "encoder")
    if words_of[0] == "joint_encoder":
        of += ", SAR looks at optical" if isinstance(part, CrossAttention) else ", SAR looks at SAR"
    return of, number


def draw(layers: Sequence[Layer], alone: Tensor | None, even: float) -> str:
    """A line for each head over the layers."""
    columns = ([] if alone is None else [alone]) + [one.distance_N for one in layers]
    top = 1.08 * max(even, *(float(column.max()) for column in columns))
    frame = Frame(x=(-0.4, len(columns) - 0.6), y=(0.0, top))
    parts = grid(frame, "layer", x_ticks=False)
    names = ["slopes"] * (alone is not None) + [str(one.number) for one in layers]
    for number, name in enumerate(names):
        x, _ = frame.at(number, 0.0)
        parts.append(f'<text x="{x:.1f}" y="{frame.floor + 15:.0f}" text-anchor="middle">{name}</text>')
    left, y = frame.at(frame.x[0], even)
    right, _ = frame.at(frame.x[1], even)
    parts.append(f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="var(--soft)" stroke-dasharray="4 3"/>')
    heads = len(columns[-1])
    for head in range(heads):
        points = [frame.at(number, float(column[head])) for number, column in enumerate(columns)]
        parts += _head(points, _shade(head, heads), head)
    return svg(frame.width, frame.height, parts, said=f"Attention distance of {heads} heads in {len(layers)} layers")


def _head(points: Sequence[tuple[float, float]], colour: str, head: int) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>head {head + 1}</title></circle>'
        for x, y in points
    ]
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-opacity=".5"/>', *dots]


def _shade(head: int, heads: int) -> str:
    share = head / max(heads - 1, 1)
    mixed = (round(255 * (near + share * (far - near))) for near, far in zip(_NEAR, _FAR, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def _said(layers: Sequence[Layer]) -> str:
    every = torch.stack([one.distance_N for one in layers])
    return f"{every.shape[1]} heads, from {float(every.min()):.2f} to {float(every.max()):.2f} patches"


def _table(groups: Mapping[str, Sequence[Layer]], alone: Tensor | None) -> str:
    heads = len(next(iter(groups.values()))[0].distance_N)
    rows = [] if alone is None else [("slopes alone", "", *_cells(alone))]
    rows += [(name, Number(str(one.number)), *_cells(one.distance_N)) for name, ones in groups.items() for one in ones]
    return table(("patches", "layer", *(f"head {number}" for number in range(1, heads + 1))), rows)


def _cells(distance_N: Tensor) -> list[Number]:
    return [Number(f"{value:.2f}") for value in distance_N.tolist()]
