"""Every sample of a split once, whole and in order: for features, not for training.

Axes: B batch, T frames, C bands, H W pixels.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.stream.normalise import Constants, Scale, normalise
from train.stream.ring import calendar
from train.stream.samples import Chips, Samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some neighbouring samples."""

    ids: tuple[int, ...]
    """Sample ids, ascending."""
    chips: tuple[Chips, ...]
    """As stored."""
    images: Mapping[str, Tensor]
    """Normalised, by sensor: (B, C, H, W), of stacks (B, T, C, H, W)."""
    dates_BT3: Tensor | None
    """int64 year, month and hour of each frame of a stack; None for pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How samples are read."""

    constants: Mapping[str, Constants]
    """By sensor."""
    scale: Scale
    """How stored values become a model's input."""
    multiple_px: int
    """Pixels. Sides are cut to a multiple of this, around the middle."""
    batch: int
    """Samples at once."""
    threads: int
    """Readers."""


def parts(samples: Samples, reading: Reading) -> Iterator[Part]:
    """All samples, `reading.batch` at a time; one batch is read ahead."""
    groups = [
        range(first, min(first + reading.batch, samples.samples)) for first in range(0, samples.samples, reading.batch)
    ]
    with ThreadPoolExecutor(reading.threads, thread_name_prefix="sequence") as readers:
        ahead = [[readers.submit(samples.read, i) for i in group] for group in groups[:1]]
        for number, group in enumerate(groups):
            ahead += [[readers.submit(samples.read, i) for i in after] for after in groups[number + 1 : number + 2]]
            yield _part(tuple(group), tuple(read.result() for read in ahead.pop(0)), reading)


def _part(ids: tuple[int, ...], chips: tuple[Chips, ...], reading: Reading) -> Part:
    images = {}
    for name, stretch in reading.constants.items():
        stored = np.stack([middle(one.images[name], reading.multiple_px) for one in chips])
        images[name] = normalise(torch.from_numpy(stored), stretch, scale=reading.scale)
    metas = [one.meta for one in chips]
    stack = next(iter(images.values())).ndim == 5
    dates = [calendar(meta, range(len(meta.acquired))) for meta in metas if meta is not None] if stack else []
    return Part(ids=ids, chips=chips, images=images, dates_BT3=torch.stack(dates) if dates else None)


def middle(image: np.ndarray, multiple: int) -> np.ndarray:
    """The middle of (..., H, W), with sides cut to multiples."""
    height, width = (side // multiple * multiple for side in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]
