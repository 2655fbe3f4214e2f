"""What a model in training is worth, on samples that it never learns from: probes of its features, and pictures.

The weights are copied into a second module, so that nothing of the training is touched: no mode, no hook, no compiled
layer, no random number. The copy is whole also where the ranks share parameters. Every rank encodes its share of the
samples, a fixed number at once; rank 0 measures. Samples are read straight from the store, past the cache of training.

Axes: N samples, R rows at once, D width.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from pipeline import manifest
from pipeline.store import Store
from train import pictures, ranks, sharding
from train.batch import Batch
from train.models import upscale
from train.models.croma import Croma
from train.models.satmae import Satmae
from train.probes import labels, online
from train.probes.labels import Labels
from train.probes.online import Labelled
from train.recipes.run import Run
from train.stream.config import Share, StreamConfig
from train.stream.loader import Loader, stretches
from train.stream.once import OncePlan
from train.stream.samples import LABEL, Samples, open_samples
from train.stream.transforms import Augment

VAL, TRAIN = "val", "train"
ROWS = 32
"""R. The same on any number of ranks, so that features do not depend on it."""
PICTURES = 4
"""Samples that are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What one look gives; values and pictures are rank 0's."""

    val_samples: int
    """How many were looked at."""
    values: Mapping[str, float]
    """By name of the probe."""
    pictures: Mapping[str, NDArray[np.uint8]]
    """By sensor: input, masked input and prediction, (rows, H, W, 3)."""


@dataclass(slots=True, kw_only=True, eq=False)
class Validation:
    """Fixed samples, and a second module that looks at them."""

    run: Run
    """The recipe."""
    accelerator: Accelerator
    """This rank."""
    store: Store
    """The data set."""
    splits: Mapping[str, Samples]
    """`VAL`, and where there are labels `TRAIN`."""
    limit: int
    """Samples of each split that are looked at, at most."""
    threads: int
    """Readers of this rank."""
    say: Callable[[str], None]
    """Told once what is left out."""
    twin: Croma | Satmae
    """Takes the weights; on the CPU in between."""
    _labels: Labels | None = field(default=None, init=False)

    def look(self, weights: Mapping[str, Tensor]) -> Findings:
        """What the probes say of a model, and what it makes of hidden patches; on all ranks, empty but on rank 0.

        Args:
            weights: its state dict, whole or in shards.

        Raises:
            PretrainError: a sample cannot be read, on any rank.
        """
        with self._filled(weights):
            found = self._features()
            drawn = ranks.together(self.accelerator, self._pictures)
        values = ranks.together(self.accelerator, lambda: self._measured(found))
        return Findings(val_samples=self._plan(self.splits[VAL]).samples, values=values, pictures=drawn)

    def features(self, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Features by split and name, (N, D) float32 on the CPU, in the order of the samples; the same on all ranks."""
        with self._filled(weights):
            return self._features()

    @contextmanager
    def _filled(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        self.twin.to(self.accelerator.device)
        try:
            with torch.no_grad():
                for name, own in self.twin.state_dict().items():
                    own.copy_(sharding.whole(weights[name]))
                yield
        finally:
            self.twin.to("cpu")

    def _features(self) -> dict[str, dict[str, Tensor]]:
        shares = ranks.together(self.accelerator, lambda: {name: self._share(name) for name in self.splits})
        return {name: self._gathered(name, share) for name, share in shares.items()}

    def _pictures(self) -> dict[str, NDArray[np.uint8]]:
        if not self.accelerator.is_main_process:
            return {}
        samples, stream = self.splits[VAL], centred(self.run.stream)
        plan = OncePlan(shard_sizes=samples.shard_sizes, global_batch=PICTURES, seed=self.run.seed, limit=PICTURES)
        share = Share(device=self.accelerator.device, threads=self.threads)
        with Loader(samples, plan, stream, share=share) as batches:
            batch, _ = next(batches)
        drawn = pictures.draw(self.twin, batch, stream, stretches(samples, stream), seed=self.run.seed)
        return {name: rows[: plan.samples] for name, rows in drawn.items()}

    def _plan(self, samples: Samples) -> OncePlan:
        rows = ROWS * self.accelerator.num_processes
        return OncePlan(shard_sizes=samples.shard_sizes, global_batch=rows, seed=self.run.seed, limit=self.limit)

    def _share(self, split: str) -> dict[str, Tensor]:
        """This rank's features by name, (steps, R, D) on the device."""
        samples, here = self.splits[split], self.accelerator
        share = Share(rank=here.process_index, world_size=here.num_processes, device=here.device, threads=self.threads)
        with Loader(samples, self._plan(samples), centred(self.run.stream), share=share) as batches:
            found = [pooled(self.twin, batch) for batch, _ in batches]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def _gathered(self, split: str, share: Mapping[str, Tensor]) -> dict[str, Tensor]:
        count, found = self._plan(self.splits[split]).samples, {}
        for name, own_SRD in share.items():
            all_WSRD = self.accelerator.gather(own_SRD).unflatten(0, (self.accelerator.num_processes, -1))
            found[name] = all_WSRD.transpose(0, 1).flatten(0, 2)[:count].float().cpu()
        return found

    def _measured(self, found: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        if not self.accelerator.is_main_process:
            return {}
        values = online.unlabelled(found[VAL])
        if TRAIN in found and self._known_labels().usable:
            name = "joint" if "joint" in found[VAL] else "s2"
            known = Labelled(labels=self._known_labels(), train_ND=found[TRAIN][name])
            values |= online.labelled(known, found[VAL][name], seed=self.run.seed)
        return values

    def _known_labels(self) -> Labels:
        if self._labels is None:
            self._labels = labels.numbered(self._stored_labels(TRAIN), self._stored_labels(VAL))
            if not self._labels.usable:
                self.say("the labels that probes look at are of one class, or none: no kNN and no linear probe.")
        return self._labels

    def _stored_labels(self, split: str) -> list[int | None]:
        told = open_samples(self.store, split, kind=self.run.stream.kind, bands={}, told=True)
        return labels.stored(told, self._plan(self.splits[split]).ids.tolist(), self.threads)


def open_validation(
    run: Run, data: Store, accelerator: Accelerator, *, limit: int, threads: int, say: Callable[[str], None]
) -> Validation | None:
    """What looks at the `val` split of `data`; None where that is empty, which is said.

    Args:
        run: the recipe. All of the split is looked at, also where it trains on some samples only.
        data: a finished data set.
        accelerator: of the run.
        limit: samples that are looked at, at most; spread over the split.
        threads: readers of this rank.
        say: told what is left out.

    Raises:
        PretrainError: the data set is not the recipe's.
    """
    known = manifest.load(data)
    if not known.samples(VAL):
        say(f"{data.url} has no samples in {VAL!r}: no probes. Ingest with --val, or over a larger area.")
        return None
    names = [VAL, TRAIN] if any(spec.name == LABEL for spec in known.members) and known.samples(TRAIN) else [VAL]
    if TRAIN not in names:
        say(f"{data.url} has no labels: no kNN and no linear probe. Ingest with --labels to have them.")
    stream = run.stream
    return Validation(
        run=run,
        accelerator=accelerator,
        store=data,
        splits={name: open_samples(data, name, kind=stream.kind, bands=stream.bands) for name in names},
        limit=limit,
        threads=threads,
        say=say,
        twin=twin(run),
    )


def twin(run: Run) -> Croma | Satmae:
    """A second module of the recipe's, for evaluation; the random numbers stay where they are."""
    with torch.random.fork_rng(devices=[]):
        return run.module().eval().requires_grad_(requires_grad=False)


def centred(stream: StreamConfig) -> StreamConfig:
    """The recipe's stream, its images cut from the middle of chips and not turned.

    Crops that the recipe resizes are as near to the image's own size as it allows; where it draws a share of the chip,
    all of it is taken.
    """
    augment = stream.augment
    if augment.area is not None:
        return replace(stream, augment=Augment(area=(1.0, 1.0), symmetries=1, centred=True))
    side = augment.side_px and (min(max(stream.image_px, augment.side_px[0]), augment.side_px[1]),) * 2
    return replace(stream, augment=Augment(side_px=side, symmetries=1, centred=True))


def pooled(module: Croma | Satmae, batch: Batch) -> dict[str, Tensor]:
    """Pooled features of whole images, (R, D) each: of CROMA `s1`, `s2`, `joint`, `s1_projected`, `s2_projected`."""
    if isinstance(module, Croma):
        out = module.encode(batch.images["s1"], batch.images["s2"])
        projected = module.contrastive.project(out["SAR_GAP"], out["optical_GAP"])
        found = {"s1": out["SAR_GAP"], "s2": out["optical_GAP"], "joint": out["joint_GAP"]}
        return found | dict(zip(online.PROJECTED, projected, strict=True))
    images = upscale.pyramid(batch.images["s2"], module.config.upscales)[0]
    dates = batch.dates_BT3 if module.config.variant == "temporal" else None
    return {"s2": module.encode(images, dates)["pooled"]}
