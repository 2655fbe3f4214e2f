"""Pre-norm transformer parts. Attribute names give the state dict keys of the released CROMA weights.

The norm lives inside each sub-layer and the residual outside of it. LayerNorm has eps 1e-5 (CROMA's, and PyTorch's
default), GELU is the exact one, nothing is dropped.

Axes: B batch, C bands, H W pixels, L patches or tokens, Q queries, K keys, P values of a patch, D width, N heads,
E head width. A bias is (B or 1, N, Q, K).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline.errors import UsageError
from train.models.positions import AlibiRows

Bias = Tensor | AlibiRows
"""(B or 1, N, Q, K), or what it is computed from."""
SCORE_BYTES = 256 * 2**20
"""Most bytes of attention scores (float32) at once, without gradient."""


def take_bands(images: Tensor, positions: Sequence[int]) -> Tensor:
    """Some bands in this order, (B, C, ...) of (B, any, ...).

    By their numbers on the host: a list as an index would become a tensor that a GPU's queue is waited for to copy.
    """
    return torch.stack([images[:, position] for position in positions], dim=1)


def patchify(image_BCHW: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row.

    Returns:
        (B, L, P) with P = C * patch * patch; band slowest, then pixel row, then pixel column.
    """
    bands, height, width = image_BCHW.shape[1:]
    if height % patch or width % patch or not height or not width:
        raise UsageError(
            f"an image of {height} x {width} px cannot be cut into patches of {patch} px. "
            f"Crop or resize it to multiples of {patch}."
        )
    rows, cols = height // patch, width // patch
    tiles = image_BCHW.reshape(-1, bands, rows, patch, cols, patch).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(-1, rows * cols, bands * patch * patch)


def unpatchify(patches_BLP: Tensor, patch: int, *, columns: int) -> Tensor:
    """Images (B, C, H, W) from what `patchify` made of them.

    Args:
        patches_BLP: patches, or what a model predicts for them.
        patch: side of a patch, px.
        columns: patches in a row.
    """
    batch, places, values = patches_BLP.shape
    tiles = patches_BLP.reshape(batch, places // columns, columns, values // patch**2, patch, patch)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, values // patch**2, -1, columns * patch)


def explicit_attention(q_BNQE: Tensor, k_BNKE: Tensor, v_BNKE: Tensor, *, bias: Tensor | None) -> Tensor:
    """softmax(q kT / sqrt(E) + bias) v, written out."""
    scores_BNQK = (q_BNQE * q_BNQE.shape[-1] ** -0.5) @ k_BNKE.transpose(-2, -1)
    if bias is not None:
        scores_BNQK = scores_BNQK + bias
    weights_BNQK: Tensor = scores_BNQK.softmax(dim=-1)
    return weights_BNQK @ v_BNKE


def fused_attention(q_BNQE: Tensor, k_BNKE: Tensor, v_BNKE: Tensor, *, bias: Tensor | None) -> Tensor:
    """The same through PyTorch's fused kernels; the bias is rounded to the queries' dtype."""
    mask = None if bias is None else bias.to(q_BNQE.dtype)
    return functional.scaled_dot_product_attention(q_BNQE, k_BNKE, v_BNKE, attn_mask=mask)


def attend(q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor, *, heads: int, bias: Bias | None) -> Tensor:
    """Multi-head attention, (B, Q, D). Heads are contiguous slices of the width.

    Without gradient the scores of at most `SCORE_BYTES` are there at once, so that an image may be of any size.
    """
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q_BLD, k_BLD, v_BLD))
    queries = q.shape[2]
    step = queries if torch.is_grad_enabled() else max(1, SCORE_BYTES // (4 * q.shape[0] * heads * k.shape[2]))
    parts = [
        _attention(q[:, :, first : first + step], k, v, bias=_rows(bias, first, min(first + step, queries)))
        for first in range(0, queries, step)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)  # a lone part would be copied
    return out.transpose(1, 2).flatten(2)


def _attention(q_BNQE: Tensor, k_BNKE: Tensor, v_BNKE: Tensor, *, bias: Tensor | None) -> Tensor:
    if q_BNQE.device.type != "cpu" or not torch.is_grad_enabled():
        return fused_attention(q_BNQE, k_BNKE, v_BNKE, bias=bias)
    # On CPU the fused kernel's bfloat16 backward is five times slower than the plain one; float32 is equal. The plain
    # one's weights are computed anew in the backward: an eighth of a step's memory for a hundredth of its time.
    out_BNQE: Tensor = checkpoint(
        explicit_attention, q_BNQE, k_BNKE, v_BNKE, bias=bias, use_reentrant=False, preserve_rng_state=False
    )
    return out_BNQE


def _rows(bias: Bias | None, first: int, stop: int) -> Tensor | None:
    if bias is None:
        return None
    return bias.rows(first, stop) if isinstance(bias, AlibiRows) else bias[..., first:stop, :]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that can be compiled or computed anew: those with a `recompute` switch."""
    return [module for module in model.modules() if hasattr(module, "recompute")]


def set_recompute(model: nn.Module, *, on: bool) -> None:
    """Keep only the layers' inputs for the backward pass, which then runs each layer again (a third more work)."""
    for layer in layers_of(model):
        layer.recompute = on  # type: ignore[assignment]  # a switch, not a parameter


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile each layer in place. All layers of one kind share the result, and state dict names stay."""
    for layer in layers_of(model):
        layer.compile(backend=backend)


def run_layer(layer: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """`layer(...)`, computed anew in the backward pass where its switch is on."""
    if layer.recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(layer, *args, use_reentrant=False, **kwargs)
        return out
    result: Tensor = layer(*args, **kwargs)
    return result


class SelfAttention(nn.Module):
    """LayerNorm, multi-head self-attention and an output projection; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.input_norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens_BLD: Tensor, bias: Bias | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), without the residual."""
        q, k, v = self.to_qkv(self.input_norm(tokens_BLD)).chunk(3, dim=-1)
        out: Tensor = self.to_out(attend(q, k, v, heads=self.heads, bias=bias))
        return out


class CrossAttention(nn.Module):
    """Queries from one set of tokens, keys and values from another; both pass one shared LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.input_norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens_BQD: Tensor, context_BKD: Tensor, bias: Bias | None = None) -> Tensor:
        """(B, Q, D) and (B, K, D) to (B, Q, D), without the residual."""
        tokens_BQD, context_BKD = self.input_norm(tokens_BQD), self.input_norm(context_BKD)
        q, k, v = self.to_q(tokens_BQD), self.to_k(context_BKD), self.to_v(context_BKD)
        out: Tensor = self.to_out(attend(q, k, v, heads=self.heads, bias=bias))
        return out


class FeedForward(nn.Module):
    """LayerNorm, then a GELU network four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(width)
        # Index 2 is where the released layout has its dropout of rate 0.
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D), without the residual."""
        out: Tensor = self.net(self.input_norm(tokens_BLD))
        return out


class EncoderLayer(nn.ModuleList):
    """Self-attention (0) and feed-forward (1), each with its residual."""

    recompute = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__([SelfAttention(width, heads), FeedForward(width)])

    def forward(self, tokens_BLD: Tensor, bias: Bias | None = None) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        attention, feed_forward = self
        tokens_BLD = tokens_BLD + attention(tokens_BLD, bias)
        out: Tensor = tokens_BLD + feed_forward(tokens_BLD)
        return out


class FusionLayer(nn.ModuleList):
    """Self-attention (0), cross-attention (1) and feed-forward (2), each with its residual."""

    recompute = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__([SelfAttention(width, heads), CrossAttention(width, heads), FeedForward(width)])

    def forward(self, tokens_BQD: Tensor, context_BKD: Tensor, *, self_bias: Bias, cross_bias: Bias) -> Tensor:
        """(B, Q, D) and (B, K, D) to (B, Q, D)."""
        self_attention, cross_attention, feed_forward = self
        tokens_BQD = tokens_BQD + self_attention(tokens_BQD, self_bias)
        tokens_BQD = tokens_BQD + cross_attention(tokens_BQD, context_BKD, cross_bias)
        out: Tensor = tokens_BQD + feed_forward(tokens_BQD)
        return out


class Transformer(nn.Module):
    """`depth` encoder layers that share one bias, then a LayerNorm."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, tokens_BLD: Tensor, bias: Bias | None = None) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        for layer in self.layers:
            tokens_BLD = run_layer(layer, tokens_BLD, bias)
        out: Tensor = self.norm_out(tokens_BLD)
        return out


class Encoder(nn.Module):
    """A ViT without class token and without position embedding: positions come in through the bias."""

    def __init__(self, patch_values: int, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.linear_input = nn.Linear(patch_values, width)
        self.transformer = Transformer(width, depth, heads)

    def forward(self, patches_BLP: Tensor, bias: Bias) -> Tensor:
        """(B, L, P) to (B, L, D)."""
        out: Tensor = self.transformer(self.linear_input(patches_BLP), bias)
        return out


class FusionEncoder(nn.Module):
    """Tokens of one sensor that look at those of another in every layer (CROMA section 3.1)."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(width, heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, tokens_BQD: Tensor, context_BKD: Tensor, *, self_bias: Bias, cross_bias: Bias) -> Tensor:
        """(B, Q, D) and (B, K, D) to (B, Q, D); the context is the same for every layer."""
        for layer in self.layers:
            tokens_BQD = run_layer(layer, tokens_BQD, context_BKD, self_bias=self_bias, cross_bias=cross_bias)
        out: Tensor = self.norm_out(tokens_BQD)
        return out


def pooled_head(width: int) -> nn.Sequential:
    """LayerNorm and a GELU network on the mean token; no residual."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it is of lower precision: losses are computed there, and float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_heads(width: int, heads: int) -> None:
    """Raise UsageError unless `heads` divide `width`."""
    if heads < 1 or width % heads:
        raise UsageError(f"a width of {width} cannot be split over {heads} heads. Choose heads that divide the width.")
