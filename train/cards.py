"""The model card beside a safetensors file: what the weights are, what they were trained on, how to use them.

Plain Markdown, the same bytes for the same weights. What is not known is said to be unknown.
"""

import json
from collections.abc import Iterable, Mapping

from torch import Tensor

from train.models import croma_names
from train.provenance import SENSORS, Provenance, bands, section

CARD_NAME = "README.md"
MARK = "<!-- model card written by train/export.py -->"
"""First line of a card: what may be written over."""

_CROMA_LOADING = """\
from train.models import weights
from train.models.croma import Croma

model = Croma(weights.config_of(weights.read("{name}").state{sizes}))
weights.initial(model, "{name}")
features = model.eval().encode(s1, s2)  # s1 {s1}, s2 {s2}: (B, bands, H, W), normalised"""
_SATMAE_LOADING = """\
from safetensors.torch import load_file

model.load_state_dict(load_file("{name}"))  # a SatMAE of the same size: the names are the official ones"""
_STRETCH = "Each band is stretched by two sigma: `x = clip((value - (mean - 2 std)) / (4 std), 0, 1)`"
_SCALES = {
    "two_sigma": f"{_STRETCH}; missing pixels become 0.5.",
    "uint8": f"{_STRETCH}, truncated to multiples of 1/255; missing pixels become 0.5.",
    "standard": "Each band is standardised: `x = (value - mean) / std`; missing pixels become 0.",
}
_STORED = (
    "Values are as stored: `s1` dB, `s2` digital numbers (reflectance x 10,000, without the offset of processing "
    "baseline 04.00)."
)
_LICENCE = (
    "The code is Apache-2.0. These weights have no licence until their owner writes one here; converted ones keep the "
    "licence of the file they came from. Trained on modified Copernicus Sentinel data."
)
_WHAT = {
    "croma": "CROMA (contrastive radar-optical masked autoencoder, arXiv 2311.00566) of Sentinel-1 and Sentinel-2",
    "satmae": "SatMAE (masked autoencoder of satellite images, arXiv 2207.08051)",
}


def card(provenance: Provenance, state: Mapping[str, Tensor], name: str) -> str:
    """The card of the weights `state` in the file `name`."""
    parts = (
        f"{MARK}\n# {name}",
        f"Weights of {_WHAT[provenance.objective]}, written by sentinel-pretrain.",
        _facts(provenance, state),
        f"## Input\n\n{_input(provenance)}",
        f"## Loading\n\n```python\n{_loading(provenance, name)}\n```",
        f"## Licence\n\n{_LICENCE}",
        f"## Recipe\n\n```json\n{json.dumps(provenance.recipe, indent=2, sort_keys=True)}\n```",
    )
    return "\n\n".join(parts) + "\n"


def _facts(provenance: Provenance, state: Mapping[str, Tensor]) -> str:
    rows = {
        "origin": provenance.origin,
        "recipe": provenance.recipe.get("name"),
        "tensors": f"{len(state)}, {sum(tensor.numel() for tensor in state.values()):,} numbers",
        "data set": provenance.data,
        "steps": provenance.step,
        "samples seen": provenance.samples,
        "versions": ", ".join(f"{package} {version}" for package, version in sorted(provenance.versions.items())),
    }
    return _table(
        ("what", "value"), ((what, "unknown" if value in (None, "") else value) for what, value in rows.items())
    )


def _input(provenance: Provenance) -> str:
    known = [sensor for sensor in SENSORS if bands(provenance.recipe, sensor)]
    if not known:
        return "Bands and normalisation are unknown: the weights came without a recipe."
    sensors = "\n\n".join(_sensor(provenance, sensor) for sensor in known)
    scale = str(section(provenance.recipe, "stream").get("scale", "two_sigma"))
    return f"{sensors}\n\n{_SCALES[scale]} {_STORED}"


def _sensor(provenance: Provenance, sensor: str) -> str:
    names, stretch = bands(provenance.recipe, sensor), provenance.normalisation.get(sensor)
    if stretch is None:
        return f"`{sensor}`, bands in order: {' '.join(names)}. Means and deviations unknown: export with --data."
    rows = zip(names, stretch.mean, stretch.std, strict=True)
    return f"`{sensor}`, bands in order:\n\n{_table(('band', 'mean', 'std'), rows)}"


def _loading(provenance: Provenance, name: str) -> str:
    if provenance.objective != "croma":
        return _SATMAE_LOADING.format(name=name)
    shown = {sensor: " ".join(bands(provenance.recipe, sensor)) or "bands" for sensor in SENSORS}
    return _CROMA_LOADING.format(name=name, sizes=_sizes(section(provenance.recipe, "model")), **shown)


def _sizes(model: Mapping[str, object]) -> str:
    """What shapes do not tell, where it is not as published."""
    published = {"heads": croma_names.HEADS, "decoder_heads": croma_names.DECODER_HEADS, "patch": croma_names.PATCH}
    return "".join(f", {name}={model[name]}" for name, value in published.items() if model.get(name, value) != value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
