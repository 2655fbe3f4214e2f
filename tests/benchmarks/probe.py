"""What pretraining is worth on real chips: land cover, told in places that neither model nor probe has seen.

    python tests/benchmarks/probe.py --catalog ../shared/data/real-catalog --seeds 3 --steps 400 --out OUT

For each labelled place and seed CROMA `tiny` is pretrained on the chips of all other places. A linear probe and nearest
neighbours learn from labelled chips of these other places: from the trained model, from the same model untrained, and
from the mean and deviation of each band. They are asked about the place that was left out, about whole chips and about
each patch of the model. As a second question the probe, though never the model, also learns from the western half of
the place, and is asked about the other half. Normalisation comes from the other places. What OUT already holds is not
done again.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import harness
from benchmarks import places
from benchmarks.machine import report

from pipeline import manifest
from pipeline.store import Store
from train.features import Encoder, open_encoder
from train.grouprec.intervals import interval
from train.job import fit
from train.objective import CromaObjective
from train.options import Options
from train.probes import heads
from train.probes.labels import Labels, majority, numbered
from train.probes.neighbours import nearest
from train.probes.online import NEIGHBOURS
from train.recipes import croma
from train.recipes.croma import CromaRun
from train.reporting.encoded import BANDS, RANDOM, TRAINED, band_statistics, untrained
from train.stream.samples import open_samples
from train.stream.sequence import Part, Reading, parts

UNITS = ("chip", "patch")
PROBES = ("linear", f"kNN {NEIGHBOURS}")
WHOSE = (TRAINED, RANDOM, BANDS)
SAME = "same answer"
"""Always the most frequent class of the training units."""
METRICS = ("accuracy", "balanced")
LEARNS = (places.UNSEEN, places.HALF)
FEWEST = 5
"""Units that a place needs to be scored: those of a class that another place has."""


class Units(NamedTuple):
    """Chips or patches of the labelled places, as one pretrained model has them."""

    places: NDArray[np.str_]
    """Of each."""
    west: NDArray[np.bool_]
    """Whether it lies in the western half of its place."""
    classes: list[int | None]
    """The most frequent of each; None where all of it is unknown."""
    features: dict[str, Tensor]
    """By whose they are, (N, D)."""


class Asked(NamedTuple):
    """What a fold learns from, and what it is asked about."""

    labels: Labels
    """Numbered among the training units."""
    train_N: NDArray[np.bool_]
    """Which units learn."""
    test_N: NDArray[np.bool_]
    """Which are asked about: those whose class is among the training units'."""


def main() -> None:
    """Make the chips, train, measure, print."""
    asked = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # without it a rank takes every core
    torch.set_num_threads(asked.threads)
    areas = json.loads((asked.catalog / "aois" / "all.geojson").read_text())
    labelled = chips(asked, "all", areas)
    scores, rows = {}, []
    for place in labelled_places(labelled, places.boxes(areas)):
        data = chips(asked, f"without-{place}", places.without(areas, place))
        check_apart(data, place, places.boxes(areas))
        for seed in range(asked.seeds):
            encoder = pretrained(asked, data, f"{place}-seed-{seed}", seed)
            for unit in UNITS:
                units = looked_at(encoder, labelled, unit, places.boxes(areas))
                for learns in LEARNS:
                    asks = question(units, place, learns)
                    scores[(learns, unit), place, seed] = measured(units, asks, seed)
                    rows += [{"learns": learns, "unit": unit, **facts(units, place, asks)}] if seed == 0 else []
    report(rows, asked)
    report(list(by_place(scores)), asked)
    report(list(means(scores)), asked)
    report(list(differences(scores)), asked)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", type=Path, required=True, help="a local catalog with aois/all.geojson and labels")
    parser.add_argument("--out", type=Path, required=True, help="chips and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="of pretraining, with 16 chips each")
    parser.add_argument("--chip-px", type=int, default=40, help="a multiple of the patch, which is 8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    return parser


def chips(asked: argparse.Namespace, name: str, areas: Mapping[str, Any]) -> Path:
    """Pairs of some places, land cover included."""
    data, area = asked.out / name, asked.out / f"{name}.geojson"
    asked.out.mkdir(parents=True, exist_ok=True)
    area.write_text(json.dumps(areas))
    where = ["--aoi", str(area), "--catalog", str(asked.catalog), "--out", str(data), "--labels", "labels"]
    what = ["--s1", "rtc,grd", "--max-gap", "3d", "--chip-px", str(asked.chip_px), "--val", "0", "--workers", "0"]
    harness.run("-m", "ingest.cli", "build-shards", *where, *what, timeout_s=600)
    return data


def check_apart(data: Path, place: str, known: Mapping[str, places.Box]) -> None:
    """Stop where chips of the place that is left out are among those to pretrain on."""
    store = Store.at(str(data))
    index = manifest.load_index(store, manifest.load(store))
    pairs = zip(index["lon"].to_pylist(), index["lat"].to_pylist(), strict=True)
    if place in {places.place_of(lon, lat, known) for lon, lat in pairs}:
        sys.exit(f"error: {data} holds chips of {place}, which it must not. Give another --out.")


def labelled_places(data: Path, known: Mapping[str, places.Box]) -> list[str]:
    """Those with a chip whose class is known."""
    samples = open_samples(Store.at(str(data)), "train", kind="pair", bands={}, told=True)
    found = set()
    for i, (lon, lat) in enumerate(zip(*(samples.rows[name].to_pylist() for name in ("lon", "lat")), strict=True)):
        label = samples.read(i).label
        if label is not None and label.any():
            found.add(places.place_of(lon, lat, known))
    return sorted(found)


def recipe(asked: argparse.Namespace, seed: int) -> CromaRun:
    """`tiny` for images of the chips' size."""
    tiny = croma.tiny()
    model = dataclasses.replace(tiny.model, image_px=asked.chip_px)
    stream = dataclasses.replace(tiny.stream, image_px=asked.chip_px)
    return dataclasses.replace(tiny, model=model, stream=stream, steps=asked.steps, seed=seed)


def pretrained(asked: argparse.Namespace, data: Path, name: str, seed: int) -> Encoder:
    """The encoder after its last step."""
    run, out = recipe(asked, seed), str(asked.out / "runs" / f"{name}-{asked.steps}")
    options = Options(data=str(data), out=out, checkpoint_every=10**6, threads=1, resume=True)
    fit(run, options, objective=lambda: CromaObjective(run.model, seed=seed))
    return open_encoder(out, None, None)


def looked_at(encoder: Encoder, data: Path, unit: str, known: Mapping[str, places.Box]) -> Units:
    """What the three make of every unit of the labelled chips."""
    samples = open_samples(Store.at(str(data)), "train", kind="pair", bands=encoder.bands("joint"), told=True)
    constants, _ = encoder.constants(samples)
    reading = Reading(
        constants=constants, scale=encoder.run.stream.scale, multiple_px=encoder.patch_px, batch=16, threads=1
    )
    plain = dataclasses.replace(encoder, module=untrained(encoder))
    where: list[str] = []
    west: list[bool] = []
    classes: list[int | None] = []
    features: dict[str, list[Tensor]] = {whose: [] for whose in WHOSE}
    for part in parts(samples, reading):
        cut = 1 if unit == "chip" else part.images["s2"].shape[-1] // encoder.patch_px
        for i, chip in zip(part.ids, part.chips, strict=True):
            assert chip.label is not None
            lon, lat = (samples.rows[name][i].as_py() for name in ("lon", "lat"))
            place = places.place_of(lon, lat, known)
            classes += classes_of(chip.label, cut)
            where += [place] * cut**2
            west += [lon < (known[place][0] + known[place][2]) / 2] * cut**2
        features[TRAINED].append(of_model(encoder, part, unit))
        features[RANDOM].append(of_model(plain, part, unit))
        features[BANDS].append(band_statistics({name: tiles(x, cut) for name, x in part.images.items()})["joint"])
    joined = {whose: torch.cat(found) for whose, found in features.items()}
    return Units(places=np.array(where), west=np.array(west), classes=classes, features=joined)


def of_model(encoder: Encoder, part: Part, unit: str) -> Tensor:
    """Features of both sensors together, a row a unit."""
    return encoder.features(part, "joint", "pooled" if unit == "chip" else "tokens").flatten(0, -2)


def classes_of(label: NDArray[np.uint8], cut: int) -> list[int | None]:
    """The most frequent class of each of `cut` x `cut` tiles, row by row."""
    return [majority(tile.numpy()) for tile in tiles(torch.tensor(label)[None, None], cut)]


def tiles(image_BCHW: Tensor, cut: int) -> Tensor:
    """Each image as `cut` x `cut` tiles, row by row as the model has its patches, (B cut cut, C, h, w)."""
    high, wide = (side // cut for side in image_BCHW.shape[2:])
    cut_BCRLhw = image_BCHW.unfold(2, high, high).unfold(3, wide, wide)
    return cut_BCRLhw.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def question(units: Units, place: str, learns: str) -> Asked:
    """Units to learn from, and those of `place` whose class is among these."""
    fold = places.fold(units.places, units.west, place=place, learns=learns)
    train_N = fold.train_N & np.array([one is not None for one in units.classes])
    seen = {one for one, taken in zip(units.classes, train_N, strict=True) if taken}
    test_N = fold.test_N & np.array([one in seen for one in units.classes])
    train, test = ([one for one, takes in zip(units.classes, mask, strict=True) if takes] for mask in (train_N, test_N))
    return Asked(labels=numbered(train, test), train_N=train_N, test_N=test_N)


def measured(units: Units, asks: Asked, seed: int) -> dict[tuple[str, str, str], float]:
    """Scores by probe, whose features and metric; empty where too few can be asked about."""
    if asks.test_N.sum() < FEWEST:
        return {}
    chance = dataclasses.asdict(places.always(asks.labels.train_N, asks.labels.val_M))
    found = {(probe, SAME, metric): chance[metric] for probe in PROBES for metric in METRICS}
    for whose, features in units.features.items():
        for probe, said in answers(features[asks.train_N], features[asks.test_N], asks.labels, seed).items():
            score = dataclasses.asdict(places.score(said, asks.labels.val_M))
            found |= {(probe, whose, metric): score[metric] for metric in METRICS}
    return found


def answers(train_ND: Tensor, test_MD: Tensor, labels: Labels, seed: int) -> dict[str, Tensor]:
    """The class that each probe says of each tested unit."""
    learned = labels.train_N
    logits = heads.linear_probe(train_ND, learned, test_MD, classes=labels.classes, seed=seed)
    nobody = learned.new_full((len(test_MD),), -1)
    ours, theirs = heads.standardised(train_ND, test_MD)
    return dict(
        zip(PROBES, (logits.argmax(dim=1), nearest(ours, learned, theirs, own_M=nobody, k=NEIGHBOURS)), strict=True)
    )


def facts(units: Units, place: str, asks: Asked) -> dict[str, Any]:
    """How many learn and are asked about, of which classes, and what always saying the same gives."""

    def counts(mask: NDArray[np.bool_]) -> str:
        of = np.array([-1 if one is None else one for one in units.classes])[mask]
        return ", ".join(
            f"{number} x {count}" for number, count in zip(*np.unique(of, return_counts=True), strict=True)
        )

    chance = places.always(asks.labels.train_N, asks.labels.val_M) if asks.test_N.any() else None
    return {
        "asked about": place,
        "learned (class x units)": counts(asks.train_N),
        "asked": counts(asks.test_N),
        "same answer, accuracy": None if chance is None else round(chance.accuracy, 3),
        "same answer, balanced": None if chance is None else round(chance.balanced, 3),
    }


Task = tuple[str, str]
"""What the probe learns of the place, and of which unit."""
TASKS = tuple((learns, unit) for learns in LEARNS for unit in UNITS)
Scores = Mapping[tuple[Task, str, int], Mapping[tuple[str, str, str], float]]
"""By task, place and seed; then by probe, whose features and metric."""


def scored(scores: Scores, task: Task) -> list[str]:
    """Places with enough to be asked about."""
    return sorted({place for (name, place, _), found in scores.items() if name == task and found})


def table(scores: Scores, task: Task, column: tuple[str, str, str]) -> NDArray[np.float64]:
    """(P, S) of the places that are scored."""
    seeds = sorted({seed for _, _, seed in scores})
    return np.array([[scores[task, place, seed][column] for seed in seeds] for place in scored(scores, task)])


def by_place(scores: Scores) -> Iterator[dict[str, Any]]:
    """Balanced accuracy in each place, mean over seeds (lowest to highest)."""
    for task in TASKS:
        for number, place in enumerate(scored(scores, task)):
            for probe in PROBES:
                values = {whose: table(scores, task, (probe, whose, "balanced"))[number] for whose in WHOSE}
                told = {name: f"{x.mean():.3f} ({x.min():.3f} to {x.max():.3f})" for name, x in values.items()}
                yield {"learns": task[0], "unit": task[1], "asked about": place, "probe": probe, **told}


def means(scores: Scores) -> Iterator[dict[str, Any]]:
    """Each score over places and seeds, and that of no features at all."""
    for task in TASKS:
        for probe in PROBES:
            for whose in (*WHOSE, SAME):
                told = {f"{name} [95 %]": _spread(table(scores, task, (probe, whose, name))) for name in METRICS}
                here = {"learns": task[0], "unit": task[1], "places": len(scored(scores, task))}
                yield {**here, "probe": probe, "features": whose, **told}


def differences(scores: Scores) -> Iterator[dict[str, Any]]:
    """The trained model less each other, paired by place and seed."""
    for task in TASKS:
        for probe in PROBES:
            for whose in WHOSE[1:]:
                row = {"learns": task[0], "unit": task[1], "probe": probe, "difference": f"{TRAINED} - {whose}"}
                for metric in METRICS:
                    ours, theirs = (table(scores, task, (probe, one, metric)) for one in (TRAINED, whose))
                    half = interval((ours - theirs).mean(1).tolist()).half
                    row[f"{metric} [95 %]"] = _spread(ours - theirs)
                    row[f"{metric}, Student's t"] = "unknown" if half is None else f"+-{half:.3f}"
                yield row


def _spread(values_PS: NDArray[np.float64]) -> str:
    low, high = places.resampled(values_PS)
    return f"{values_PS.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
