"""What a model makes of hidden patches, as pictures: input, masked input and prediction side by side.

Sentinel-2 is shown in B04, B03, B02 and Sentinel-1 as VV, VH, VV / VH (a difference, in dB). The input's 2nd to 98th
percentile of each colour is stretched over the scale, and prediction and input share that stretch.

Axes: B samples, T frames, R = B T rows, C bands, H W pixels, L patches, P values of a patch, N tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.batch import Batch
from train.models import satmae_target, upscale
from train.models.blocks import patchify, unpatchify
from train.models.croma import Croma
from train.models.masking import Mask
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.objective import croma_noises, satmae_noise
from train.stream.config import StreamConfig
from train.stream.normalise import Constants, denormalise

GREY = 128
"""Of what is hidden, of 255."""
_TRUE_COLOUR = ("B04", "B03", "B02")
_RATIO = ((1.0, 0.0), (0.0, 1.0), (1.0, -1.0))
_PERCENTILES = (0.02, 0.98)
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """One sensor's images and what a model predicts of them."""

    images: Tensor
    """(R, C, H, W)."""
    predicted: Tensor
    """(R, C, H, W), in the same units."""
    hidden: Tensor
    """(R, C, H, W) bool: what the model did not see of them."""
    frames: int = 1
    """T: so many rows after each other are of one sample."""


def draw(
    model: Croma | Satmae, batch: Batch, stream: StreamConfig, stretch: Mapping[str, Constants], *, seed: int
) -> dict[str, NDArray[np.uint8]]:
    """Pictures by sensor, (B, T H, 3 W, 3) uint8.

    Args:
        model: in evaluation mode.
        batch: of the recipe's stream.
        stream: for bands and scale.
        stretch: what `batch` is normalised with, by sensor.
        seed: of the masks.
    """
    found = {}
    for sensor, made in reconstruct(model, batch, seed=seed).items():
        stored = [denormalise(x, stretch[sensor], scale=stream.scale) for x in (made.images, made.predicted)]
        shown = Reconstruction(images=stored[0], predicted=stored[1], hidden=made.hidden, frames=made.frames)
        found[sensor] = paint(shown, colours(stream.bands[sensor]))
    return found


def paint(made: Reconstruction, mix_3C: Tensor) -> NDArray[np.uint8]:
    """Input, input with `GREY` for what is hidden, and input with the prediction there; (B, T H, 3 W, 3) uint8.

    Args:
        made: in units in which a difference of bands means something.
        mix_3C: what of each band goes into red, green and blue.
    """
    image, predicted = (torch.einsum("kc,rchw->rkhw", mix_3C, x.float().cpu()) for x in (made.images, made.predicted))
    hidden = torch.einsum("kc,rchw->rkhw", mix_3C.abs(), made.hidden.float().cpu()) > 0
    low, high = (image.flatten(2).quantile(share, dim=2)[..., None, None] for share in _PERCENTILES)
    seen, guessed = (_levels((x - low) / (high - low).clamp(min=_EPS)) for x in (image, predicted))
    panels = (seen, seen.masked_fill(hidden, GREY), torch.where(hidden, guessed, seen))
    rows_R3HW = torch.cat(panels, dim=3)
    rows_RHW3 = rows_R3HW.permute(0, 2, 3, 1)
    found: NDArray[np.uint8] = torch.unflatten(rows_RHW3, 0, (-1, made.frames)).flatten(1, 2).numpy()
    return found


def colours(bands: tuple[str, ...]) -> Tensor:
    """What of each band goes into red, green and blue, (3, C). Without B04, B03 and B02: the first bands, in order."""
    if bands == ("VV", "VH"):
        return torch.tensor(_RATIO)
    wanted = _TRUE_COLOUR if set(_TRUE_COLOUR) <= set(bands) else (bands * 3 if len(bands) < 3 else bands)[:3]
    return torch.eye(len(bands))[[bands.index(name) for name in wanted]]


def reconstruct(model: Croma | Satmae, batch: Batch, *, seed: int) -> dict[str, Reconstruction]:
    """What `model` predicts of a batch, by sensor.

    Where the target is standardised patch by patch, the prediction is scaled back by mean and deviation of the true
    patch, as in MAE's own pictures: these two are given away, and the pattern within a patch is what was predicted.
    """
    if isinstance(model, Croma):
        return _croma(model, batch, seed)
    return {"s2": _satmae(model, batch, seed)}


def _croma(model: Croma, batch: Batch, seed: int) -> dict[str, Reconstruction]:
    config, images = model.config, (batch.images["s2"], batch.images["s1"])
    noises = croma_noises(batch, config, seed)
    masks = model.mask(noises["noise_s1_BL"]), model.mask(noises["noise_s2_BL"])
    predicted_BLP = model.predict(images[1], images[0], masks=masks)
    true_BLP = torch.cat([patchify(image, config.patch) for image in images], dim=-1)
    whole = (0, config.optical_bands * config.patch**2, true_BLP.shape[-1])
    normed = whole if config.target_norm == "per_sensor" else (whole[0], whole[-1])
    parts = [_scaled_back(predicted_BLP[..., a:b], true_BLP[..., a:b]) for a, b in pairwise(normed)]
    values = torch.cat(parts, dim=-1).tensor_split([whole[1]], dim=-1)
    return {
        name: Reconstruction(
            images=image,
            predicted=unpatchify(value, config.patch, columns=config.grid),
            hidden=_pixels(mask.removed_BL, config.grid, config.patch).expand_as(image),
        )
        for name, image, value, mask in zip(("s2", "s1"), images, values, masks[::-1], strict=True)
    }


def _satmae(model: Satmae, batch: Batch, seed: int) -> Reconstruction:
    config = model.config
    images = upscale.pyramid(batch.images["s2"], config.upscales)[0]
    dates = batch.dates_BT3 if config.variant == "temporal" else None
    mask = model.mask(satmae_noise(batch, config, seed))
    predicted = model.decode(model.encode_visible(images, mask, dates), mask, dates)
    rows_RCHW = images.reshape(-1, *images.shape[-3:])
    return Reconstruction(
        images=rows_RCHW,
        predicted=_satmae_image(predicted, rows_RCHW, config),
        hidden=_satmae_hidden(mask, config).expand_as(rows_RCHW),
        frames=config.frames if config.variant == "temporal" else 1,
    )


def _satmae_image(predicted: Tensor, images_RCHW: Tensor, config: SatmaeConfig) -> Tensor:
    if config.variant == "group" and config.mode == "exact":
        predicted = satmae_target.to_band_order(predicted, config.group_positions)
    if config.variant == "temporal":
        predicted = predicted.reshape(len(images_RCHW), -1, predicted.shape[-1])
    image_RCHW = satmae_target.to_image(predicted, config)
    if not config.norm_pix:
        return image_RCHW
    back_RLP = _scaled_back(patchify(image_RCHW, config.patch), patchify(images_RCHW, config.patch))
    return unpatchify(back_RLP, config.patch, columns=config.grid)


def _satmae_hidden(mask: Mask, config: SatmaeConfig) -> Tensor:
    """(R, C or 1, H, W)."""
    slots_BSL = torch.unflatten(mask.removed_BL, 1, (config.slots, -1))
    if config.variant != "group":
        return _pixels(slots_BSL.flatten(0, 1), config.grid, config.patch)
    of_band = [next(s for s, group in enumerate(config.groups) if band in group) for band in config.bands]
    pixels = [_pixels(slots_BSL[:, slot], config.grid, config.patch) for slot in of_band]
    return torch.cat(pixels, dim=1)


def _scaled_back(predicted_BLP: Tensor, true_BLP: Tensor) -> Tensor:
    variance, mean = torch.var_mean(true_BLP, dim=-1, keepdim=True)
    return predicted_BLP * (variance + _EPS).sqrt() + mean


def _pixels(removed_BL: Tensor, grid: int, patch: int) -> Tensor:
    """(B, 1, H, W)."""
    places = removed_BL.reshape(-1, 1, grid, grid)
    return places.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def _levels(shares: Tensor) -> Tensor:
    return (shares.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
