"""A trained encoder, read from a run, and the features that it gives. Frozen: nothing is learned here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline import record
from pipeline.errors import StreamError, UsageError
from pipeline.store import Store
from train import ema, provenance, restore
from train.choices import Pooling, Sensor, Which
from train.models import weights
from train.models.croma import Croma
from train.models.satmae import Satmae
from train.provenance import Provenance
from train.recipes.croma import CromaRun
from train.recipes.satmae import SatmaeRun
from train.stream.loader import stretches
from train.stream.normalise import Constants
from train.stream.samples import Samples
from train.stream.sequence import Part

RUNS: Mapping[str, Any] = {"croma": CromaRun, "satmae": SatmaeRun}
_CROMA = {"s1": "SAR", "s2": "optical", "joint": "joint"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoder:
    """A model and how to feed it."""

    run: CromaRun | SatmaeRun
    """Its recipe."""
    module: Croma | Satmae
    """With its weights, in evaluation mode."""
    known: Provenance
    """Where it comes from."""

    @property
    def patch_px(self) -> int:
        """Pixels. Sides of images are multiples of this."""
        return self.run.model.patch

    def bands(self, sensor: Sensor) -> dict[str, tuple[str, ...]]:
        """Bands to read for `sensor`, in order."""
        wanted = ("s1", "s2") if sensor == "joint" else (sensor,)
        return {name: bands for name, bands in self.run.stream.bands.items() if name in wanted}

    def constants(self, samples: Samples) -> tuple[dict[str, Constants], str]:
        """What to normalise `samples` with, by sensor, and whose statistics these are."""
        if all(name in self.known.normalisation for name in samples.sensors):
            return {name: self.known.normalisation[name] for name in samples.sensors}, "the training data"
        own = stretches(samples, self.run.stream)
        return {name: own[name] for name in samples.sensors}, "the embedded data itself"

    @torch.no_grad()
    def features(self, part: Part, sensor: Sensor, pooling: Pooling) -> Tensor:
        """Features of some samples, (B, D) or of all tokens (B, ..., D), float32, on the CPU."""
        device = next(self.module.parameters()).device
        images = {name: image.to(device) for name, image in part.images.items()}
        if isinstance(self.module, Croma):
            given = {f"{name}_BCHW": image for name, image in images.items()}
            name = f"{_CROMA[sensor]}_{'encodings' if pooling == 'tokens' else 'GAP'}"
            out: Tensor = self.module.encode(**given)[name]
            return (
                self.module.contrastive.get_submodule(f"{sensor}_proj")(out) if pooling == "projected" else out
            ).cpu()
        name = "encodings" if pooling == "tokens" else pooling
        dates = None if part.dates_BT3 is None else part.dates_BT3.to(device)
        found: Tensor = self.module.encode(images["s2"], dates)[name]
        return found.cpu()


def open_encoder(run_url: str, step: int | None, data: str | None, which: Which = "model") -> Encoder:
    """The encoder of a run's last checkpoint, or of that of `step`.

    Args:
        run_url: folder of the run.
        step: None: the last.
        data: where its training data lies now; None: where the run found it.
        which: the last step's weights, or their moving average.

    Raises:
        UsageError: there is no such checkpoint, or it keeps no such weights.
        StreamError: it is damaged.
    """
    out = Store.at(run_url)
    try:
        found = restore.latest(out, lambda _: None) if step is None else restore.load(out, step)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    if found is None:
        raise UsageError(
            f"{out.url} has no finished checkpoint{'' if step is None else f' of step {step}'}. Train first."
        )
    known = provenance.of_run(found, out, data, which)
    # Fields that recipes of earlier releases have not.
    recipe = {"objective": "croma", "ema": None, **found.recipe}
    if recipe["objective"] not in RUNS:
        raise StreamError(f"{out.url} is of objective {recipe['objective']!r}; known are {sorted(RUNS)}.")
    run = record.from_json(RUNS[recipe["objective"]], recipe, where=f"{out.url}: recipe")
    module = run.module()
    weights.load(module, ema.chosen(which, found.model, found.optimizer, where=out.url))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Encoder(run=run, module=module.to(device).eval(), known=known)


def check(encoder: Encoder, sensor: Sensor, pooling: Pooling) -> None:
    """Raise UsageError unless the encoder gives such features."""
    croma = isinstance(encoder.run, CromaRun)
    wrong = {"cls"} if croma else {"projected"}
    if (not croma and sensor != "s2") or pooling in wrong or (pooling == "projected" and sensor == "joint"):
        rule = (
            "CROMA has s1, s2 and joint, no class token, and projects s1 and s2"
            if croma
            else "SatMAE has s2, pooled, cls and tokens"
        )
        raise UsageError(f"--sensor {sensor} --pooling {pooling}: {rule}. Choose others.")
