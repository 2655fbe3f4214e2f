"""The SatMAE encoder with a classification head, for fine-tuning and for reading released fine-tuned weights.

Here the codes are trained too, and the class token has a code (SatMAE spec: timm's ViT with mean pooling).

Axes: B batch, T frames, N tokens, D width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from train.models import vit
from train.models.positions import wave_code
from train.models.satmae import all_ids, cls_and_places, embed, patch_embed, slot_codes, token_codes
from train.models.satmae_config import SatmaeConfig

Pool = Literal["mean", "cls"]
_TOKEN_STD = 0.02
_HEAD_STD = 2e-5


class SatmaeClassifier(nn.Module):
    """Images or stacks to logits. Load pretrained weights with `load_state_dict(..., strict=False)`.

    State dict keys are the released ones: `fc_norm` (mean) or `norm` (cls), `head`, and for band groups
    `channel_cls_embed`.
    """

    def __init__(self, config: SatmaeConfig, *, classes: int, pool: Pool = "mean", drop_path: float = 0.0) -> None:
        """`drop_path` is the rate of the last block; it grows linearly from 0."""
        super().__init__()
        self.config, self.pool = config, pool
        width, rates = config.encoder_dim, torch.linspace(0, drop_path, config.depth).tolist()
        self.patch_embed = patch_embed(config)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * _TOKEN_STD)
        places = cls_and_places(config.grid, config.spatial_dim)
        # From scratch, the released temporal model starts without place code.
        self.pos_embed = nn.Parameter(torch.zeros_like(places) if config.variant == "temporal" else places)
        if config.variant == "group":
            self.channel_embed = nn.Parameter(wave_code(torch.arange(config.slots), width=config.slot_dim)[None])
            self.channel_cls_embed = nn.Parameter(torch.zeros(1, 1, config.slot_dim))
        self.blocks = nn.ModuleList(
            vit.Block(width, config.heads, mlp_ratio=config.mlp_ratio, drop_path=rate) for rate in rates
        )
        self.add_module("fc_norm" if pool == "mean" else "norm", nn.LayerNorm(width, eps=vit.EPS))
        self.apply(vit.first_weights)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=_HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, dates_BT3: Tensor | None = None) -> Tensor:
        """Logits (B, classes) of images as in `Satmae.forward`."""
        out: Tensor = self.head(self.features(images, dates_BT3))
        return out

    def features(self, images: Tensor, dates_BT3: Tensor | None = None) -> Tensor:
        """What the head sees, (B, D)."""
        ids_BN = all_ids(images, self.config)
        table = getattr(self, "channel_embed", self.pos_embed[:, :1, :0])
        slots = slot_codes(self.config, self.config.slot_dim, table, dates_BT3)
        content_BND = embed(self.patch_embed, images, ids_BN, config=self.config)
        tokens_BND = content_BND + token_codes(ids_BN, self.pos_embed[0, 1:], slots)
        cls_B1D = (self.cls_token + self._cls_code()).expand(images.shape[0], -1, -1)
        out_BND = vit.run(self.blocks, torch.cat((cls_B1D, tokens_BND), dim=1))
        if self.pool == "cls":
            cls_BD: Tensor = self.get_submodule("norm")(out_BND)[:, 0]
            return cls_BD
        pooled_BD: Tensor = self.get_submodule("fc_norm")(out_BND[:, 1:].mean(dim=1))
        return pooled_BD

    def _cls_code(self) -> Tensor:
        place = self.pos_embed[:, :1]
        if self.config.variant == "group":
            return torch.cat((place, self.channel_cls_embed), dim=2)
        return torch.cat((place, place.new_zeros(1, 1, self.config.slot_code_dim)), dim=2)
