"""What SatMAE's predictions are compared with, and how: the masked error and the order of bands.

Axes: B batch, T frames, C bands, H W pixels, S slots, L places, N = S L tokens, Q = patch * patch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from train.models.blocks import at_least_float32, patchify, take_bands
from train.models.satmae_config import SatmaeConfig

_EPS = 1e-6


def to_band_order(predicted_BCLQ: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Predictions in the groups' order, (B, C, L, Q), in the order of the image's bands."""
    order = [band for group in groups for band in group]
    return take_bands(predicted_BCLQ, sorted(range(len(order)), key=order.__getitem__))


def target(images: Tensor, config: SatmaeConfig) -> Tensor:
    """Patches of the images in the shape of the prediction, (B, C, L, Q) or (B, N, Q C), in float32 or better."""
    frames = images.flatten(0, 1) if config.variant == "temporal" else images
    patches_BLP = at_least_float32(patchify(frames, config.patch))
    if config.norm_pix:
        variance, mean = torch.var_mean(patches_BLP, dim=-1, keepdim=True)
        patches_BLP = (patches_BLP - mean) / (variance + _EPS).sqrt()
    patches_BLCQ = torch.unflatten(patches_BLP, 2, (len(config.bands), -1))
    if config.variant == "group":
        return patches_BLCQ.transpose(1, 2)
    return patches_BLCQ.transpose(2, 3).reshape(images.shape[0], -1, patches_BLP.shape[2])


def masked_error(predicted: Tensor, images: Tensor, removed_BN: Tensor, *, config: SatmaeConfig) -> Tensor:
    """Mean squared error over the hidden tokens of the whole batch; each counts once, whatever its bands.

    Args:
        predicted: the decoder's output; of the group variant in the order in which it is to be compared.
        images: at the encoder's scale.
        removed_BN: bool, True where a token is hidden.
        config: for patches and groups.
    """
    squared = (at_least_float32(predicted) - target(images, config)).square().mean(dim=-1)
    if config.variant == "group":
        squared = torch.cat([take_bands(squared, group).mean(dim=1) for group in config.group_positions], dim=1)
    return (squared * removed_BN).sum() / removed_BN.sum()


def to_image(predicted: Tensor, config: SatmaeConfig) -> Tensor:
    """Predicted patches as an image (B, C, H, W), bands in the order of the prediction."""
    bands, grid, patch = len(config.bands), config.grid, config.patch
    if config.variant != "group":
        predicted = torch.unflatten(predicted, 2, (-1, bands)).permute(0, 3, 1, 2)
    tiles = predicted.reshape(-1, bands, grid, grid, patch, patch)
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(-1, bands, grid * patch, grid * patch)
