"""From embedded data sets to one table: which probe finds how much in the features."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.errors import ContractError, UsageError
from train.choices import PROBES
from train.embedding import META_KEY
from train.models.containers import File
from train.probes import heads, metrics
from train.probes.clusters import kmeans
from train.probes.neighbours import nearest, recall

NEIGHBOURS = 20
RECALLS = (1, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure, on what."""

    train: str
    """Embedded samples to learn from."""
    test: str
    """Embedded samples to be right about."""
    label: str
    """Column: `label`, one class a sample, or `classes`, several."""
    probes: tuple[str, ...]
    """Of `PROBES`."""
    other: str | None
    """Embedded test samples of another sensor, for retrieval."""
    seed: int
    """Of everything random."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """One embedded file's rows that have a label."""

    keys: tuple[str, ...]
    """Sample keys."""
    values_ND: Tensor
    """float32."""
    labels: tuple[tuple[str, ...], ...]
    """Names of each sample's classes."""
    facts: Mapping[str, Any]
    """What train/embed.py says of them; empty of other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table."""

    probe: str
    """What was done."""
    metric: str
    """How it is counted."""
    value: float
    """0 to 1."""
    chance: float | None
    """What knowing nothing would give; None where there is no such number."""


def measure(request: Request) -> tuple[list[Result], dict[str, int]]:
    """The table, and how many samples and classes it rests on.

    Raises:
        UsageError: a file, a column or a probe is not there, or there is nothing to tell apart.
    """
    unknown = sorted({*request.probes} - {*PROBES})
    if not request.probes:
        raise UsageError(f"--probes names none. Choose from {','.join(PROBES)}.")
    if unknown:
        raise UsageError(f"--probes {','.join(request.probes)}: {unknown} are none. Choose from {','.join(PROBES)}.")
    train, test = read(request.train, request.label), read(request.test, request.label)
    names = sorted({name for labels in train.labels for name in labels})
    _check_model(train, test)
    everything, test = len(test.keys), _known(test, names)
    if len(names) < 2 or not test.keys:
        raise UsageError(
            f"{len(names)} classes in --train and {len(test.keys)} samples of them in --test: two and one are needed. "
            "Embed more, or ingest with --labels."
        )
    several = request.label == "classes"
    bench = Bench(
        request=request,
        train=train,
        test=test,
        learned=_targets(train, names, several=several),
        wanted=_targets(test, names, several=several),
        classes=len(names),
    )
    results = [result for probe in request.probes for result in _RUN[probe](bench)]
    counts = {"train": len(train.keys), "test": len(test.keys), "classes": len(names)}
    return results, {**counts, "of classes never seen, left out": everything - len(test.keys)}


def _check_model(one: Features, other: Features) -> None:
    """Raise UsageError unless both were made by the same weights, as far as the files say."""
    different = [name for name in ("recipe", "weights") if one.facts.get(name) != other.facts.get(name)]
    if different and one.facts and other.facts:
        raise UsageError(f"the files were embedded by models of different {different}. Embed both with one checkpoint.")


def read(path: str, label: str | None) -> Features:
    """The rows of an embedded file that have a label; all of them without `label`."""
    file = File.at(path)
    try:
        table = pq.read_table(io.BytesIO(file.store.read(file.name)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{file.url} is not there. Write it with train/embed.py.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"{file.url} is not Parquet: {error}. Embed again.") from error
    missing = [name for name in ("key", "feature", *([label] if label else [])) if name not in table.column_names]
    if missing:
        raise UsageError(f"{file.url} has no columns {missing}, only {table.column_names}. Was it embedded?")
    labels = [_names(value) for value in table[label].to_pylist()] if label else [("",)] * table.num_rows
    rows = [i for i, names in enumerate(labels) if names]
    values = np.stack(table["feature"].to_pylist()).astype(np.float32) if table.num_rows else np.zeros((0, 1))
    keys = table["key"].to_pylist()
    if not np.isfinite(values).all():
        raise ContractError(f"{file.url} holds features that are not finite. Train again with a lower rate.")
    return Features(
        facts=json.loads((table.schema.metadata or {}).get(META_KEY, b"{}")),
        keys=tuple(keys[i] for i in rows),
        values_ND=torch.from_numpy(values[rows]),
        labels=tuple(labels[i] for i in rows),
    )


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def _known(test: Features, names: Sequence[str]) -> Features:
    """The rows that have a class seen in training: of others nothing can be right."""
    rows = [i for i, labels in enumerate(test.labels) if {*labels} & {*names}]
    return Features(
        keys=tuple(test.keys[i] for i in rows),
        values_ND=test.values_ND[rows],
        labels=tuple(test.labels[i] for i in rows),
        facts=test.facts,
    )


def _targets(part: Features, names: Sequence[str], *, several: bool) -> Tensor:
    places = {name: i for i, name in enumerate(names)}
    if not several:
        return torch.tensor([places[labels[0]] for labels in part.labels])
    targets = torch.zeros(len(part.labels), len(names), dtype=torch.int64)
    for row, labels in enumerate(part.labels):
        targets[row, [places[name] for name in labels if name in places]] = 1
    return targets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What every probe is given."""

    request: Request
    """What was asked for."""
    train: Features
    """To learn from."""
    test: Features
    """To be right about."""
    learned: Tensor
    """Classes of `train`: (N,) int64, or (N, C) of zeros and ones."""
    wanted: Tensor
    """Classes of `test`."""
    classes: int
    """C."""

    @property
    def majority(self) -> float:
        """Accuracy of always saying the training part's most frequent class."""
        return float((self.wanted == self.learned.bincount().argmax()).double().mean())

    @property
    def own_places(self) -> Tensor:
        """Where each test sample stands in `train`; -1 where it does not."""
        places = {key: i for i, key in enumerate(self.train.keys)}
        return torch.tensor([places.get(key, -1) for key in self.test.keys])

    def one_class(self, probe: str) -> None:
        """Raise UsageError where samples have several classes."""
        if self.learned.ndim > 1:
            raise UsageError(f"--probes {probe} is for one class a sample. Leave it out, or use --label label.")


def _knn(bench: Bench) -> list[Result]:
    bench.one_class("knn")
    features = bench.train.values_ND, bench.learned, bench.test.values_ND
    found = nearest(*features, own_M=bench.own_places, k=NEIGHBOURS)
    value = metrics.accuracy(found, bench.wanted)
    return [Result(probe=f"kNN {NEIGHBOURS}", metric="top-1", value=value, chance=bench.majority)]


def _linear(bench: Bench) -> list[Result]:
    return [_head("linear", heads.linear_probe, bench)]


def _mlp(bench: Bench) -> list[Result]:
    return [_head("MLP", heads.mlp_probe, bench)]


def _head(name: str, probe: Callable[..., Tensor], bench: Bench) -> Result:
    if (bench.own_places >= 0).any():
        raise UsageError(
            f"--train and --test share samples: a {name} probe would be asked what it was told. Split them."
        )
    features = bench.train.values_ND, bench.learned, bench.test.values_ND
    value = heads.score(probe(*features, classes=bench.classes, seed=bench.request.seed), bench.wanted)
    if bench.learned.ndim == 1:
        return Result(probe=name, metric="top-1", value=value, chance=bench.majority)
    return Result(probe=name, metric="mAP", value=value, chance=float(bench.wanted.double().mean()))


def _kmeans(bench: Bench) -> list[Result]:
    bench.one_class("kmeans")
    values, _ = heads.standardised(bench.test.values_ND, bench.test.values_ND)
    clusters = kmeans(values, clusters=min(bench.classes, len(values)), seed=bench.request.seed)
    matched = metrics.matched_accuracy(clusters, bench.wanted)
    shared = metrics.mutual_information(clusters, bench.wanted)
    return [
        Result(probe="k-means", metric="matched accuracy", value=matched, chance=bench.majority),
        Result(probe="k-means", metric="NMI", value=shared, chance=0.0),
    ]


def _retrieval(bench: Bench) -> list[Result]:
    if bench.request.other is None:
        raise UsageError("--probes retrieval needs --other: the test samples embedded with another sensor.")
    ours, theirs = read(bench.request.test, None), read(bench.request.other, None)
    if ours.keys != theirs.keys or ours.values_ND.shape != theirs.values_ND.shape:
        raise UsageError("--test and --other hold other samples, or features of another width. Embed the same data.")
    _check_model(ours, theirs)
    if any(part.facts.get("pooling", "projected") != "projected" for part in (ours, theirs)):
        raise UsageError(
            "sensors share a space behind the contrastive projections only. Embed with --pooling projected."
        )
    both = (ours.values_ND, theirs.values_ND)
    results = []
    for name, (queries, gallery) in (("test to other", both), ("other to test", both[::-1])):
        for k, value in recall(queries, gallery, at=RECALLS).items():
            chance = min(1.0, k / len(ours.keys))
            results.append(Result(probe=f"retrieval, {name}", metric=f"recall@{k}", value=value, chance=chance))
    return results


_RUN: Mapping[str, Callable[[Bench], list[Result]]] = {
    "knn": _knn,
    "linear": _linear,
    "mlp": _mlp,
    "kmeans": _kmeans,
    "retrieval": _retrieval,
}
