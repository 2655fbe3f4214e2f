"""Room for batches that are being read: filled by threads, used once by the device, then filled again.

A batch is tens of megabytes. Fresh memory for each would be paid in page faults, and memory that is not pinned in
copies to the GPU that nothing else can run beside.

Axes: B batch, T frames, C bands, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.sample import SampleMeta
from train.stream.config import StreamConfig
from train.stream.lanes import Ids
from train.stream.samples import Chips, Samples
from train.stream.transforms import Placement, crop, turn

_DTYPES = {"s1": torch.float32, "s2": torch.uint16}


class Room(NamedTuple):
    """What a tensor takes."""

    shape: tuple[int, ...]
    """Its own."""
    dtype: torch.dtype = torch.int64
    """Its own."""


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """Room for one batch as stored: crops, turned, in the upper left corner of their images."""

    images: Mapping[str, Tensor]
    """By sensor: (B, C, H, W), of stacks (B, T, C, H, W); s1 float32 dB, s2 uint16."""
    sizes_B2: Tensor
    """int64 height and width of each crop, pixels."""
    dates_BT3: Tensor | None
    """int64 year, month and hour (UTC) of each frame of a stack."""
    ids_B: Tensor
    """int64 sample ids."""
    epochs_B: Tensor
    """int64, theirs."""
    valid_B: Tensor
    """bool, which rows count."""
    number: int = 0
    """Among those of its readers."""
    used: torch.cuda.Event | None = field(default=None)
    """Passed once a GPU has copied what was in here."""
    _arrays: Mapping[str, NDArray[Any]] = field(init=False)
    """The same memory, for readers: to index a tensor costs ten times what it costs to index an array."""

    def __post_init__(self) -> None:
        """Look at the tensors as arrays."""
        self._arrays = {name: image.numpy() for name, image in self._tensors().items()}

    def free(self) -> "Slot":
        """This slot, once it may be filled again."""
        if self.used is not None:
            self.used.synchronize()
        return self

    @property
    def facts(self) -> dict[str, Tensor]:
        """What is known of the rows beside their images."""
        facts = {"ids": self.ids_B, "epochs": self.epochs_B, "valid": self.valid_B}
        return facts if self.dates_BT3 is None else {**facts, "dates": self.dates_BT3}

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.images, "sizes": self.sizes_B2, "ids": self.ids_B}

    def name(self, ids: Ids, epochs: Ids, valid: NDArray[np.bool_]) -> None:
        """Say whose rows these are: (B,) each."""
        for tensor, values in ((self.ids_B, ids), (self.epochs_B, epochs), (self.valid_B, valid)):
            tensor.copy_(torch.from_numpy(values))

    def taken(self) -> Ids:
        """The sample ids, (B,), which stay when the slot is filled again."""
        return self._arrays["ids"].copy()

    def fill(self, row: int, chips: Chips, cut: Placement, picks: Sequence[int], *, sample_id: int) -> None:
        """Put one sample into its row."""
        self._arrays["ids"][row] = sample_id
        for name in self.images:
            chip = chips.images[name] if self.dates_BT3 is None else chips.images[name][list(picks)]
            image = turn(crop(chip, cut), cut)
            height, width = image.shape[-2:]
            np.copyto(self._arrays[name][row, ..., :height, :width], image)
            self._arrays["sizes"][row] = height, width
        if self.dates_BT3 is not None:
            self.dates_BT3[row] = calendar(chips.meta, picks)


def new_slot(samples: Samples, config: StreamConfig, *, rows: int, pinned: bool) -> Slot:
    """Room for `rows` samples; zeros, so that what no crop fills is no NaN.

    Args:
        samples: of the stream.
        config: of the stream.
        rows: B.
        pinned: page-locked, for a GPU.
    """
    rooms = rooms_of(samples, config, rows=rows)
    return slot_in({name: torch.zeros(room.shape, dtype=room.dtype, pin_memory=pinned) for name, room in rooms.items()})


def rooms_of(samples: Samples, config: StreamConfig, *, rows: int) -> dict[str, Room]:
    """What a slot of `rows` samples consists of."""
    side, frames = config.augment.largest_px(samples.known.chip_px, config.image_px), frames_of(samples, config)
    lead = (rows,) if frames is None else (rows, frames)
    rooms = {name: Room((*lead, len(bands), side, side), _DTYPES[name]) for name, bands in config.bands.items()}
    rooms |= {"sizes": Room((rows, 2)), "ids": Room((rows,)), "epochs": Room((rows,))}
    rooms |= {"valid": Room((rows,), torch.bool)}
    return rooms if frames is None else {**rooms, "dates": Room((rows, frames, 3))}


def slot_in(tensors: Mapping[str, Tensor], *, number: int = 0) -> Slot:
    """The slot whose parts are these."""
    return Slot(
        number=number,
        images={name: tensor for name, tensor in tensors.items() if name in _DTYPES},
        sizes_B2=tensors["sizes"],
        dates_BT3=tensors.get("dates"),
        ids_B=tensors["ids"],
        epochs_B=tensors["epochs"],
        valid_B=tensors["valid"],
    )


def frames_of(samples: Samples, config: StreamConfig) -> int | None:
    """Frames of each reading; None of a pair."""
    return config.frames or samples.frames


def calendar(meta: SampleMeta | None, frames: Sequence[int]) -> Tensor:
    """Year, month and hour (UTC) of some frames of a stack, (T, 3) int64."""
    acquired = [] if meta is None else [meta.acquired[frame] for frame in frames]
    return torch.tensor([(when.year, when.month, when.hour) for when in acquired])
