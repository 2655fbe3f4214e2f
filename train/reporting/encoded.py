"""What a trained model, the same model untrained, and plain statistics of bands make of some samples of each split.

Axes: N samples, D width, T frames, C bands, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import manifest
from pipeline.store import Store
from train.batch import Batch
from train.choices import Which
from train.features import Encoder
from train.models.croma import Croma
from train.models.satmae import Satmae
from train.reporting.classes import Cover, cover, covers
from train.reporting.folder import RunFolder
from train.stream.config import Share
from train.stream.loader import Loader
from train.stream.once import OncePlan
from train.stream.samples import Samples, open_samples
from train.validation import ROWS, centred, pooled

TRAINED, RANDOM, BANDS = "trained", "untrained", "band statistics"
"""Whose features."""
_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """Some samples of one split, and what each of the three makes of them."""

    samples: Samples
    """The split."""
    ids: tuple[int, ...]
    """(N,) sample ids, ascending."""
    features: Mapping[str, Mapping[str, Tensor]]
    """By whose they are and by name, (N, D) float32: of `BANDS` one for each sensor, and `joint` of both."""
    lonlat_N2: NDArray[np.float64]
    """Degrees; NaN where it is not known."""
    covers: tuple[Cover, ...]
    """What the labels of each sample say."""
    months: tuple[int | None, ...]
    """Of the first optical image, 1 to 12."""

    @property
    def labels(self) -> list[int | None]:
        """The most frequent class of each sample's label raster; None where there is none."""
        return [one.label for one in self.covers]


def look(encoder: Encoder, store: Store, split: str, *, limit: int) -> Look | None:
    """So many samples, spread evenly over the split; None where it is empty.

    Raises:
        PretrainError: a sample cannot be read.
    """
    if not manifest.load(store).samples(split):
        return None
    stream = encoder.run.stream
    samples = open_samples(store, split, kind=stream.kind, bands=stream.bands)
    plan = plan_of(samples, limit, seed=encoder.run.seed)
    ids = tuple(map(int, plan.ids))
    rows = samples.rows.take(list(ids))
    return Look(
        samples=samples,
        ids=ids,
        features=_features(encoder, samples, plan),
        lonlat_N2=np.stack([rows["lon"].to_numpy(), rows["lat"].to_numpy()], axis=1),
        covers=_covers(encoder, store, split, ids),
        months=tuple(None if time is None else time.month for time in rows["time"].to_pylist()),
    )


def plan_of(samples: Samples, limit: int, *, seed: int) -> OncePlan:
    """At most `limit` samples of a split, once."""
    return OncePlan(shard_sizes=samples.shard_sizes, global_batch=min(ROWS, limit), seed=seed, limit=limit)


def batches(encoder: Encoder, samples: Samples, plan: OncePlan) -> Loader:
    """The samples of `plan` as the model reads them, cut from the middle of their chips."""
    share = Share(device=next(encoder.module.parameters()).device, threads=_THREADS)
    return Loader(samples, plan, centred(encoder.run.stream), share=share)


def untrained(encoder: Encoder) -> Croma | Satmae:
    """The model as the run began with it: the recipe's seed, no step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(encoder.run.seed)
        module = encoder.run.module()
    return module.to(next(encoder.module.parameters()).device).eval()


def band_statistics(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean and deviation of each band over pixels and frames, (B, 2 C) by sensor, and `joint`, both side by side."""
    found = {}
    for name, image in images.items():
        flat_BCP = (image.transpose(1, 2) if image.ndim == 5 else image).flatten(2)
        found[name] = torch.cat((flat_BCP.mean(2), flat_BCP.std(2, correction=0)), dim=1)
    return found | ({"joint": torch.cat(tuple(found.values()), dim=1)} if len(found) > 1 else {})


@torch.no_grad()
def _features(encoder: Encoder, samples: Samples, plan: OncePlan) -> dict[str, dict[str, Tensor]]:
    modules = {TRAINED: encoder.module, RANDOM: untrained(encoder)}
    found: list[dict[str, dict[str, Tensor]]] = []
    with batches(encoder, samples, plan) as read:
        for batch, _ in read:
            found.append(
                {whose: pooled(module, batch) for whose, module in modules.items()} | {BANDS: _of_bands(batch)}
            )
    return {whose: _joined([one[whose] for one in found], plan.samples) for whose in found[0]}


def _of_bands(batch: Batch) -> dict[str, Tensor]:
    return band_statistics(batch.images)


def _joined(parts: Sequence[Mapping[str, Tensor]], count: int) -> dict[str, Tensor]:
    """The last batch may be filled up with rows that do not count."""
    return {name: torch.cat([part[name] for part in parts])[:count].float().cpu() for name in parts[0]}


def _covers(encoder: Encoder, store: Store, split: str, ids: Sequence[int]) -> tuple[Cover, ...]:
    told = open_samples(store, split, kind=encoder.run.stream.kind, bands={}, told=True)
    if not told.places:
        return (cover(None),) * len(ids)
    return tuple(covers(told, ids, _THREADS))


def weights_of(run: RunFolder) -> Which:
    """Which weights of its checkpoints the page shows: those that probes look at."""
    return "model" if run.recipe is None or run.recipe.ema is None else "ema"
