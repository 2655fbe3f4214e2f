"""The standard pre-norm ViT under timm's names, which are those of released SatMAE weights.

LayerNorm has eps 1e-6, GELU is the exact one, queries, keys and values have a bias. The norms stand in front of the
sub-layers and the residual outside of them.

Axes: B batch, C bands, L patches or tokens, P values of a patch (band slowest), D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.blocks import attend, check_heads, run_layer

EPS = 1e-6
"""Of every LayerNorm."""


class PatchEmbed(nn.Module):
    """A convolution of kernel = stride = patch, written as a matrix product on patches: any subset can be embedded."""

    def __init__(self, bands: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, width, kernel_size=patch, stride=patch)
        # The bias keeps the convolution's own first values (SatMAE spec 2.5), the weight does not.
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))

    def forward(self, patches_BLP: Tensor) -> Tensor:
        """(B, L, P), as `patchify` cuts them, to (B, L, D)."""
        return functional.linear(patches_BLP, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention without bias table."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        q, k, v = self.qkv(tokens_BLD).chunk(3, dim=-1)
        out: Tensor = self.proj(attend(q, k, v, heads=self.heads, bias=None))
        return out


class Mlp(nn.Module):
    """Two linear maps with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(tokens_BLD)))
        return out


class Block(nn.Module):
    """Attention and MLP, each with its norm and residual; in training each residual is dropped at `drop_path`."""

    recompute = False

    def __init__(self, width: int, heads: int, *, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = drop_path

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        tokens_BLD = tokens_BLD + self._drop(self.attn(self.norm1(tokens_BLD)))
        return tokens_BLD + self._drop(self.mlp(self.norm2(tokens_BLD)))

    def _drop(self, residual_BLD: Tensor) -> Tensor:
        """Stochastic depth (Huang et al. 2016): whole samples, scaled so that the mean stays."""
        if not self.training or not self.drop_path:
            return residual_BLD
        keep = 1 - self.drop_path
        kept_B11 = torch.bernoulli(residual_BLD.new_full((residual_BLD.shape[0], 1, 1), keep))
        return residual_BLD * kept_B11 / keep


def run(blocks: nn.ModuleList, tokens_BLD: Tensor) -> Tensor:
    """`blocks` one behind the other."""
    for block in blocks:
        tokens_BLD = run_layer(block, tokens_BLD)
    return tokens_BLD


def first_weights(module: nn.Module) -> None:
    """MAE's first weights, of linear maps and norms: Xavier-uniform and 0, 1 and 0. Use with `module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
