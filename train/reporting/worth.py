"""What the features are worth: probes of the trained model, of the untrained one, and of plain statistics of bands.

All learn on training samples, and are right or wrong on validation samples.

Axes: N training samples, M validation samples, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from pipeline.page.document import Number, table
from pipeline.page.drawing import svg
from train.probes import heads, labels
from train.probes.labels import Labels
from train.probes.metrics import accuracy
from train.probes.neighbours import nearest
from train.probes.online import NEIGHBOURS
from train.reporting import classes, reading, words
from train.reporting.encoded import BANDS, RANDOM, TRAINED, Look
from train.reporting.intervals import wilson

_COLOURS = {TRAINED: "var(--c0)", RANDOM: "var(--c7)", BANDS: "var(--c4)"}
_ROW, _WIDE, _NAME = 22.0, 560.0, 190.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One probe of one kind of features."""

    whose: str
    """Trained, untrained, or band statistics."""
    probe: str
    """`linear` or `kNN 20`."""
    value: float
    """Accuracy on the validation samples whose class occurs in training."""
    samples: int
    """How many these are."""

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        return wilson(self.value, self.samples)


def section(train: Look | None, val: Look | None, *, seed: int) -> str:
    """A table for each thing that can be asked: land cover where labels exist, and the month of the image."""
    if train is None or val is None:
        return words.absent("probes learn on the training split and are tried on the validation split: one is empty.")
    asked = {
        "Land cover: the most frequent class of a chip": labels.numbered(train.labels, val.labels)
        if any(label is not None for label in train.labels)
        else None,
        "Month of the optical image": labels.numbered(train.months, val.months) if any(train.months) else None,
    }
    parts = [_task(title, known, train, val, seed=seed) for title, known in asked.items() if known is not None]
    missing = (
        ""
        if any(label is not None for label in train.labels)
        else words.absent(
            "land cover: the data set has no labels. `ingest build-shards --labels COLLECTION` adds them."
        )
    )
    return (
        missing
        + classes.section([*train.covers, *val.covers])
        + "".join(parts)
        + words.told(
            "the trained model's interval to the right of both others. Band statistics (mean and deviation of each "
            "band) are what any model must beat; the untrained model is what its architecture gives for nothing.",
            "intervals that overlap: with so few samples, or so little training, nothing is shown. The month is easy "
            "to read off colours; features of land need not tell it.",
        )
    )


def scores(train: Look, val: Look, known: Labels, *, seed: int) -> list[Score]:
    """Both probes of the three kinds of features."""
    kept_N, kept_M = known.train_N >= 0, known.val_M >= 0
    learned, wanted = known.train_N[kept_N], known.val_M[kept_M]
    found = []
    for whose in (TRAINED, RANDOM, BANDS):
        name = "joint" if "joint" in val.features[whose] else "s2"
        ours, theirs = train.features[whose][name][kept_N], val.features[whose][name][kept_M]
        with _one_thread():
            linear = heads.linear_probe(ours, learned, theirs, classes=known.classes, seed=seed).argmax(dim=1)
        by = {"linear": linear, f"kNN {NEIGHBOURS}": _neighbours(ours, learned, theirs)}
        found += [
            Score(whose=whose, probe=probe, value=accuracy(said, wanted), samples=len(wanted))
            for probe, said in by.items()
        ]
    return sorted(found, key=lambda one: one.probe, reverse=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within, torch computes on one thread: on tables this small several wait for each other, seven times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _neighbours(ours: Tensor, learned: Tensor, theirs: Tensor) -> Tensor:
    ours, theirs = heads.standardised(ours, theirs)
    return nearest(ours, learned, theirs, own_M=learned.new_full((len(theirs),), -1), k=NEIGHBOURS)


def _task(title: str, known: Labels, train: Look, val: Look, *, seed: int) -> str:
    head = f"<h3>{escape(title)}</h3>"
    if not known.usable:
        return head + words.absent(
            "training samples are of one class, or no validation sample is of a class that they have."
        )
    found = scores(train, val, known, seed=seed)
    learned = int((known.train_N >= 0).sum())
    most = int(known.train_N[known.train_N >= 0].bincount().argmax())
    chance = float((known.val_M[known.val_M >= 0] == most).double().mean())
    caption = f"{known.classes} classes, learned on {learned} samples, tried on {found[0].samples}. "
    caption += f"Dashed: always the most frequent class, {chance:.3f}."
    here = [f"{one.probe}: {_compared(one, found)}" for one in found if one.whose == TRAINED]
    rows = [
        (
            one.probe,
            one.whose,
            Number(f"{one.value:.3f}"),
            Number("{:.3f} to {:.3f}".format(*one.interval)),
            Number(str(one.samples)),
        )
        for one in found
    ]
    return (
        head
        + f"<figure>{bars(found, chance)}<figcaption>{escape(caption)}</figcaption></figure>"
        + table(("probe", "features", "accuracy", "95 % interval", "samples"), rows)
        + words.said(" ".join(here))
    )


def _compared(one: Score, found: Sequence[Score]) -> str:
    others = {other.whose: other.value for other in found if other.probe == one.probe and other.whose != TRAINED}
    return reading.compared(one.value, others, samples=one.samples)


def bars(found: Sequence[Score], chance: float) -> str:
    """A bar for each score with its interval; the dashed line is always saying the most frequent class."""
    height = _ROW * len(found) + 24
    parts = []
    for number, one in enumerate(found):
        y = number * _ROW + 4
        low, high = (_NAME + (_WIDE - _NAME - 20) * value for value in one.interval)
        wide = (_WIDE - _NAME - 20) * one.value
        parts.append(
            f'<text class="ink" x="{_NAME - 8:.0f}" y="{y + 13:.1f}" text-anchor="end">{one.probe}, {one.whose}</text>'
        )
        parts.append(
            f'<rect x="{_NAME:.0f}" y="{y:.1f}" width="{max(wide, 1):.1f}" height="16" fill="{_COLOURS[one.whose]}"/>'
        )
        whisker = f"M{low:.1f} {y + 8:.1f}H{high:.1f}M{low:.1f} {y + 4:.1f}v8M{high:.1f} {y + 4:.1f}v8"
        parts.append(f'<path d="{whisker}" stroke="var(--ink)"/>')
    x = _NAME + (_WIDE - _NAME - 20) * chance
    parts.append(f'<path d="M{x:.1f} 0V{height - 20:.1f}" stroke="var(--soft)" stroke-dasharray="4 3"/>')
    for value in (0.0, 0.5, 1.0):
        at = _NAME + (_WIDE - _NAME - 20) * value
        parts.append(f'<text x="{at:.1f}" y="{height - 6:.0f}" text-anchor="middle">{value:g}</text>')
    return svg(_WIDE, height, parts, said="Accuracy of each probe with its 95 % interval")
