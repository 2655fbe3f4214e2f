"""Crops of different sizes to images of one size, all at once on the device.

A bicubic resize is linear in each axis: two products with matrices of four weights a row. One batch is then two matrix
products a sensor, where a resize crop by crop would be a kernel launch for each.

Axes: B batch, C bands (of all frames), H W pixels.
"""

import torch
from torch import Tensor

_A = -0.75
"""Of the cubic kernel (Keys 1981), as in torch and OpenCV."""


def resize_crops(images_BCHW: Tensor, sizes_B2: Tensor, side: int) -> Tensor:
    """Each image's upper left part of its own size, to `side` x `side`.

    Equals `transforms.resize` of each part up to rounding.

    Args:
        images_BCHW: (B, ..., H, W) float32, finite everywhere.
        sizes_B2: int64 height and width of each part, pixels.
        side: wanted, pixels.

    Returns:
        (B, ..., side, side) float32.
    """
    flat = images_BCHW.flatten(1, -3)
    rows_BSH = _weights(sizes_B2[:, 0], side, images_BCHW.shape[-2])
    columns_BSW = _weights(sizes_B2[:, 1], side, images_BCHW.shape[-1])
    out = rows_BSH[:, None] @ flat @ columns_BSW[:, None].transpose(-1, -2)
    return out.reshape(*images_BCHW.shape[:-2], side, side)


def _weights(sizes_B: Tensor, side: int, stored: int) -> Tensor:
    """How much each of `stored` pixels counts for each of `side`, (B, side, stored) float32."""
    where_BS = (torch.arange(side, device=sizes_B.device) + 0.5) * (sizes_B[:, None] / side) - 0.5
    first_BS = where_BS.floor()
    taps_4 = torch.arange(-1, 3, device=sizes_B.device)
    weights_BS4 = _cubic((where_BS - first_BS)[..., None] - taps_4)
    taps_BS4 = (first_BS[..., None].long() + taps_4).clamp(min=0).minimum(sizes_B[:, None, None] - 1)
    weights = torch.zeros(*where_BS.shape, stored, device=sizes_B.device)
    return weights.scatter_add_(2, taps_BS4, weights_BS4)


def _cubic(x: Tensor) -> Tensor:
    """The kernel at a distance of `x` pixels, |x| <= 2."""
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return torch.where(x <= 1, near, far)
