"""SatMAE: masked autoencoders for multi-spectral and temporal images (Cong et al., NeurIPS 2022, arXiv 2207.08051).

Read `Satmae.forward` first: hide tokens, encode the visible ones, decode all, compare the hidden patches. The variants
differ in what a slot is (see `satmae_config`), in the code that tells slots apart, and in who predicts what. Attribute
names are those of the released weights. SatMAE++ (Noman et al., CVPR 2024) adds `upscale` behind the decoder.

Where the released code departs from the paper, mode `exact` follows the paper and `official` the code: there the group
model's predictions, in the groups' order, are compared with the target in the bands' order.

Axes: B batch, T frames, C bands, H W pixels, S slots, L places, N = S L tokens, K kept tokens, P values of a patch,
Q = patch * patch, D width, E width of the slot code.
"""

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from train.batch import Losses
from train.models import satmae_target, upscale, vit
from train.models.blocks import patchify, take_bands
from train.models.masking import Mask, consistent_mask, mask_from_noise, take_patches
from train.models.positions import sincos_table, wave_code
from train.models.satmae_config import SatmaeConfig

_TOKEN_STD = 0.02
FIRST_YEAR = 2002
"""Years are counted from here; months and hours from 0."""


class Satmae(nn.Module):
    """The pretraining model; `encode` is what remains of it afterwards."""

    pos_embed: Tensor
    decoder_pos_embed: Tensor

    def __init__(self, config: SatmaeConfig) -> None:
        super().__init__()
        self.config = config
        width, decoder_width, ratio = config.encoder_dim, config.decoder_dim, config.mlp_ratio
        self.patch_embed = patch_embed(config)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * _TOKEN_STD)
        self.blocks = nn.ModuleList(vit.Block(width, config.heads, mlp_ratio=ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=vit.EPS)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_width) * _TOKEN_STD)
        self.decoder_blocks = nn.ModuleList(
            vit.Block(decoder_width, config.decoder_heads, mlp_ratio=ratio) for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=vit.EPS)
        self.decoder_pred = _heads(config)
        self.apply(vit.first_weights)
        self._add_tables()
        for name, module in upscale.parts(len(config.bands), config.upscales).items():
            self.add_module(name, module)

    def forward(self, images: Tensor, *, noise: Tensor, dates_BT3: Tensor | None = None) -> Losses:
        """The training losses of a batch.

        Args:
            images: (B, C, H, W), of the temporal variant (B, T, C, H, W); float. For SatMAE++ at the largest scale.
            noise: (B, `config.noise_count`) uniform noise that chooses the tokens to hide.
            dates_BT3: int64 year, month and hour (UTC) of each frame; of the temporal variant only.

        Returns:
            `total` and the part `mae`; of SatMAE++ also `l1_2x` and `l1_4x`.
        """
        scales = upscale.pyramid(images, self.config.upscales)
        self._check_step(scales[0], noise)
        mask = self.mask(noise)
        latent_BKD = self.encode_visible(scales[0], mask, dates_BT3)
        predicted = self.decode(latent_BKD, mask, dates_BT3)
        return self.losses(predicted, scales, mask)

    def mask(self, noise: Tensor) -> Mask:
        """The tokens that stay visible."""
        config = self.config
        if config.consistent:
            return consistent_mask(noise, slots=config.slots, ratio=config.mask_ratio, kept=config.kept_tokens)
        return mask_from_noise(noise, ratio=config.mask_ratio)

    def tokens(self, images: Tensor, ids_BK: Tensor, dates_BT3: Tensor | None = None) -> Tensor:
        """Embedded patches `ids_BK` with their codes, (B, K, D): what goes into the first block."""
        content_BKD = embed(self.patch_embed, images, ids_BK, config=self.config)
        table_LE = place_table(images, self.pos_embed[0, 1:], self.config)
        return content_BKD + token_codes(ids_BK, table_LE, self._slot_codes(dates_BT3))

    def encode_visible(self, images: Tensor, mask: Mask, dates_BT3: Tensor | None = None) -> Tensor:
        """Class token and visible tokens behind the last norm, (B, 1 + K, D)."""
        return self._encode(self.tokens(images, mask.keep_ids_BK, dates_BT3))

    def decode(self, latent_BKD: Tensor, mask: Mask, dates_BT3: Tensor | None = None) -> Tensor:
        """Predicted patches of all tokens.

        Returns:
            (B, C, L, Q) of the group variant, its bands in the groups' order; else (B, N, Q C), bands fastest.
        """
        codes_BSE = self._decoder_slot_codes(dates_BT3)
        tokens_BND = self.decoder_embed(latent_BKD).to(self.mask_token.dtype)
        all_BND = self._fill(tokens_BND[:, 1:], mask)
        ids_1N = torch.arange(all_BND.shape[1], device=all_BND.device)[None]
        all_BND = all_BND + token_codes(ids_1N, self.decoder_pos_embed[0, 1:], codes_BSE)
        cls_B1D = tokens_BND[:, :1] + self._decoder_cls_code()
        decoded_BND = self.decoder_norm(vit.run(self.decoder_blocks, torch.cat((cls_B1D, all_BND), dim=1)))[:, 1:]
        return self._predict(decoded_BND)

    def losses(self, predicted: Tensor, scales: tuple[Tensor, ...], mask: Mask) -> Losses:
        """`decode`'s output against the images at 1, 2 and 4 times the size, as far as the model has them."""
        config = self.config
        if config.variant == "group" and config.mode == "exact":
            predicted = satmae_target.to_band_order(predicted, config.group_positions)
        mae = satmae_target.masked_error(predicted, scales[0], mask.removed_BL, config=config)
        if not config.upscales:
            return Losses(total=mae, parts={"mae": mae.detach()})
        image_BCHW = satmae_target.to_image(predicted, config)
        larger = upscale.reconstruct(self, image_BCHW, config.upscales)
        errors = [(ours - theirs).abs().mean() for ours, theirs in zip(larger, scales[1:], strict=True)]
        total = upscale.MAE_WEIGHT * mae + (1 - upscale.MAE_WEIGHT) * torch.stack(errors).mean()
        names = {f"l1_{2**scale}x": error.detach() for scale, error in enumerate(errors, start=1)}
        return Losses(total=total, parts={"mae": mae.detach(), **names})

    def encode(self, images: Tensor, dates_BT3: Tensor | None = None) -> dict[str, Tensor]:
        """Features of whole images of any size, and of stacks of any length.

        Args:
            images: as in `forward`, at the encoder's own scale; sides are multiples of the patch.
            dates_BT3: as in `forward`.

        Returns:
            `encodings (B, S, L, D)`, `cls (B, D)` and `pooled (B, D)`, the mean of the encodings.
        """
        ids_BN = all_ids(images, self.config)
        latent_BND = self._encode(self.tokens(images, ids_BN, dates_BT3))
        cls_BD, encodings_BND = latent_BND[:, 0], latent_BND[:, 1:]
        slots = slot_count(images, self.config)
        encodings_BSLD = torch.unflatten(encodings_BND, 1, (slots, -1))
        return {"encodings": encodings_BSLD, "cls": cls_BD, "pooled": encodings_BND.mean(dim=1)}

    def _encode(self, tokens_BKD: Tensor) -> Tensor:
        cls_B1D = self.cls_token.expand(tokens_BKD.shape[0], -1, -1).to(tokens_BKD.dtype)
        out: Tensor = self.norm(vit.run(self.blocks, torch.cat((cls_B1D, tokens_BKD), dim=1)))
        return out

    def _fill(self, kept_BKD: Tensor, mask: Mask) -> Tensor:
        """All tokens in their places: the kept ones, and the mask token elsewhere."""
        hidden_BND = self.mask_token.expand(*mask.removed_BL.shape, -1)
        return hidden_BND.scatter(1, mask.keep_ids_BK[:, :, None].expand_as(kept_BKD), kept_BKD)

    def _predict(self, decoded_BND: Tensor) -> Tensor:
        if not isinstance(self.decoder_pred, nn.ModuleList):
            out: Tensor = self.decoder_pred(decoded_BND)
            return out
        slots = torch.unflatten(decoded_BND, 1, (self.config.slots, -1)).unbind(1)
        parts = [head(slot_BLD) for head, slot_BLD in zip(self.decoder_pred, slots, strict=True)]
        pixels = self.config.patch**2
        return torch.cat([torch.unflatten(part, 2, (-1, pixels)).transpose(1, 2) for part in parts], dim=1)

    def _add_tables(self) -> None:
        """The fixed codes, in the state dict as they are in the released one."""
        config = self.config
        self.register_buffer("pos_embed", cls_and_places(config.grid, config.spatial_dim))
        self.register_buffer("decoder_pos_embed", cls_and_places(config.grid, config.decoder_spatial_dim))
        if config.variant == "group":
            groups = torch.arange(config.slots + 1)
            self.register_buffer("channel_embed", wave_code(groups[:-1], width=config.slot_dim)[None])
            # The decoder's last row is the class token's.
            self.register_buffer("decoder_channel_embed", wave_code(groups, width=config.decoder_slot_dim)[None])

    def _slot_codes(self, dates_BT3: Tensor | None) -> Tensor:
        table = getattr(self, "channel_embed", self.pos_embed[:, :1, :0])
        return slot_codes(self.config, self.config.slot_dim, table, dates_BT3)

    def _decoder_slot_codes(self, dates_BT3: Tensor | None) -> Tensor:
        table = getattr(self, "decoder_channel_embed", self.pos_embed[:, :1, :0])
        codes = slot_codes(self.config, self.config.decoder_slot_dim, table, dates_BT3)
        return codes[:, :-1] if self.config.variant == "group" else codes

    def _decoder_cls_code(self) -> Tensor:
        zeros = self.decoder_pos_embed.new_zeros(self.config.decoder_spatial_dim)
        if self.config.variant != "group":
            return self.decoder_pos_embed.new_zeros(self.config.decoder_dim)
        return torch.cat((zeros, self.get_buffer("decoder_channel_embed")[0, -1]))

    def _check_step(self, images: Tensor, noise: Tensor) -> None:
        config = self.config
        frames = (config.frames,) if config.variant == "temporal" else ()
        image = (*frames, len(config.bands), config.image_px, config.image_px)
        found = [tuple(images.shape), tuple(noise.shape)]
        wanted = [(images.shape[0], *image), (images.shape[0], config.noise_count)]
        if found != wanted:
            raise UsageError(
                f"SatMAE's images and noise have shapes {found} but the model wants {wanted}. "
                "Crop to image_px, or build the model for this size."
            )


def patch_embed(config: SatmaeConfig) -> nn.Module:
    """One embedding per band group, or one for all slots."""
    if config.variant != "group":
        return vit.PatchEmbed(len(config.bands), config.patch, config.encoder_dim)
    return nn.ModuleList(vit.PatchEmbed(len(group), config.patch, config.encoder_dim) for group in config.groups)


def _heads(config: SatmaeConfig) -> nn.Module:
    pixels, width = config.patch**2, config.decoder_dim
    if config.variant != "group":
        return nn.Linear(width, pixels * len(config.bands))
    return nn.ModuleList(nn.Linear(width, pixels * len(group)) for group in config.groups)


def embed(module: nn.Module, images: Tensor, ids_BK: Tensor, *, config: SatmaeConfig) -> Tensor:
    """The patches `ids_BK`, embedded without codes, (B, K, D).

    Only these are embedded, but for the group variant: its groups differ in patch length, so that the least padded
    product over kept tokens costs three quarters of embedding all, which is 0.3 % of a step.
    """
    if not isinstance(module, nn.ModuleList):
        frames = images.flatten(0, 1) if config.variant == "temporal" else images
        patches_BNP = patchify(frames, config.patch).reshape(images.shape[0], -1, module_values(config))
        out: Tensor = module(take_patches(patches_BNP, ids_BK))
        return out
    parts = [
        part(patchify(take_bands(images, places), config.patch))
        for part, places in zip(module, config.group_positions, strict=True)
    ]
    return take_patches(torch.cat(parts, dim=1), ids_BK)


def module_values(config: SatmaeConfig) -> int:
    """P of a patch that holds all bands."""
    return config.patch**2 * len(config.bands)


def token_codes(ids_BK: Tensor, table_LE: Tensor, slots_BSE: Tensor) -> Tensor:
    """Place code and slot code side by side, (B, K, D).

    Args:
        ids_BK: int64 token numbers, `s L + l`; B may be 1.
        table_LE: place codes.
        slots_BSE: slot codes; B may be 1.
    """
    places = table_LE.shape[0]
    slot_BK = ids_BK.div(places, rounding_mode="floor")
    batch = max(ids_BK.shape[0], slots_BSE.shape[0])
    index_BKE = slot_BK.expand(batch, -1)[:, :, None].expand(-1, -1, slots_BSE.shape[2])
    slot_BKE = slots_BSE.expand(batch, -1, -1).gather(1, index_BKE)
    return torch.cat((table_LE[ids_BK % places].expand(batch, -1, -1), slot_BKE), dim=2)


def slot_codes(config: SatmaeConfig, width: int, table: Tensor, dates_BT3: Tensor | None) -> Tensor:
    """Codes of groups (1, G, E) or of nothing (1, 1, 0), which are `table`, or of frames' dates (B, T, 3 width)."""
    if (dates_BT3 is None) == (config.variant == "temporal"):
        raise UsageError(f"the {config.variant} variant takes dates of frames: {config.variant == 'temporal'}.")
    if dates_BT3 is not None:
        year_BT, month_BT, hour_BT = dates_BT3.unbind(2)
        return wave_code(torch.stack((year_BT - FIRST_YEAR, month_BT - 1, hour_BT), dim=2), width=width).flatten(2)
    return table


def cls_and_places(grid: int, width: int) -> Tensor:
    """Place table with a row of zeros for the class token in front, (1, 1 + L, D)."""
    return torch.cat((torch.zeros(1, width), sincos_table(grid, grid, width=width)))[None]


def place_table(images: Tensor, own_LE: Tensor, config: SatmaeConfig) -> Tensor:
    """The model's own place table, or for another image size the one it would have."""
    rows, cols = (side // config.patch for side in images.shape[-2:])
    if (rows, cols) == (config.grid, config.grid):
        return own_LE
    return sincos_table(rows, cols, width=own_LE.shape[1]).to(own_LE)


def slot_count(images: Tensor, config: SatmaeConfig) -> int:
    """S of these images."""
    return images.shape[1] if config.variant == "temporal" else config.slots


def all_ids(images: Tensor, config: SatmaeConfig) -> Tensor:
    """All token numbers of these images, (B, N)."""
    rows, cols = (side // config.patch for side in images.shape[-2:])
    count = slot_count(images, config) * rows * cols
    return torch.arange(count, device=images.device).expand(images.shape[0], -1)
