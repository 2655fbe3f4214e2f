"""Where patches lie: 2D-ALiBi and X-ALiBi attention bias, and the decoder's sin-cos table.

Positions are (row, column) in patch units, patches counted row by row. The bias is computed from coordinates: gathering
it from an (L, L) table costs a hundred times the time and sixteen times the memory, at 56 kept of 225 patches.

Axes: B batch, L patches, Q queries, K keys, D width, N heads.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UsageError

_LONGEST_WAVE = 10_000.0


def alibi_slopes(heads: int) -> Tensor:
    """Slope of each head, (N,) float32 (CROMA section 3.2, after Press et al. 2022).

    A power of two gives the geometric series 2^(-8/N), 2^(-16/N), ... Any other number takes the series of the
    power of two below, then every second slope of the one above.
    """
    if heads < 1:
        raise UsageError(f"ALiBi needs at least one head but heads is {heads}. Set heads to 1 or more.")
    lower = 2 ** int(math.log2(heads))
    slopes = _geometric(lower) + _geometric(2 * lower)[::2][: heads - lower]
    return torch.tensor(slopes, dtype=torch.float32)


def _geometric(heads: int) -> list[float]:
    return [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]


def patch_yx(ids: Tensor, cols: int) -> Tensor:
    """Row and column of patches on a grid `cols` wide.

    Args:
        ids: (...) int64 patch numbers, row-major.
        cols: patches in one row of the grid.

    Returns:
        (..., 2) float32 in patch units.
    """
    return torch.stack((ids.div(cols, rounding_mode="floor"), ids % cols), dim=-1).float()


def grid_yx(rows: int, cols: int, *, device: torch.device | None = None) -> Tensor:
    """Row and column of every patch of a grid, (L, 2) float32."""
    return patch_yx(torch.arange(rows * cols, device=device), cols)


def alibi_bias(query_yx: Tensor, key_yx: Tensor, slopes_N: Tensor) -> Tensor:
    """`-slope * distance` for every head, query and key (CROMA section 3.2).

    Queries and keys of one sensor give 2D-ALiBi, of two sensors X-ALiBi. Distances are not scaled with the image:
    that is what lets a model trained at 120 px read larger ones.

    Args:
        query_yx: (..., Q, 2) float32 in patch units.
        key_yx: (..., K, 2) float32 in patch units.
        slopes_N: (N,) float32.

    Returns:
        (..., N, Q, K) float32: distance and slope are each rounded to float32 before the product.
    """
    offset_y = query_yx[..., :, None, 0] - key_yx[..., None, :, 0]
    offset_x = query_yx[..., :, None, 1] - key_yx[..., None, :, 1]
    # In float64, because PyTorch's float32 square root on CPU is off by a bit in every seventh value.
    distance = (offset_y.square() + offset_x.square()).double().sqrt().float()
    return -slopes_N[:, None, None] * distance[..., None, :, :]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlibiRows:
    """`alibi_bias` that is only computed for the queries asked for: of a large image the whole is too much."""

    query_yx: Tensor
    """(..., Q, 2) float32 in patch units."""
    key_yx: Tensor
    """(..., K, 2) float32 in patch units."""
    slopes_N: Tensor
    """(N,) float32."""

    def rows(self, first: int, stop: int) -> Tensor:
        """The bias of queries `first` to `stop`, (..., N, stop - first, K) float32."""
        return alibi_bias(self.query_yx[..., first:stop, :], self.key_yx, self.slopes_N)


def sincos_table(rows: int, cols: int, *, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed 2D sin-cos position table (MAE, He et al. 2022), column coordinate first.

    Args:
        rows: patches from top to bottom.
        cols: patches from left to right.
        width: D, a multiple of 4: a quarter each for sin and cos of the column, then of the row.
        dtype: of the result; the table is computed in float64.

    Returns:
        (L, D): `sin(col w), cos(col w), sin(row w), cos(row w)`.
    """
    if width % 4:
        raise UsageError(f"a sin-cos table needs a width divisible by 4 but it is {width}. Choose another width.")
    row_col = grid_yx(rows, cols)
    parts = (wave_code(row_col[:, axis], width=width // 2, dtype=dtype) for axis in (1, 0))
    return torch.cat(tuple(parts), dim=1)


def wave_code(values: Tensor, *, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sin-cos code of numbers: positions, band groups, years, months, hours (Vaswani et al. 2017, sines first).

    Args:
        values: (...) of any number type.
        width: D, even.
        dtype: of the result; angles are computed in float64.

    Returns:
        (..., D): `sin(v w_0), sin(v w_1), ... cos(v w_0), ...` with `w_i = 10000^(-2 i / D)`.
    """
    if width % 2:
        raise UsageError(f"a sin-cos code needs an even width but it is {width}. Choose another width.")
    half = width // 2
    waves = _LONGEST_WAVE ** (-torch.arange(half, dtype=torch.float64, device=values.device) / half)
    angles = values.double()[..., None] * waves
    return torch.cat((angles.sin(), angles.cos()), dim=-1).to(dtype)
