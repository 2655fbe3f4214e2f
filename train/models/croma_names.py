"""CROMA's weights under other people's names: renaming only, no file and no module.

* *released*: `{"s1_encoder": {...}, "s1_GAP_FFN": {...}, ...}`, five state dicts without decoder and contrastive head.
  Ours begins with the same keys, joined by a dot.
* *torchgeo*: the released one, joined by a dot, with an `attn_bias` that depends on the image size.
* *official*: the state dict of the published pretraining class, decoder and contrastive head included.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RELEASED_PARTS = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
PARTS = (*RELEASED_PARTS, "decoder", "contrastive")
PATCH = 8
"""Pixels. Side of a patch in all published CROMA models and in the code that reads them."""
HEADS = 16
"""Of all published CROMA encoders, and of the code that reads them."""
DECODER_HEADS = 8
"""Of all published CROMA decoders."""
ATTENTION_BIAS = "attn_bias"
"""torchgeo's buffer."""

_PARTS_BY_OFFICIAL = {
    "radar_encoder": "s1_encoder",
    "GAP_FFN_radar": "s1_GAP_FFN",
    "optical_encoder": "s2_encoder",
    "GAP_FFN_optical": "s2_GAP_FFN",
    "cross_encoder": "joint_encoder",
    "decoder": "decoder",
    "global_contrast_loss": "contrastive",
}
_OFFICIAL_BY_PARTS = {ours: official for official, ours in _PARTS_BY_OFFICIAL.items()}
# Patterns see the name behind its first part. Only self-attention calls its output `out`.
_FROM_OFFICIAL = (
    (re.compile(r"\.create_(qkv|q|k|v)\."), r".to_\1."),
    (re.compile(r"(layers\.\d+\.0)\.out\."), r"\1.to_out."),
    (re.compile(r"\.net\.2\."), ".net.3."),
    (re.compile(r"^radar_proj\."), "s1_proj."),
    (re.compile(r"^optical_proj\."), "s2_proj."),
)
_TO_OFFICIAL = (
    (re.compile(r"\.to_(qkv|q|k|v)\."), r".create_\1."),
    (re.compile(r"(layers\.\d+\.0)\.to_out\."), r"\1.out."),
    (re.compile(r"\.net\.3\."), ".net.2."),
    (re.compile(r"^s1_proj\."), "radar_proj."),
    (re.compile(r"^s2_proj\."), "optical_proj."),
)


def from_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """The published pretraining class's state dict under our names; a name that it does not know stays as it is."""
    return _rename(state, parts=_PARTS_BY_OFFICIAL, patterns=_FROM_OFFICIAL)


def to_official(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Our state dict under the published pretraining class's names."""
    return _rename(state, parts=_OFFICIAL_BY_PARTS, patterns=_TO_OFFICIAL)


def from_released(released: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The released state dicts as one under our names."""
    return {f"{part}.{name}": value for part, inner in released.items() for name, value in inner.items()}


def to_released(state: "Mapping[str, Tensor]") -> "dict[str, dict[str, Tensor]]":
    """The five released parts of our state dict; the rest is left out."""
    return {part: _inside(state, part) for part in RELEASED_PARTS}


def from_torchgeo(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of torchgeo under our names."""
    return {name: value for name, value in state.items() if name != ATTENTION_BIAS}


def to_torchgeo(state: "Mapping[str, Tensor]", image_px: int) -> "dict[str, Tensor]":
    """The state dict of `torchgeo.models.CROMA(image_size=image_px)`, whose buffer belongs to that size."""
    from train.models.positions import alibi_bias, alibi_slopes, grid_yx

    grid = grid_yx(image_px // PATCH, image_px // PATCH)
    bias = alibi_bias(grid, grid, alibi_slopes(HEADS))[None]
    return {ATTENTION_BIAS: bias, **from_released(to_released(state))}


def part(name: str) -> str:
    """The child of the model that a weight belongs to.

    >>> part("decoder.mask_token")
    'decoder'
    """
    return name.partition(".")[0]


def _inside(state: "Mapping[str, Tensor]", part: str) -> "dict[str, Tensor]":
    return {name.removeprefix(f"{part}."): state[name] for name in state if name.startswith(f"{part}.")}


def _rename(
    state: Mapping[str, Any], *, parts: Mapping[str, str], patterns: Iterable[tuple[re.Pattern[str], str]]
) -> dict[str, Any]:
    renamed = {}
    for name, value in state.items():
        first, dot, inner = name.partition(".")
        for pattern, replacement in patterns:
            inner = pattern.sub(replacement, inner)
        renamed[f"{parts.get(first, first)}{dot}{inner}"] = value
    return renamed
