"""Weights from files of any known layout, checked before a model sees them.

`read` gives a file's weights under our names, `load` copies a whole state into a model, `initial` what a file covers:
the released CROMA has no decoder, which then keeps its first weights.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor, nn

from pipeline.errors import ContractError, UsageError
from train.models import containers, croma_names, layouts, satmae_names
from train.models.containers import File
from train.models.croma import Croma, CromaConfig
from train.models.layouts import Layout

_PUBLISHED_GRID = 15
"""Patches along one side of CROMA's pretraining images."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """What a weights file holds."""

    layout: Layout
    """How it was written."""
    state: Mapping[str, Tensor]
    """By our names."""
    metadata: Mapping[str, str]
    """Of a safetensors file; empty otherwise."""


def read(path: str | os.PathLike[str]) -> Weights:
    """The weights in a file or at a URL, whatever its layout; reading runs no code.

    Raises:
        UsageError: it is not there.
        ContractError: it is no weights file, is damaged, or names and shapes do not make one model.
    """
    file = File.at(path)
    content = containers.read(file)
    layout = layouts.recognise(content.values, where=file.url)
    state = {str(name): value for name, value in layout.from_file(content.values).items()}
    what = f"{file.url} (layout {layout.name})"
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ContractError(f"{what}: {len(wrong)} values are no tensors (first: {wrong[0]}). Give plain state dicts.")
    check(layout.objective, state, what=what)
    return Weights(layout=layout, state=state, metadata=content.metadata)


def check(objective: str, state: Mapping[str, Tensor], *, what: str) -> None:
    """Raise ContractError unless `state`, under our names, is all of one model, or CROMA's five released parts."""
    _CHECKS[objective](state, what)


def load(model: nn.Module, state: Mapping[str, Tensor], *, parts: tuple[str, ...] | None = None) -> None:
    """Copy `state` into `model`, all of it or nothing.

    Args:
        model: whose names are ours.
        state: tensors under our names.
        parts: the children that `state` covers; others keep their weights. None means all.

    Raises:
        ContractError: a name is missing or unexpected, or a shape differs; the first one is named.
    """
    own = {
        name: value for name, value in model.state_dict().items() if parts is None or croma_names.part(name) in parts
    }
    _check_equal(state, own, what="the weights")
    model.load_state_dict(dict(state), strict=parts is None)


def initial(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Begin `model` with the weights in a file; children that the file does not cover keep theirs.

    Fixed tables stay the model's own: they are not learned, and belong to its image size.

    Raises:
        UsageError: it is not there.
        ContractError: it does not fit; `model` is unchanged.
    """
    state = dict(read(path).state)
    tables = {name: table for name, table in model.named_buffers() if name in state}
    load(model, {**state, **tables}, parts=tuple({croma_names.part(name) for name in state}))


def config_of(
    state: Mapping[str, Tensor],
    *,
    heads: int = croma_names.HEADS,
    decoder_heads: int = croma_names.DECODER_HEADS,
    patch: int = croma_names.PATCH,
) -> CromaConfig:
    """The CROMA model that `state` is of, from its names and shapes.

    Args:
        state: under our names; the five released parts are enough. What they do not tell has CROMA-B's value.
        heads: of the encoders: shapes do not tell. All published models have 16.
        decoder_heads: of the decoder; published: 8.
        patch: pixels; published: 8.

    Raises:
        ContractError: a weight that decides a size is missing, or of an impossible shape.
        UsageError: the width cannot be split over `heads`.
    """
    width = _size(state, "s2_encoder.linear_input.weight", 0)
    if width % heads:
        raise UsageError(f"weights of width {width} cannot be of a model with {heads} heads. Give its number of heads.")
    config = CromaConfig(
        encoder_dim=width,
        depth=_depth(state, "s2_encoder.transformer.layers."),
        heads=heads,
        patch=patch,
        image_px=_PUBLISHED_GRID * patch,
        sar_bands=_bands(state, "s1_encoder.linear_input.weight", patch),
        optical_bands=_bands(state, "s2_encoder.linear_input.weight", patch),
    )
    has_decoder = any(croma_names.part(name) == "decoder" for name in state)
    return _with_decoder(config, state, decoder_heads) if has_decoder else config


def _with_decoder(config: CromaConfig, state: Mapping[str, Tensor], heads: int) -> CromaConfig:
    patches = _size(state, "decoder.decoder_pos_embed", 1)
    if isqrt(patches) ** 2 != patches:
        raise ContractError(f"decoder.decoder_pos_embed is for {patches} patches, which make no square image.")
    return replace(
        config,
        image_px=isqrt(patches) * config.patch,
        decoder_dim=_size(state, "decoder.mask_token", 2),
        decoder_depth=_depth(state, "decoder.decoder.layers."),
        decoder_heads=heads,
    )


def _bands(state: Mapping[str, Tensor], name: str, patch: int) -> int:
    values = _size(state, name, 1)
    if values % patch**2:
        raise ContractError(f"{name} takes {values} values, which are no patches of {patch} px. Give the patch's side.")
    return values // patch**2


def _depth(state: Mapping[str, Tensor], stem: str) -> int:
    # Counted: the largest number in a wrong file may be huge.
    layers = {name.removeprefix(stem).partition(".")[0] for name in state if name.startswith(stem)}
    if not layers:
        raise ContractError(f"no weight's name begins with {stem}: it has no layers. Give a whole CROMA model.")
    return len(layers)


def _size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in state or state[name].ndim <= axis:
        found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
        raise ContractError(f"the weight {name}, which decides the model's size, {found}. Give a whole CROMA model.")
    return state[name].shape[axis]


def _check_croma(state: Mapping[str, Tensor], what: str) -> None:
    parts = {croma_names.part(name) for name in state}
    covered = croma_names.PARTS if parts - {*croma_names.RELEASED_PARTS} else croma_names.RELEASED_PARTS
    _check_names(parts, covered, what=f"{what}: the parts")
    # Names and shapes depend on neither heads nor patch: 1 fits all.
    with torch.device("meta"):
        model = Croma(config_of(state, heads=1, decoder_heads=1, patch=1))
    own = {name: value for name, value in model.state_dict().items() if croma_names.part(name) in covered}
    _check_equal(state, own, what=what)


def _check_satmae(state: Mapping[str, Tensor], what: str) -> None:
    _check_names(state, satmae_names.expected(state), what=what)


_CHECKS: Mapping[str, Callable[[Mapping[str, Tensor], str], None]] = {"croma": _check_croma, "satmae": _check_satmae}


def _check_equal(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, what: str) -> None:
    _check_names(state, own, what=what)
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise ContractError(
                f"{what}: {name} has shape {tuple(state[name].shape)} but the model wants {tuple(value.shape)}. "
                "Build the model with the sizes these weights were made for."
            )


def _check_names(found: Iterable[str], wanted: Iterable[str], *, what: str) -> None:
    """Raise ContractError unless `found` and `wanted` are the same names."""
    missing, unexpected = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    if missing or unexpected:
        raise ContractError(
            f"{what} have {len(missing)} names missing (first: {next(iter(missing), 'none')}) and "
            f"{len(unexpected)} unexpected (first: {next(iter(unexpected), 'none')}). "
            "Check that they are of this model, depth and layout."
        )
