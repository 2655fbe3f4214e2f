"""CROMA: contrastive radar-optical masked autoencoders (Fuller et al., NeurIPS 2023, arXiv 2311.00566).

Read `Croma.forward` first: two masked encoders, a contrastive loss on their pooled features, a fusion encoder in which
SAR tokens look at optical ones, and a decoder that predicts the hidden patches of both sensors from it.

Where the published code departs from the paper's mathematics, mode `exact` follows the paper and `official` the code:
the fusion encoder's self-attention is given SAR-SAR distances (official: SAR-optical), and the contrastive loss keeps
the gradient of gathered features (official: drops it). Unmasked features are the same in both modes.

Axes: B batch, C bands, H W pixels, L patches, K kept patches, P values of a patch, D width, N heads. `s1` is SAR, `s2`
optical.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from train.batch import Losses
from train.choices import Mode
from train.models.blocks import Bias, Encoder, FusionEncoder, Transformer, at_least_float32, patchify, pooled_head
from train.models.contrastive import Contrast, ContrastiveHead
from train.models.masking import Mask, kept_count, mask_from_noise, take_patches
from train.models.positions import AlibiRows, alibi_bias, alibi_slopes, grid_yx, patch_yx, sincos_table

TargetNorm = Literal["joint", "per_sensor"]
_TARGET_EPS = 1e-6
_MASK_TOKEN_STD = 0.02
_LARGE_PATCHES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CromaConfig:
    """Everything that defines a CROMA model; the defaults are CROMA-B."""

    encoder_dim: int = 768
    depth: int = 12
    """Layers of the optical encoder; SAR and fusion encoders have half of them, rounded down."""
    heads: int = 16
    patch: int = 8
    """Side of a patch, px."""
    image_px: int = 120
    """Side of a pretraining image, px; `Croma.encode` takes any size."""
    sar_bands: int = 2
    optical_bands: int = 12
    decoder_dim: int = 512
    decoder_depth: int = 1
    decoder_heads: int = 8
    mask_ratio: float = 0.75
    mode: Mode = "exact"
    target_norm: TargetNorm = "joint"
    """Standardise a patch's target over all bands at once (as published), or each sensor's bands by themselves."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"CROMA's {field.name} is {value}. Set it to 1 or more.")
        if self.depth < 2 or self.image_px % self.patch:
            raise UsageError(
                f"CROMA needs a depth of at least 2 and an image of whole patches, but depth is {self.depth}, image_px "
                f"{self.image_px}, patch {self.patch}. Deepen the encoder or choose a multiple of the patch."
            )
        kept_count(self.patches, self.mask_ratio)

    @property
    def grid(self) -> int:
        """Patches along one side of a pretraining image."""
        return self.image_px // self.patch

    @property
    def patches(self) -> int:
        """L of a pretraining image."""
        return self.grid**2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Biases:
    """Attention biases of one step, (B or 1, N, Q, K) each, shared by all layers."""

    s1: Tensor
    s2: Tensor
    joint_self: Tensor
    joint_cross: Tensor


class Decoder(nn.Module):
    """Predicts all bands of all patches from the fusion tokens (CROMA section 3.1)."""

    decoder_pos_embed: Tensor

    def __init__(self, config: CromaConfig) -> None:
        super().__init__()
        width, values = config.decoder_dim, config.patch**2 * (config.sar_bands + config.optical_bands)
        self.encoder_to_decoder = nn.Linear(config.encoder_dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * _MASK_TOKEN_STD)
        self.register_buffer("decoder_pos_embed", sincos_table(config.grid, config.grid, width=width)[None])
        self.decoder = Transformer(width, config.decoder_depth, config.decoder_heads)
        self.linear_output = nn.Linear(width, values)

    def forward(self, joint_BKD: Tensor, keep_ids_BK: Tensor) -> Tensor:
        """Fusion tokens and their patch numbers to (B, L, P), optical bands first."""
        kept_BKD = self.encoder_to_decoder(joint_BKD).to(self.mask_token.dtype)
        batch, patches = kept_BKD.shape[0], self.decoder_pos_embed.shape[1]
        hidden_BLD = self.mask_token.expand(batch, patches, -1)
        tokens_BLD = hidden_BLD.scatter(1, keep_ids_BK[:, :, None].expand_as(kept_BKD), kept_BKD)
        out: Tensor = self.linear_output(self.decoder(tokens_BLD + self.decoder_pos_embed))
        return out


class Croma(nn.Module):
    """The pretraining model; `encode` is what remains of it afterwards.

    DDP needs no `find_unused_parameters`: `total` reaches every parameter. Do not use `static_graph`, which cannot see
    into a returned dataclass.
    """

    slopes_N: Tensor

    def __init__(self, config: CromaConfig) -> None:
        super().__init__()
        self.config = config
        width, half, pixels = config.encoder_dim, config.depth // 2, config.patch**2
        self.s1_encoder = Encoder(config.sar_bands * pixels, width=width, depth=half, heads=config.heads)
        self.s1_GAP_FFN = pooled_head(width)
        self.s2_encoder = Encoder(config.optical_bands * pixels, width=width, depth=config.depth, heads=config.heads)
        self.s2_GAP_FFN = pooled_head(width)
        self.joint_encoder = FusionEncoder(width, half, config.heads)
        self.decoder = Decoder(config)
        self.contrastive = ContrastiveHead(width, mode=config.mode)
        self.register_buffer("slopes_N", alibi_slopes(config.heads), persistent=False)

    def forward(
        self,
        s1_BCHW: Tensor,
        s2_BCHW: Tensor,
        *,
        noise_s1_BL: Tensor,
        noise_s2_BL: Tensor,
        contrast: Contrast | None = None,
    ) -> Losses:
        """The training losses of a batch.

        Args:
            s1_BCHW: float in 0..1, SAR bands.
            s2_BCHW: float in 0..1, optical bands.
            noise_s1_BL: uniform noise that chooses the SAR patches to hide.
            noise_s2_BL: the same for the optical patches, independent of it.
            contrast: of a micro-batch: the contrastive loss of the whole, from `contrasts`.

        Returns:
            `total = contrastive + mae` and the parts `contrastive, mae, mae_optical, mae_sar`.
        """
        self._check_step(s1_BCHW, s2_BCHW, noises=(noise_s1_BL, noise_s2_BL))
        s1_BLP, s2_BLP = patchify(s1_BCHW, self.config.patch), patchify(s2_BCHW, self.config.patch)
        masks = self.mask(noise_s1_BL), self.mask(noise_s2_BL)
        s1_BKD, s2_BKD, biases = self._visible(s1_BLP, s2_BLP, masks)
        contrastive = self.contrastive(*self.pool(s1_BKD, s2_BKD), contrast)
        predicted_BLP = self.decoder(self.fuse(s1_BKD, s2_BKD, biases), masks[0].keep_ids_BK)
        target_BLP = reconstruction_target(s1_BLP, s2_BLP, norm=self.config.target_norm)
        mae_optical, mae_sar = self.reconstruction_losses(predicted_BLP, target_BLP, masks=masks)
        return _losses(contrastive, mae_optical, mae_sar)

    @torch.no_grad()
    def projected(
        self, s1_BCHW: Tensor, s2_BCHW: Tensor, *, noise_s1_BL: Tensor, noise_s2_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features (B, D) that `forward` compares, of SAR and optical images, without gradient."""
        s1_BLP, s2_BLP = patchify(s1_BCHW, self.config.patch), patchify(s2_BCHW, self.config.patch)
        s1_BKD, s2_BKD, _ = self._visible(s1_BLP, s2_BLP, (self.mask(noise_s1_BL), self.mask(noise_s2_BL)))
        return self.contrastive.project(*self.pool(s1_BKD, s2_BKD))

    def predict(self, s1_BCHW: Tensor, s2_BCHW: Tensor, *, masks: tuple[Mask, Mask]) -> Tensor:
        """What the decoder makes of visible patches, (B, L, P), optical bands first; in the target's units.

        Args:
            s1_BCHW: as in `forward`.
            s2_BCHW: as in `forward`.
            masks: of SAR, then optical.
        """
        s1_BLP, s2_BLP = patchify(s1_BCHW, self.config.patch), patchify(s2_BCHW, self.config.patch)
        predicted_BLP: Tensor = self.decoder(self.fuse(*self._visible(s1_BLP, s2_BLP, masks)), masks[0].keep_ids_BK)
        return predicted_BLP

    def _visible(self, s1_BLP: Tensor, s2_BLP: Tensor, masks: tuple[Mask, Mask]) -> tuple[Tensor, Tensor, Biases]:
        """Encoded visible SAR and optical tokens (B, K, D), and their biases."""
        s1_ids, s2_ids = (mask.keep_ids_BK for mask in masks)
        biases = self.biases(s1_ids, s2_ids)
        s1_BKD = self.s1_encoder(take_patches(s1_BLP, s1_ids), biases.s1)
        return s1_BKD, self.s2_encoder(take_patches(s2_BLP, s2_ids), biases.s2), biases

    def mask(self, noise_BL: Tensor) -> Mask:
        """The patches one sensor keeps, at this model's ratio."""
        return mask_from_noise(noise_BL, ratio=self.config.mask_ratio)

    def biases(self, s1_ids_BK: Tensor, s2_ids_BK: Tensor) -> Biases:
        """2D-ALiBi within and X-ALiBi between the sensors, for the kept patches of a pretraining image."""
        s1_yx, s2_yx = patch_yx(s1_ids_BK, self.config.grid), patch_yx(s2_ids_BK, self.config.grid)
        own, cross = self._bias(s1_yx, s1_yx), self._bias(s1_yx, s2_yx)
        joint_self = cross if self.config.mode == "official" else own
        return Biases(s1=own, s2=self._bias(s2_yx, s2_yx), joint_self=joint_self, joint_cross=cross)

    def pool(self, s1_BKD: Tensor, s2_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled SAR and optical features (B, D) of encoded tokens."""
        return self.s1_GAP_FFN(s1_BKD.mean(dim=1)), self.s2_GAP_FFN(s2_BKD.mean(dim=1))

    def fuse(self, s1_BKD: Tensor, s2_BKD: Tensor, biases: Biases) -> Tensor:
        """Fusion tokens (B, K, D), at the SAR tokens' places."""
        joint_BKD: Tensor = self.joint_encoder(
            s1_BKD, s2_BKD, self_bias=biases.joint_self, cross_bias=biases.joint_cross
        )
        return joint_BKD

    def reconstruction_losses(
        self, predicted_BLP: Tensor, target_BLP: Tensor, *, masks: tuple[Mask, Mask]
    ) -> tuple[Tensor, Tensor]:
        """Optical and SAR mean squared error, each over the patches hidden from that sensor.

        Args:
            predicted_BLP: the decoder's output, optical bands first.
            target_BLP: `reconstruction_target`.
            masks: of SAR, then optical.
        """
        mask_s1, mask_s2 = masks
        squared_BLP = (at_least_float32(predicted_BLP) - target_BLP).square()
        optical, sar = squared_BLP.tensor_split([self.config.optical_bands * self.config.patch**2], dim=-1)
        return _hidden_mean(optical, mask_s2.removed_BL), _hidden_mean(sar, mask_s1.removed_BL)

    def encode(self, s1_BCHW: Tensor | None = None, s2_BCHW: Tensor | None = None) -> dict[str, Tensor]:
        """Features of whole images of any size, rectangular ones too; one sensor is enough.

        Without gradient the memory grows with the number of patches, not with its square.

        Args:
            s1_BCHW: float in 0..1, SAR bands; sides are multiples of the patch.
            s2_BCHW: float in 0..1, optical bands, of the same size.

        Returns:
            `SAR_encodings (B, L, D), SAR_GAP (B, D)` and `optical_*` for the sensors given, `joint_*` for both: the
            released model's names.
        """
        images = [image for image in (s1_BCHW, s2_BCHW) if image is not None]
        if not images or len({(*image.shape[:1], *image.shape[2:]) for image in images}) > 1:
            shapes = [tuple(image.shape) for image in images]
            raise UsageError(f"encode needs SAR, optical or both at one size, but got {shapes}. Pass equal B, H and W.")
        rows, cols = (side // self.config.patch for side in images[0].shape[2:])
        grid = grid_yx(rows, cols, device=images[0].device)[None]
        # A large image's bias is computed as it is needed: at 504 px it has 250 million numbers.
        lazy = rows * cols > _LARGE_PATCHES and not torch.is_grad_enabled()
        rows_of = AlibiRows(query_yx=grid, key_yx=grid, slopes_N=self.slopes_N.float())
        return self._encode_all(s1_BCHW, s2_BCHW, rows_of if lazy else self._bias(grid, grid))

    def _encode_all(self, s1_BCHW: Tensor | None, s2_BCHW: Tensor | None, bias: Bias) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if s1_BCHW is not None:
            out["SAR_encodings"] = s1 = self.s1_encoder(patchify(s1_BCHW, self.config.patch), bias)
            out["SAR_GAP"] = self.s1_GAP_FFN(s1.mean(dim=1))
        if s2_BCHW is not None:
            out["optical_encodings"] = s2 = self.s2_encoder(patchify(s2_BCHW, self.config.patch), bias)
            out["optical_GAP"] = self.s2_GAP_FFN(s2.mean(dim=1))
        if s1_BCHW is not None and s2_BCHW is not None:
            out["joint_encodings"] = joint = self.joint_encoder(s1, s2, self_bias=bias, cross_bias=bias)
            out["joint_GAP"] = joint.mean(dim=1)
        return out

    def _bias(self, query_yx: Tensor, key_yx: Tensor) -> Tensor:
        # Slopes stay float32 when the model is float64: that is where the published table is rounded.
        bias = alibi_bias(query_yx, key_yx, self.slopes_N.float())
        fused = bias.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        # Fused kernels want the queries' dtype: cast once here, not in every layer.
        return bias.to(torch.get_autocast_dtype("cuda")) if fused else bias

    def _check_step(self, s1_BCHW: Tensor, s2_BCHW: Tensor, *, noises: tuple[Tensor, Tensor]) -> None:
        config, batch = self.config, s1_BCHW.shape[0]
        side = config.image_px
        found = [tuple(x.shape) for x in (s1_BCHW, s2_BCHW, *noises)]
        images = [(batch, bands, side, side) for bands in (config.sar_bands, config.optical_bands)]
        wanted = [*images, (batch, config.patches), (batch, config.patches)]
        if found != wanted:
            raise UsageError(
                f"CROMA's SAR, optical, SAR noise and optical noise have shapes {found} but the model wants {wanted}. "
                "Crop to image_px, or build the model for this size."
            )


def reconstruction_target(s1_BLP: Tensor, s2_BLP: Tensor, *, norm: TargetNorm = "joint") -> Tensor:
    """Patches with mean 0 and variance 1, optical bands first, (B, L, P) in float32 or better (CROMA section 3.1).

    Args:
        s1_BLP: SAR patches.
        s2_BLP: optical patches.
        norm: one mean and variance per patch place for both sensors, or one for each.
    """
    s1_BLP, s2_BLP = at_least_float32(s1_BLP), at_least_float32(s2_BLP)
    if norm == "joint":
        return _standardise(torch.cat((s2_BLP, s1_BLP), dim=-1))
    return torch.cat((_standardise(s2_BLP), _standardise(s1_BLP)), dim=-1)


def _standardise(patches_BLP: Tensor) -> Tensor:
    # Unbiased, as published; the epsilon turns a constant patch into zeros.
    variance, mean = torch.var_mean(patches_BLP, dim=-1, keepdim=True)
    return (patches_BLP - mean) / (variance + _TARGET_EPS).sqrt()


def _hidden_mean(squared_BLP: Tensor, removed_BL: Tensor) -> Tensor:
    error_BL = squared_BLP.mean(dim=-1)
    return (error_BL * removed_BL).sum() / removed_BL.sum()


def _losses(contrastive: Tensor, mae_optical: Tensor, mae_sar: Tensor) -> Losses:
    mae = mae_optical + mae_sar
    parts = {"contrastive": contrastive, "mae": mae, "mae_optical": mae_optical, "mae_sar": mae_sar}
    return Losses(total=contrastive + mae, parts={name: part.detach() for name, part in parts.items()})
