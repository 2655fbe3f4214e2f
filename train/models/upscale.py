"""SatMAE++'s reconstructions at two and four times the size (Noman et al., CVPR 2024, arXiv 2403.05419, section 3.2).

Its parts sit beside the decoder in the state dict, so they are given by name.

Axes: B batch, C bands, H W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError

MAE_WEIGHT = 0.6
"""Share of the masked error in the loss; the rest is the mean L1 error of the larger reconstructions."""
_WIDER = 4
_EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the bands of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return super().forward(x_BCHW.movedim(1, -1)).movedim(-1, 1)


class Residual(nn.Module):
    """Two convolutions, at half strength beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        out: Tensor = x_BCHW + 0.5 * self.conv2(self.conv1(x_BCHW).relu())
        return out


class UpBlock(nn.Module):
    """Features at twice the size, and the image they show."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        channels = _WIDER * bands
        self.up_conv = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up_norm = ChannelNorm(channels)
        self.res_block = Residual(channels)
        self.res_norm = ChannelNorm(channels)
        self.proj_out = nn.Conv2d(channels, bands, 3, padding=1)
        self.apply(_first_weights)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4 C, H, W) to features (B, 4 C, 2 H, 2 W) and image (B, C, 2 H, 2 W)."""
        x_BCHW = functional.leaky_relu(self.up_norm(self.up_conv(x_BCHW)), 0.01)
        features_BCHW = self.res_norm(self.res_block(x_BCHW))
        return features_BCHW, self.proj_out(features_BCHW)


def parts(bands: int, upscales: int) -> dict[str, nn.Module]:
    """The modules by their released names; none without upscaling."""
    if not upscales:
        return {}
    wide = _WIDER * bands
    shared = {"proj_up_conv": nn.Conv2d(bands, wide, 1), "proj_up_norm": ChannelNorm(wide)}
    return shared | {name: UpBlock(bands) for name in _block_names(upscales)}


def reconstruct(model: nn.Module, image_BCHW: Tensor, upscales: int) -> list[Tensor]:
    """Larger images from the decoder's one, the smallest first; `model` holds `parts`."""
    x_BCHW = model.get_submodule("proj_up_norm")(functional.gelu(model.get_submodule("proj_up_conv")(image_BCHW)))
    images = []
    for name in _block_names(upscales):
        x_BCHW, image = model.get_submodule(name)(x_BCHW)
        images.append(image.to(torch.promote_types(image.dtype, torch.float32)))
    return images


def pyramid(images: Tensor, upscales: int) -> tuple[Tensor, ...]:
    """The image at 1, 2, ... times the encoder's size, from the largest: each is the 2 x 2 mean of the next."""
    if upscales and any(side % 2**upscales for side in images.shape[-2:]):
        raise UsageError(f"images of {tuple(images.shape[-2:])} px cannot be halved {upscales} times. Crop them.")
    scales = [images]
    for _ in range(upscales):
        scales.insert(0, functional.avg_pool2d(scales[0], 2))
    return tuple(scales)


def _block_names(upscales: int) -> tuple[str, ...]:
    return ("up_block",) if upscales == 1 else tuple(f"up_block{number + 1}" for number in range(upscales))


def _first_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
