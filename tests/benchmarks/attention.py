"""The ways to compute attention, forward and backward, at a recipe's shapes; `blocks.attend` chooses among them.

    python tests/benchmarks/attention.py --recipe base --batch 64
    python tests/benchmarks/attention.py --recipe base large temporal_large --batch 512 --precision bf16 --device cuda

`explicit` is the formula, `recomputed` the formula whose weights are computed anew in the backward pass (what CROMA and
SatMAE do on CPU), `fused` PyTorch's kernels with the bias as a mask (what they do on GPU). `flex` computes CROMA's bias
inside the kernel from coordinates; it has no backward pass on CPU, so it is measured on GPU only. Measurements are
interleaved medians; `error` is the largest deviation from `explicit` in float64.

Axes: B batch, N heads, L tokens, E head width.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import flags, report, timed
from benchmarks.step import DTYPES, RECIPES

from train.models.blocks import explicit_attention, fused_attention
from train.models.positions import alibi_bias, alibi_slopes, patch_yx

Attention = Callable[..., Tensor]


def main() -> None:
    """Measure and print."""
    parser = flags(__doc__)
    parser.add_argument("--recipe", nargs="+", choices=sorted(RECIPES), default=["base"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="no")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    report([row for recipe in asked.recipe for row in measure(recipe, asked)], asked)


def measure(recipe: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each way."""
    run, device = RECIPES[recipe](), torch.device(asked.device)
    qkv, yx_BL2, slopes_N = inputs(run, asked.batch, device=device, dtype=DTYPES[asked.precision])
    bias = None if yx_BL2 is None else alibi_bias(yx_BL2, yx_BL2, slopes_N)
    ways: dict[str, Attention] = {"explicit": explicit_attention, "recomputed": recomputed, "fused": fused_attention}
    if device.type == "cuda":
        ways["flex"] = flexible(torch.compile(flex_attention, dynamic=False), yx_BL2, slopes_N)
    exact = explicit_attention(*(x.double() for x in qkv), bias=None if bias is None else bias.double())
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bf16")
    ways = {name: autocast(way) for name, way in ways.items()}
    actions = {name: lambda way=way: way(*qkv, bias=bias).sum().backward() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(asked.steps + 1):
        for name, action in actions.items():
            found = timed(action, device).wall
            seconds[name] += [found] if turn else []
    return [
        {
            "recipe": recipe,
            "precision": asked.precision,
            "B, N, L, E": tuple(qkv[0].shape),
            "attention": name,
            "us/sample": round(statistics.median(seconds[name]) / asked.batch * 1e6, 1),
            "error": f"{(way(*qkv, bias=bias) - exact).abs().max().item():.0e}",
        }
        for name, way in ways.items()
    ]


def inputs(
    run: Any, batch: int, *, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor]:
    """Queries, keys and values (B, N, L, E) of the encoder; CROMA's coordinates (B, L, 2); slopes (N,)."""
    heads, tokens = run.model.heads, run.kept_tokens
    shape = (batch, tokens, heads, run.model.encoder_dim // heads)
    qkv = tuple(torch.randn(shape, device=device, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3))
    ids_BK = torch.rand(batch, run.tokens, device=device).argsort(dim=1)[:, :tokens]
    yx_BL2 = patch_yx(ids_BK, run.model.grid) if run.objective == "croma" else None
    return qkv, yx_BL2, alibi_slopes(heads).to(device)


def recomputed(q_BNLE: Tensor, k_BNLE: Tensor, v_BNLE: Tensor, *, bias: Tensor | None) -> Tensor:
    """The formula, its weights computed anew in the backward pass."""
    out: Tensor = checkpoint(
        explicit_attention, q_BNLE, k_BNLE, v_BNLE, bias=bias, use_reentrant=False, preserve_rng_state=False
    )
    return out


def flexible(kernel: Attention, yx_BL2: Tensor | None, slopes_N: Tensor) -> Attention:
    """FlexAttention with 2D-ALiBi from coordinates; a bias that it is given is not read."""

    def add_bias(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: PLR0917
        offset_y = yx_BL2[row, query, 0] - yx_BL2[row, key, 0]
        offset_x = yx_BL2[row, query, 1] - yx_BL2[row, key, 1]
        return score - slopes_N[head] * (offset_y * offset_y + offset_x * offset_x).sqrt()

    return lambda q, k, v, *, bias: kernel(q, k, v, score_mod=None if yx_BL2 is None else add_bias)


if __name__ == "__main__":
    main()
