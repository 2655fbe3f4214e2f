"""CROMA's weights under other people's names. Pure functions: no files, no modules changed but by `load`.

Three layouts besides our own state dict:

* *released*: `{"s1_encoder": {...}, "s1_GAP_FFN": {...}, ...}`, five state dicts without decoder and contrastive head.
  Ours begins with the same keys, joined by a dot.
* *torchgeo*: the released one, joined by a dot, with an `attn_bias` that depends on the image size.
* *official*: the state dict of the published pretraining class.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pipeline.errors import ContractError

RELEASED_PARTS = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")

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


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published pretraining class's state dict under our names."""
    return _rename(state, parts=_PARTS_BY_OFFICIAL, patterns=_FROM_OFFICIAL)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published pretraining class's names."""
    return _rename(state, parts=_OFFICIAL_BY_PARTS, patterns=_TO_OFFICIAL)


def from_released(released: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The five released state dicts as one under our names; load it with `parts=RELEASED_PARTS`."""
    check_names(released, RELEASED_PARTS, what="released CROMA weights")
    return {f"{part}.{name}": released[part][name] for part in RELEASED_PARTS for name in released[part]}


def to_released(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The five released parts of our state dict; the rest is left out."""
    check_names({name.partition(".")[0] for name in state} & {*RELEASED_PARTS}, RELEASED_PARTS, what="the state dict")
    return {part: _inside(state, part) for part in RELEASED_PARTS}


def from_torchgeo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of torchgeo under our names; load it with `parts=RELEASED_PARTS`."""
    return {name: tensor for name, tensor in state.items() if name != "attn_bias"}


def load(model: nn.Module, state: Mapping[str, Tensor], *, parts: tuple[str, ...] | None = None) -> None:
    """Copy `state` into `model`, all of it or nothing.

    Args:
        model: a `Croma`.
        state: tensors under our names.
        parts: the children that `state` covers; others keep their weights. None means all.

    Raises:
        ContractError: a name is missing or unexpected, or a shape differs; the first one is named.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if _covers(parts, name)}
    check_names(state, own, what="the weights")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ContractError(
                f"weight {name} has shape {tuple(state[name].shape)} but the model wants {tuple(tensor.shape)}. "
                "Build the model with the sizes these weights were made for."
            )
    model.load_state_dict(dict(state), strict=parts is None)


def check_names(found: Iterable[str], wanted: Iterable[str], *, what: str) -> None:
    """Raise ContractError unless `found` and `wanted` are the same names."""
    missing, unexpected = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    if missing or unexpected:
        raise ContractError(
            f"{what} have {len(missing)} names missing (first: {next(iter(missing), 'none')}) and "
            f"{len(unexpected)} unexpected (first: {next(iter(unexpected), 'none')}). "
            "Check that they are of this model, depth and layout."
        )


def _covers(parts: tuple[str, ...] | None, name: str) -> bool:
    return parts is None or name.partition(".")[0] in parts


def _inside(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): state[name] for name in state if name.startswith(f"{part}.")}


def _rename(
    state: Mapping[str, Tensor], *, parts: Mapping[str, str], patterns: Iterable[tuple[re.Pattern[str], str]]
) -> dict[str, Tensor]:
    check_names({name.partition(".")[0] for name in state}, parts, what="the state dict's parts")
    renamed = {}
    for name, tensor in state.items():
        part, _, inner = name.partition(".")
        for pattern, replacement in patterns:
            inner = pattern.sub(replacement, inner)
        renamed[f"{parts[part]}.{inner}"] = tensor
    return renamed
