"""The page of a run, from top to bottom: read this first. What cannot be shown says why, and nothing else fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from pipeline import manifest
from pipeline.errors import PretrainError, UsageError, redact
from pipeline.page.document import document
from pipeline.store import Store
from train.features import Encoder, open_encoder
from train.recipes import croma, satmae
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.reporting import (
    attention,
    axes,
    contact,
    data,
    encoded,
    learning,
    painting,
    projection,
    reading,
    repeat,
    words,
    worth,
)
from train.reporting.encoded import Look
from train.reporting.folder import RunFolder, open_run

_PUBLISHED: Mapping[str, Callable[[], CromaRun | SatmaeRun]] = {
    "croma": croma.base,
    "group": satmae.group_base,
    "temporal": satmae.temporal_large,
    "plain": satmae.plain_large,
}
"""The shortest recipe of the published training, by objective or by SatMAE's variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to write a page of."""

    run: str
    """URL of the run's folder."""
    data: str | None
    """Where its data set lies now; None: where the run found it."""
    samples: int
    """Of each split that the model looks at, at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What can be looked into; where something is missing, why."""

    run: RunFolder
    """The run."""
    store: Store | None
    """Its data set."""
    encoder: Encoder | None
    """The model of its last checkpoint."""
    val: Look | None
    """Some validation samples."""
    train: Look | None
    """Some training samples."""
    missing: dict[str, str]
    """Why, by what is missing: `data`, `checkpoint`, `samples`."""


def page(asked: Request) -> str:
    """The page, HTML.

    Raises:
        UsageError: there is no such run, or the data set that was given is not the run's.
        SourceError: a store kept failing.
    """
    found = _find(asked)
    run = found.run
    sections = [
        ("What went in", _data(found)),
        ("How it learned", learning.section(run) + learning.probes(run)),
        ("How fast it went", learning.pace(run)),
        ("What it paints where patches are hidden", _with_val(found, lambda e, v: painting.section(e, v.samples))),
        ("Who is near whom", _with_val(found, contact.section)),
        (
            "The space of features",
            _with_val(found, lambda _, v: projection.section([one for one in (v, found.train) if one])),
        ),
        ("How far heads look", _with_val(found, lambda e, v: attention.section(e, v.samples))),
        ("What the features are worth", _with_val(found, lambda e, v: worth.section(found.train, v, seed=e.run.seed))),
        ("How to do it again", repeat.section(run)),
    ]
    return document(f"Run {redact(run.name)}", sections, lead=_lead(found), style=words.STYLE, contents=True)


def _find(asked: Request) -> Found:
    run, missing = open_run(asked.run), dict[str, str]()
    store = _data_set(asked, run, missing)
    encoder = _encoder(asked, run, store, missing)
    looks = {split: _look(encoder, store, split, limit=asked.samples, missing=missing) for split in ("val", "train")}
    return Found(run=run, store=store, encoder=encoder, val=looks["val"], train=looks["train"], missing=missing)


def _data_set(asked: Request, run: RunFolder, missing: dict[str, str]) -> Store | None:
    url = asked.data or run.data
    if url is None:
        missing["data"] = "the run did not write down where its data set lies. Give it by --data."
        return None
    try:
        store = Store.at(url)
        manifest.load(store)
    except PretrainError as error:
        if asked.data is not None:
            raise
        missing["data"] = f"{error} {_elsewhere(url)}"
        return None
    return store


def _elsewhere(url: str) -> str:
    """What to do where a data set is not found."""
    if "://" in url or url.startswith("/"):
        return "If the data set was moved, give its place by --data."
    return "That path counts from the folder in which the run was started: go there, or give its place by --data."


def _encoder(asked: Request, run: RunFolder, store: Store | None, missing: dict[str, str]) -> Encoder | None:
    if not run.checkpoints:
        missing["checkpoint"] = "the run has no finished checkpoint yet."
        return None
    data = None if store is None else asked.data or run.data
    try:
        return open_encoder(asked.run, None, data, encoded.weights_of(run))
    except PretrainError as error:
        if asked.data is not None and isinstance(error, UsageError):
            raise
        missing["checkpoint"] = str(error)
        return None


def _look(
    encoder: Encoder | None, store: Store | None, split: str, *, limit: int, missing: dict[str, str]
) -> Look | None:
    if encoder is None or store is None:
        return None
    try:
        return encoded.look(encoder, store, split, limit=limit)
    except PretrainError as error:
        missing[f"{split} samples"] = str(error)
        return None


def _data(found: Found) -> str:
    if found.store is None:
        return words.absent(found.missing["data"])
    known = manifest.load(found.store)
    return data.section(known, manifest.load_index(found.store, known), manifest.load_stats(found.store))


def _with_val(found: Found, section: Callable[[Encoder, Look], str]) -> str:
    if found.encoder is not None and found.val is not None:
        return section(found.encoder, found.val)
    why = [found.missing[name] for name in ("checkpoint", "data", "val samples") if name in found.missing]
    return words.absent(" ".join(why) or "the validation split is empty. Ingest a larger area, or with --val.")


def _lead(found: Found) -> str:
    run, recipe = found.run, found.run.recipe
    steps = "?" if recipe is None else f"{recipe.steps:,}"
    state = "finished" if recipe is not None and run.done >= recipe.steps else "not finished"
    what = (
        f"{recipe.objective.upper() if recipe.objective == 'croma' else 'SatMAE'}, recipe {recipe.name}"
        if recipe
        else "a recipe of another release"
    )
    shown = f"the checkpoint of step {found.encoder.known.step:,}" if found.encoder is not None else "no checkpoint"
    missing = "".join(f"<li>{escape(name)}: {escape(redact(why))}</li>" for name, why in found.missing.items())
    return (
        f"<p>{escape(what)}; {state}: step {run.done:,} of {steps}. Pictures and probes are of {shown}.</p>"
        f"<p>{escape(_expected(run))}</p>"
        + words.tiles(_facts(found))
        + (f"<p>Parts of this page are missing:</p><ul>{missing}</ul>" if missing else "")
    )


def _expected(run: RunFolder) -> str:
    """What its length lets one expect of a run."""
    if run.recipe is None or not len(run.history):
        return ""
    published = _PUBLISHED[getattr(run.recipe.model, "variant", run.recipe.objective)]()
    return reading.ahead(done=run.done, steps=run.recipe.steps) + reading.extent(
        samples=int(run.history.column("samples")[-1]),
        train=run.began.get("derived", {}).get("samples"),
        published=published.steps * published.stream.global_batch,
        name=published.name,
    )


def _facts(found: Found) -> list[tuple[str, str]]:
    run, facts = found.run, []
    if len(run.history):
        first, last = learning.tenths(run.history.column("loss"))
        rate = float(np.nanmedian(run.history.column("pace.samples_per_s")))
        facts += [
            ("loss, first to last tenth", f"{first:.3f} \u2192 {last:.3f}"),
            ("samples/s, median", f"{rate:,.1f}"),
        ]
        facts.append(("samples seen", f"{run.history.column('samples')[-1]:,.0f}"))
    derived = run.began.get("derived", {})
    if "parameters" in derived:
        facts.append(("parameters", axes.short(derived["parameters"])))
    if "epochs" in derived:
        facts.append(("epochs planned", f"{derived['epochs']:,}"))
    if found.val is not None:
        facts.append(("validation samples looked at", f"{len(found.val.ids):,}"))
    return facts
