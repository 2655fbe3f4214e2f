"""What is cut out of a chip, resized and turned: pure functions of (seed, epoch, sample).

All sensors and frames of a sample get the same: the models rely on their alignment. A resize works on normalised
values, without anti-aliasing and without clamping, as the published SatMAE data path did.

Axes: B batch, C bands, H W pixels; any leading axes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UsageError
from train.stream.noise import uniform

_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10
_CENTRE = 0.875


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """How an image is cut from a chip. Without `side_px` and `area` it is a crop of the image's own size."""

    side_px: tuple[int, int] | None = None
    """Pixels. Smallest and largest side of square crops, which are resized to the image."""
    area: tuple[float, float] | None = None
    """Smallest and largest share of the chip's area of crops with sides of 3:4 to 4:3, which are resized."""
    symmetries: Literal[1, 2, 8] = 8
    """1: none. 2: mirrored left to right or not. 8: quarter turns, mirrored or not."""
    centred: bool = False
    """Cut from the middle of the chip, for evaluation, and not from a drawn place."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if self.side_px and (self.area or not 1 <= self.side_px[0] <= self.side_px[1]):
            raise UsageError(f"crops of {self.side_px} px and {self.area} of the area: give one, ascending, positive.")
        if self.area and not 0 < self.area[0] <= self.area[1] <= 1:
            raise UsageError(f"crops of {self.area} of the area: give two shares in 0..1, ascending.")

    def largest_px(self, chip_px: int, image_px: int) -> int:
        """Side of the largest crop."""
        return self.side_px[1] if self.side_px else chip_px if self.area else image_px

    @property
    def resizes(self) -> bool:
        """Whether crops differ from the image in size."""
        return self.side_px is not None or self.area is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What is cut out of a chip, and how it is turned."""

    top: int
    """Pixels. First row."""
    left: int
    """Pixels. First column."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    symmetry: int
    """0 to 7: quarter turns (0 to 3), and mirrored after them (4 to 7)."""


def check_size(chip_px: int, image_px: int, augment: Augment) -> None:
    """Raise UsageError unless an image can be cut from a chip."""
    largest = augment.side_px[1] if augment.side_px else 1 if augment.area else image_px
    if chip_px < largest:
        raise UsageError(
            f"chips of {chip_px} px are too small for crops of {largest} px. "
            f"Ingest with --chip-px {largest} or more, or choose a recipe with smaller images."
        )


def check_frames(stored: int | None, wanted: int | None) -> None:
    """Raise UsageError unless `wanted` frames can be drawn from a stack of `stored`."""
    if wanted is not None and not 1 <= wanted <= (stored or 0):
        raise UsageError(
            f"the recipe wants {wanted} dates of a sample and the data set has {stored or 'pairs'}. "
            f"Ingest with --kind stack --frames {wanted} or more."
        )


def frame_picks(
    seed: int,
    epochs_B: NDArray[np.int64],
    sample_ids_B: NDArray[np.int64],
    *,
    stored: int | None,
    wanted: int | None,
) -> list[list[int]]:
    """Which of `stored` frames each sample shows: `wanted` of them, ascending; none of a pair."""
    if stored is None or wanted is None:
        return [[] for _ in sample_ids_B]
    epochs, ids = torch.from_numpy(epochs_B), torch.from_numpy(sample_ids_B)
    noise_BT = uniform(seed, epochs, ids, purpose="frames", count=stored)
    picks: list[list[int]] = noise_BT.argsort(dim=1, stable=True)[:, :wanted].sort(dim=1).values.tolist()
    return picks


def placements(
    seed: int,
    epochs_B: NDArray[np.int64],
    sample_ids_B: NDArray[np.int64],
    *,
    chip_px: int,
    image_px: int,
    augment: Augment,
) -> list[Placement]:
    """Crop and symmetry of each sample.

    Args:
        seed: of the run.
        epochs_B: int64.
        sample_ids_B: int64.
        chip_px: side of a chip.
        image_px: side of the image that is wanted.
        augment: how.
    """
    epochs, ids = torch.from_numpy(epochs_B), torch.from_numpy(sample_ids_B)
    draws_BN = uniform(seed, epochs, ids, purpose="placement", count=3 + 2 * _TRIES).double()
    size_B2 = _sizes(draws_BN[:, 3:], chip_px, image_px, augment)
    room_B2 = chip_px - size_B2
    corner_B2 = room_B2 // 2 if augment.centred else (draws_BN[:, :2] * (room_B2 + 1)).long()
    symmetry_B = (draws_BN[:, 2] * augment.symmetries).long() * (4 if augment.symmetries == 2 else 1)
    rows = torch.cat((corner_B2, size_B2, symmetry_B[:, None]), dim=1).tolist()
    return [Placement(top=t, left=c, height=h, width=w, symmetry=s) for t, c, h, w, s in rows]


def crop(chip_CHW: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """The part of a chip that `placement` names, as a view."""
    rows = slice(placement.top, placement.top + placement.height)
    return chip_CHW[..., rows, placement.left : placement.left + placement.width]


def turn(image_CHW: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """The image under `placement`'s symmetry, as a view: `numpy.rot90`, then mirrored, at a tenth of its calls."""
    quarters, mirrored = placement.symmetry % 4, placement.symmetry >= 4
    upright = image_CHW.swapaxes(-2, -1) if quarters % 2 else image_CHW
    rows, columns = quarters in {1, 2}, (quarters in {2, 3}) != mirrored
    return upright[..., :: -1 if rows else 1, :: -1 if columns else 1]


def resize(image_CHW: Tensor, height: int, width: int) -> Tensor:
    """Bicubic (a = -0.75), pixel centres aligned, not anti-aliased, not clamped; (..., C, height, width) float."""
    lead = image_CHW.shape[:-2]
    image = image_CHW.reshape(1, -1, *image_CHW.shape[-2:])
    out = functional.interpolate(image, size=(height, width), mode="bicubic", align_corners=False)
    return out.reshape(*lead, height, width)


def centre(image_CHW: Tensor, side: int) -> Tensor:
    """The middle of an image, for evaluation (SatMAE).

    Args:
        image_CHW: (..., C, H, W) float, normalised.
        side: of the square that is wanted, px.
    """
    (height, width), (top, left) = centre_box(image_CHW.shape[-2], image_CHW.shape[-1], side)
    return resize(image_CHW, height, width)[..., top : top + side, left : left + side]


def centre_box(height: int, width: int, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """To what size an image is resized, so that `_CENTRE` of its shorter side stays, and where the crop begins."""
    short, least = int(side / _CENTRE), min(height, width)
    size = short * height // least, short * width // least
    return size, (round((size[0] - side) / 2), round((size[1] - side) / 2))


def _sizes(draws_BN: Tensor, chip_px: int, image_px: int, augment: Augment) -> Tensor:
    """Height and width of each crop, (B, 2) int64."""
    if augment.side_px is not None:
        low, high = augment.side_px
        return (low + (draws_BN[:, :1] * (high - low + 1)).long()).expand(-1, 2)
    if augment.area is None:
        return torch.full((len(draws_BN), 2), image_px)
    return _area_sizes(draws_BN.unflatten(1, (_TRIES, 2)), chip_px, augment.area)  # type: ignore[no-untyped-call]


def _area_sizes(draws_BN2: Tensor, chip_px: int, area: tuple[float, float]) -> Tensor:
    """The first of some random areas and aspects that fits; the whole chip where none does."""
    pixels_BN = chip_px**2 * (area[0] + draws_BN2[..., 0] * (area[1] - area[0]))
    low, high = (math.log(aspect) for aspect in _ASPECT)
    aspect_BN = (low + draws_BN2[..., 1] * (high - low)).exp()
    size_BN2 = torch.stack(((pixels_BN / aspect_BN).sqrt(), (pixels_BN * aspect_BN).sqrt()), dim=-1).round().long()
    fits_BN = ((size_BN2 >= 1) & (size_BN2 <= chip_px)).all(dim=-1)
    first_B = fits_BN.int().argmax(dim=1)
    size_B2 = size_BN2[torch.arange(len(size_BN2)), first_B]
    return torch.where(fits_BN.any(dim=1)[:, None], size_B2, chip_px)
