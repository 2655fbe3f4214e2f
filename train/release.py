"""Weights out of a run, or out of a file, in the layout that another program reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import UsageError, redact
from pipeline.store import Store
from train import cards, checkpoint, ema, provenance, restore
from train.checkpoint import Checkpoint
from train.choices import Which
from train.models import containers, croma_names, layouts, weights
from train.models.containers import File
from train.models.layouts import OURS, Layout
from train.provenance import Provenance

_DEFAULT_IMAGE_PX = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to write, from what."""

    source: str
    """A run's folder, or a weights file; path or URL."""
    layout: str
    """Name of the layout to write."""
    out: str
    """The file to write; path or URL."""
    step: int | None = None
    """Of the run; None: the last finished checkpoint."""
    image_px: int | None = None
    """Pixels. Side of torchgeo's images; None: the recipe's, else 120."""
    data: str | None = None
    """Where the run's data set lies now; None: where the run found it."""
    weights: Which = "model"
    """Of a run: the last step's, or their moving average."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Weights on their way."""

    state: Mapping[str, Tensor]
    """By our names."""
    known: Provenance
    """Their history."""


def export(request: Request, say: Callable[[str], None]) -> str:
    """Write what was asked for.

    Args:
        request: what to write, from what.
        say: told what a person should know.

    Returns:
        One line about what was written.

    Raises:
        PretrainError: the source is no weights, the layout not the model's, or the place may not be written to.
    """
    out, source = File.at(request.out), _open(request, say)
    layout = layouts.find(source.known.objective, request.layout)
    weights.check(layout.objective, source.state, what=f"the weights of {redact(request.source)}")
    _check_parts(source, layout)
    _check_readers(source, layout, say)
    _check_out(out, layout)
    image_px = _image_px(request, source)
    written = _write(out, source, layout, image_px)
    return f"{out.url}: layout {layout.name}, {written / 1e6:.1f} MB, from {source.known.origin}"


def _write(out: File, source: Source, layout: Layout, image_px: int) -> int:
    content = layout.to_file(source.state, image_px)
    if layout.name != OURS:
        data = containers.torch_bytes(content)
        out.store.publish(out.name, data)
        return len(data)
    data = containers.safetensors_bytes(content, provenance.metadata(source.known))
    out.store.publish(out.name, data)
    out.store.publish(cards.CARD_NAME, cards.card(source.known, source.state, out.name).encode())
    return len(data)


def _open(request: Request, say: Callable[[str], None]) -> Source:
    if request.source.partition("?")[0].endswith(layouts.SUFFIXES):
        if request.step is not None or request.data is not None or request.weights != "model":
            raise UsageError(
                f"{redact(request.source)} is a file: --step, --data and --weights are for runs. Leave them out."
            )
        found = weights.read(request.source)
        return Source(state=found.state, known=provenance.of_file(found.layout, found.metadata))
    run = Store.at(request.source)
    saved = _checkpoint(run, request.step, say)
    known = provenance.of_run(saved, run, request.data, request.weights)
    state = ema.chosen(request.weights, saved.model, saved.optimizer, where=run.url)
    return Source(state=state, known=known)


def _checkpoint(run: Store, step: int | None, say: Callable[[str], None]) -> Checkpoint:
    try:
        found = restore.latest(run, say) if step is None else restore.load(run, step)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    if found is None:
        wanted = "finished checkpoint" if step is None else f"finished checkpoint of step {step}"
        raise UsageError(
            f"{run.url} holds no {wanted}; its steps are {checkpoint.steps(run)}. Give a run's folder and one of its "
            f"steps, or a weights file ({', '.join(layouts.SUFFIXES)})."
        )
    return found


def _check_parts(source: Source, layout: Layout) -> None:
    lacking = {*layout.parts} - {*map(croma_names.part, source.state)}
    if lacking:
        raise UsageError(
            f"layout {layout.name} has {sorted(lacking)}, which {source.known.origin} lacks. Choose another layout, or "
            "a source that holds the whole pretraining model."
        )


def _check_out(out: File, layout: Layout) -> None:
    """Refuse a name that would not be read back, and to write over somebody's own README."""
    if not out.name.endswith(layout.suffixes):
        raise UsageError(
            f"layout {layout.name} is written to {' or '.join(layout.suffixes)}, not to {out.url}. Rename it."
        )
    if layout.name != OURS or not out.store.exists(cards.CARD_NAME):
        return
    if not out.store.read(cards.CARD_NAME).startswith(cards.MARK.encode()):
        raise UsageError(
            f"{out.store.url} has a {cards.CARD_NAME} that is no model card. Choose --out in a folder of its own."
        )


def _check_readers(source: Source, layout: Layout, say: Callable[[str], None]) -> None:
    """What the published readers take for granted: torchgeo's would fail, others compute something else."""
    model = provenance.section(source.known.recipe, "model")
    assumed = {"heads": croma_names.HEADS, "patch": croma_names.PATCH}
    other = {name: model[name] for name, value in assumed.items() if model.get(name, value) != value}
    what = f"this model has {other}, but the published readers of layout {layout.name} always take {assumed}"
    if layout.name == "released" and other:
        say(f"{what}: they would compute something else.")
    if layout.name != "torchgeo":
        return
    if other:
        raise UsageError(f"{what}. Choose layout {OURS}, or train with these.")
    config = weights.config_of(source.state)
    if (config.sar_bands, config.optical_bands) != (len(S1_NAMES), len(S2_NAMES)):
        raise UsageError(
            f"this model has {config.sar_bands} + {config.optical_bands} bands, but torchgeo's CROMA always takes "
            f"{len(S1_NAMES)} + {len(S2_NAMES)}. Choose layout {OURS}."
        )


def _image_px(request: Request, source: Source) -> int:
    """Pixels of torchgeo's images."""
    if request.layout != "torchgeo" and request.image_px is not None:
        raise UsageError(f"layout {request.layout} does not depend on the image: leave --image-px out.")
    in_recipe = provenance.section(source.known.recipe, "model").get("image_px", _DEFAULT_IMAGE_PX)
    image_px = int(in_recipe) if request.image_px is None else request.image_px
    if image_px < 1 or (request.layout == "torchgeo" and image_px % croma_names.PATCH):
        raise UsageError(
            f"--image-px {image_px} is no whole number of patches of {croma_names.PATCH} px. Give a multiple."
        )
    return image_px
