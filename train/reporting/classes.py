"""What the labels of chips say: the most frequent class, how much of the chip it covers, and names of several classes.

A chip rarely is of one class. It is shown by its most frequent one, with the share that this one covers; a chip where
that is less than half has no class that speaks for it, and is marked.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from pipeline.page.document import Number, table
from train.probes.labels import majority
from train.reporting import words
from train.stream.samples import Samples

_HALF = 0.5
"""A majority."""
_NAMED = 20
"""Names that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Of one chip."""

    label: int | None
    """The most frequent known class of its raster; None where there is none."""
    share: float
    """Of its known pixels that are of this class; NaN where there is none."""
    classes: int
    """Known classes in its raster."""
    names: tuple[str, ...]
    """Class names of the whole chip."""

    @property
    def mixed(self) -> bool:
        """Whether no class covers half of it."""
        return self.share < _HALF

    def __str__(self) -> str:
        """For people."""
        if self.label is None:
            return "unknown"
        return f"class {self.label}" + (f" ({self.share:.0%})" if self.classes > 1 else "")


def cover(label: NDArray[np.uint8] | None, names: Sequence[str] = ()) -> Cover:
    """Of a raster, (H, W) with 0 for unknown, and class names."""
    counts = np.zeros(1, np.int64) if label is None else np.bincount(label.ravel(), minlength=1)
    known = counts[1:]
    return Cover(
        label=None if label is None else majority(label),
        share=float(known.max() / known.sum()) if known.any() else float("nan"),
        classes=int((known > 0).sum()),
        names=tuple(names),
    )


def covers(samples: Samples, ids: Sequence[int], threads: int) -> list[Cover]:
    """Of samples that were opened with what is told of them.

    Raises:
        PretrainError: one cannot be read.
    """

    def of(sample_id: int) -> Cover:
        chips = samples.read(sample_id)
        return cover(chips.label, chips.meta.classes if chips.meta is not None else ())

    with ThreadPoolExecutor(threads, thread_name_prefix="labels") as readers:
        return list(readers.map(of, ids))


def section(found: Sequence[Cover]) -> str:
    """How many classes chips have, and what that means for what is shown of them; empty where there are no labels."""
    known = [one for one in found if one.label is not None]
    return (_rasters(known) if known else "") + _names(found)


def _rasters(known: Sequence[Cover]) -> str:
    classes, mixed = [one.classes for one in known], sum(one.mixed for one in known)
    share = median(one.share for one in known)
    said = (
        f"{len(known)} chips have a label raster, with {min(classes)} to {max(classes)} classes each (median "
        f"{median(classes):g}). Each counts as its most frequent class, which covers {share:.0%} of "
        f"its labelled pixels (median); in {mixed} of them less than half: nobody can be quite right about those."
    )
    return f"<p>{said}</p>"


def _names(found: Sequence[Cover]) -> str:
    named = [one for one in found if one.names]
    if not named:
        return ""
    counts = Counter(name for one in named for name in one.names)
    rows = [(name, Number(f"{count:,}"), Number(f"{count / len(named):.0%}")) for name, count in counts.most_common()]
    several = sum(len(one.names) > 1 for one in named)
    left = len(rows) - _NAMED
    return (
        f"<p>{len(named)} chips carry class names, {several} of them several. Probes of this page ask for one class a "
        "chip and leave them out; <code>train/probe.py --label classes</code> asks for all.</p>"
        + table(("class", "chips", "share"), rows[:_NAMED])
        + (f"<p>{left} rarer classes are not listed.</p>" if left > 0 else "")
        + words.told(
            "names as frequent as the land they stand for.", "one name on every chip: nothing can be learned from it."
        )
    )
