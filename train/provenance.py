"""Where weights come from: what a person, or the next program, needs to use them rightly.

It travels in the metadata of a safetensors file, each field as JSON, and into the model card. Secrets do not: URLs are
redacted, and a path on somebody's machine shrinks to its last name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline import manifest, record
from pipeline.errors import ContractError, PretrainError, UsageError, redact
from pipeline.manifest import Stats
from pipeline.stats import BandStats
from pipeline.store import Store
from train.checkpoint import Checkpoint
from train.choices import Which
from train.door import RUN_NAME
from train.models.layouts import Layout
from train.stream.normalise import Constants, constants

SENSORS = ("s1", "s2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The history of some weights; None or empty where it is not known."""

    objective: str
    """`croma` or `satmae`."""
    origin: str
    """What they were before: a run's checkpoint, or a file of some layout."""
    recipe: Mapping[str, Any]
    """The run as JSON."""
    versions: Mapping[str, str]
    """Packages that trained them."""
    step: int | None
    """Steps of training."""
    samples: int | None
    """Samples seen, repetitions included."""
    data: str | None
    """The data set: its URL or its folder's name, and the checksum of its index."""
    normalisation: Mapping[str, Constants]
    """By sensor, for each of the recipe's bands; in the stored unit (S2 digital numbers, S1 dB)."""


def of_run(found: Checkpoint, out: Store, data: str | None, which: Which = "model") -> Provenance:
    """Of a checkpoint in the run at `out`.

    Args:
        found: the checkpoint.
        out: the run's folder.
        data: where its data set lies now; None: where the run found it, if it is still there.
        which: of the checkpoint's weights.

    Raises:
        PretrainError: `data` is not the data set of the run.
    """
    began = _began(out)
    began_on = data or began.get("data")
    stats = _stats(began_on, found.stream.index_sha256, asked=data is not None)
    return Provenance(
        objective=found.recipe.get("objective", "croma"),
        origin=f"step {found.step} of a run{', moving average' if which == 'ema' else ''}",
        recipe=found.recipe,
        versions=found.versions,
        step=found.step,
        samples=found.stream.samples_consumed,
        data=f"{_public(began_on)} (index sha256 {found.stream.index_sha256})",
        normalisation=_normalisation(began, found.recipe, stats),
    )


def of_file(layout: Layout, metadata: Mapping[str, str]) -> Provenance:
    """Of a weights file: what its metadata tells, if it was written here.

    Raises:
        ContractError: the metadata has our fields, but not their types.
    """
    if not {*_KINDS} <= metadata.keys():
        return Provenance(
            objective=layout.objective,
            origin=f"a file of layout {layout.name}",
            recipe={},
            versions={},
            step=None,
            samples=None,
            data=None,
            normalisation={},
        )
    told = {name: _parsed(name, metadata[name]) for name in _KINDS}
    return Provenance(**{**told, "objective": layout.objective})


def metadata(provenance: Provenance) -> dict[str, str]:
    """What a safetensors file says of its weights; `format` is what other readers look for."""
    told = {name: record.dumps(getattr(provenance, name)).decode() for name in _KINDS}
    return {"format": "pt", **told}


def section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a recipe: `model`, `stream`; empty where there is none."""
    found = recipe.get(name)
    return found if isinstance(found, Mapping) else {}


def bands(recipe: Mapping[str, Any], sensor: str) -> tuple[str, ...]:
    """A recipe's bands of `s1` or `s2`, in order; empty where it has none."""
    return tuple(map(str, section(recipe, "stream").get(f"{sensor}_bands") or ()))


_KINDS = {field.name: field.type for field in fields(Provenance)}


def _parsed(name: str, text: str) -> Any:
    where = f"{name} in the file's metadata"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{where} is not JSON: {error}. Export the weights again.") from error
    if name == "recipe" and isinstance(value, Mapping):
        return value  # of any version: its fields are its own
    return record.from_json(_KINDS[name], value, where=where)


def _began(out: Store) -> Mapping[str, Any]:
    """What the run wrote down when it began; empty where that is gone."""
    try:
        began = json.loads(out.read(RUN_NAME))
    except (FileNotFoundError, ValueError):
        return {}
    return began if isinstance(began, Mapping) else {}


def _normalisation(began: Mapping[str, Any], recipe: Mapping[str, Any], stats: Stats | None) -> dict[str, Constants]:
    """What the run wrote down, or else what its recipe or its data set still tell."""
    written = began.get("normalisation", {})
    if written:
        return {
            name: record.from_json(Constants, value, where=f"{RUN_NAME}: {name}") for name, value in written.items()
        }
    return {sensor: x for sensor in SENSORS if (x := _constants(recipe, sensor, stats)) is not None}


def _public(url: str | None) -> str:
    """`url` for strangers: redacted; of a local path only the last name."""
    if url is None:
        return "an unnamed data set"
    return redact(url) if "://" in url else url.rstrip("/").rpartition("/")[2]


def _stats(data: str | None, index_sha256: str, *, asked: bool) -> Stats | None:
    """The statistics that the run normalised with; None where its data set is gone and nobody said where it is."""
    if data is None:
        return None
    try:
        store = Store.at(data)
        if manifest.load(store).index_sha256 != index_sha256:
            raise UsageError(
                f"{store.url} is not the data set of the run: its index differs. Give the one it trained on."
            )
        return manifest.load_stats(store)
    except PretrainError:
        if asked:
            raise
        return None


def _constants(recipe: Mapping[str, Any], sensor: str, stats: Stats | None) -> Constants | None:
    own, names = section(recipe, "stream").get(f"{sensor}_constants"), bands(recipe, sensor)
    if own is not None:
        found: Constants = record.from_json(Constants, own, where=f"{sensor}_constants of the recipe")
        return found
    of_data: BandStats | None = getattr(stats, sensor, None)
    return constants(of_data, names) if of_data is not None and names else None
