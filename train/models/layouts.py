"""How weights lie in files: one small table per objective, from a model's own names to a file's content and back.

A file's content is a mapping of names to tensors, or one that holds such mappings. Nothing here reads a file or builds
a model. Tables are keyed by a recipe's `objective`; our own names (`safetensors`) hold every tensor of a run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ContractError, UsageError
from train.models import croma_names

if TYPE_CHECKING:
    from torch import Tensor

OURS = "safetensors"
"""The layout of our own names."""
TORCH_SUFFIXES = (".pt", ".pth")
SAFE_SUFFIXES = (".safetensors",)
SUFFIXES = (*TORCH_SUFFIXES, *SAFE_SUFFIXES)
"""Of all weights files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to name and nest the weights of one model."""

    objective: str
    """Whose: `croma` or `satmae`."""
    name: str
    """What `--layout` calls it."""
    about: str
    """What it contains and who reads it; for people."""
    suffixes: tuple[str, ...] = TORCH_SUFFIXES
    """What a file of it may be called."""
    parts: tuple[str, ...] = ()
    """Children of the model that it cannot do without."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether a file's content looks like it, by its keys."""
    from_file: Callable[[Mapping[str, Any]], dict[str, Any]]
    """A file's content to our names."""
    to_file: "Callable[[Mapping[str, Tensor], int], Mapping[str, Any]]"
    """Our names, and the side of an image in pixels, to a file's content."""


def _holds(*parts: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether one of `parts` is a state dict of its own."""
    return lambda content: any(isinstance(content.get(part), Mapping) for part in parts)


def _begins(*prefixes: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda content: any(name.startswith(prefixes) for name in content)


def _same(state: "Mapping[str, Tensor]", _image_px: int) -> "dict[str, Tensor]":
    return dict(state)


def _released(content: Mapping[str, Any]) -> dict[str, Any]:
    return croma_names.from_released({part: x if isinstance(x, Mapping) else {"": x} for part, x in content.items()})


_TABLE = (
    Layout(
        objective="croma",
        name="released",
        about="the five published parts {s1_encoder, s1_GAP_FFN, s2_encoder, s2_GAP_FFN, joint_encoder}, one state "
        "dict each, without decoder and contrastive head: the format of CROMA_base.pt, read by CROMA's use_croma.py "
        "and by torchgeo's load_weights",
        parts=croma_names.RELEASED_PARTS,
        fits=_holds(*croma_names.RELEASED_PARTS),
        from_file=_released,
        to_file=lambda state, _image_px: croma_names.to_released(state),
    ),
    Layout(
        objective="croma",
        name="official",
        about="one state dict of the published pretraining class, decoder and contrastive head included",
        parts=croma_names.PARTS,
        fits=_begins("radar_encoder.", "optical_encoder.", "cross_encoder."),
        from_file=croma_names.from_official,
        to_file=lambda state, _image_px: croma_names.to_official(state),
    ),
    Layout(
        objective="croma",
        name="torchgeo",
        about="the five published parts as one state dict, and the attn_bias of --image-px: "
        "torchgeo.models.CROMA(..., image_size=PX).load_state_dict(torch.load(FILE)) fits strictly (torchgeo 0.8 on)",
        parts=croma_names.RELEASED_PARTS,
        fits=lambda content: croma_names.ATTENTION_BIAS in content,
        from_file=croma_names.from_torchgeo,
        to_file=croma_names.to_torchgeo,
    ),
    Layout(
        objective="croma",
        name=OURS,
        about="all tensors under this project's names, recipe and versions in the metadata, and a model card README.md "
        "beside it",
        suffixes=SAFE_SUFFIXES,
        fits=_begins("s1_encoder.", "s2_encoder."),
        from_file=dict,
        to_file=_same,
    ),
    Layout(
        objective="satmae",
        name="official",
        about='{"model": state dict} with the fixed tables: what SatMAE\'s main_finetune.py --finetune reads',
        fits=_holds("model"),
        from_file=lambda content: dict(content["model"]),
        to_file=lambda state, _image_px: {"model": dict(state)},
    ),
    Layout(
        objective="satmae",
        name=OURS,
        about="the same names (they are SatMAE's), recipe and versions in the metadata, and a model card README.md "
        "beside it",
        suffixes=SAFE_SUFFIXES,
        fits=_begins("patch_embed."),
        from_file=dict,
        to_file=_same,
    ),
)

LAYOUTS: Mapping[str, Mapping[str, Layout]] = {
    objective: {layout.name: layout for layout in _TABLE if layout.objective == objective}
    for objective in dict.fromkeys(layout.objective for layout in _TABLE)
}
"""By objective, then by name."""


def find(objective: str, name: str) -> Layout:
    """The layout `name` of a model.

    Raises:
        UsageError: the model has no such layout.
    """
    known = LAYOUTS.get(objective, {})
    if name not in known:
        raise UsageError(
            f"weights of objective {objective!r} have no layout {name!r}. Choose one of {sorted(known)}."
            if known
            else f"the objective {objective!r} has no layouts. Known objectives: {sorted(LAYOUTS)}."
        )
    return known[name]


def recognise(content: Mapping[str, Any], *, where: str) -> Layout:
    """The layout that a file's keys look like.

    Raises:
        ContractError: none; the message names the first keys.
    """
    for layout in _TABLE:
        if layout.fits(content):
            return layout
    raise ContractError(
        f"{where} holds no weights known here: its {len(content)} keys begin with {sorted(content)[:5]}, and none of "
        "s1_encoder, radar_encoder (CROMA), model, patch_embed (SatMAE) is among them. "
        "Give a pretraining checkpoint of CROMA or SatMAE."
    )
