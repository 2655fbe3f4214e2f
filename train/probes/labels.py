"""Classes of samples, from their label rasters: what probes that need labels are right about.

Axes: N training samples, M validation samples.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.stream.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Classes of some samples of both splits, counted from 0; -1 where there is none that training samples have."""

    train_N: Tensor
    """int64."""
    val_M: Tensor
    """int64."""

    @property
    def classes(self) -> int:
        """How many."""
        return int(self.train_N.max()) + 1

    @property
    def usable(self) -> bool:
        """Whether there is something to tell apart."""
        return self.classes > 1 and bool((self.val_M >= 0).any())


def majority(label: NDArray[np.uint8]) -> int | None:
    """The most frequent known class of a chip; None where all of it is unknown (0)."""
    counts = np.bincount(label.ravel(), minlength=1)
    counts[0] = 0
    return int(counts.argmax()) if counts.any() else None


def stored(samples: Samples, ids: Sequence[int], threads: int) -> list[int | None]:
    """The majority class of each sample; of samples that were opened with what is `told` of them.

    Raises:
        PretrainError: one cannot be read.
    """

    def of(sample_id: int) -> int | None:
        label = samples.read(sample_id).label
        return None if label is None else majority(label)

    with ThreadPoolExecutor(threads, thread_name_prefix="labels") as readers:
        return list(readers.map(of, ids))


def numbered(train: Sequence[int | None], val: Sequence[int | None]) -> Labels:
    """The classes that occur in `train`, numbered in ascending order."""
    known = sorted({one for one in train if one is not None})
    places: dict[int | None, int] = {name: number for number, name in enumerate(known)}
    both = [torch.tensor([places.get(one, -1) for one in part], dtype=torch.int64) for part in (train, val)]
    return Labels(train_N=both[0], val_M=both[1])
