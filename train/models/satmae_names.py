"""The weights of SatMAE's pretraining models: which names belong together. Ours are the official ones.

A released `.pth` is `{"model": state, "optimizer": ..., "epoch": ..., "scaler": ..., "args": Namespace}`; what travels
is `model`, the fixed position and group tables included: they are parameters there. The group model has a patch
embedding and a head per group; the temporal and the plain model have one. SatMAE++ adds upsampling heads.
"""

import re
from collections.abc import Iterable

_BLOCK = tuple(
    f"{layer}.{kind}"
    for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)
_ALWAYS = ("cls_token", "mask_token", "pos_embed", "decoder_pos_embed")
_GROUP_TABLES = ("channel_embed", "decoder_channel_embed")
_LINEAR = ("norm", "decoder_embed", "decoder_norm")
_MULTISCALE = ("proj_up_conv.", "proj_up_norm.", "up_block.", "up_block1.", "up_block2.")
"""SatMAE++ (section 3 of Noman et al. 2024)."""


def expected(names: Iterable[str]) -> set[str]:
    """All names of the model whose depth, decoder depth and groups are those of `names`."""
    found = set(names)
    encoder, decoder = _numbered(found, "blocks", _BLOCK), _numbered(found, "decoder_blocks", _BLOCK)
    linear = {f"{layer}.{kind}" for layer in (*_LINEAR, *_ends(found)) for kind in ("weight", "bias")}
    tables = {*_ALWAYS, *(_GROUP_TABLES if _groups(found) else ())}
    return tables | linear | encoder | decoder | {name for name in found if name.startswith(_MULTISCALE)}


def _groups(names: set[str]) -> int:
    return _count(names, "patch_embed")


def _ends(names: set[str]) -> list[str]:
    groups = _groups(names)
    if not groups:
        return ["patch_embed.proj", "decoder_pred"]
    return [end for group in range(groups) for end in (f"patch_embed.{group}.proj", f"decoder_pred.{group}")]


def _numbered(names: set[str], stem: str, inner: Iterable[str]) -> set[str]:
    """At least one: a model without blocks is none."""
    return {f"{stem}.{number}.{name}" for number in range(max(1, _count(names, stem))) for name in inner}


def _count(names: set[str], stem: str) -> int:
    """How many different numbers follow `stem`: counted, not the largest, which a wrong file may make huge."""
    return len({match[1] for name in names if (match := re.match(rf"{stem}\.(\d+)\.", name))})
