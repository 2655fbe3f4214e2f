"""From stored pixels to a model's input: crop and symmetry of a pair, then 0..1 with missing pixels in the middle.

Everything drawn is a pure function of (seed, epoch, sample), and both sensors get the same: the model relies on their
alignment. A missing pixel (S1 NaN, S2 digital number 0) becomes 0.5, a band's mean: it carries no signal, where 0 would
be the darkest ground there is.

Axes: B batch, C bands, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.bands import positions
from pipeline.errors import UsageError
from pipeline.stats import BandStats
from train.stream.noise import uniform
from train.stream.normalise import two_sigma

MISSING = 0.5
_SYMMETRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Mean and standard deviation of each band of one sensor, in the stored unit (S2 digital numbers, S1 dB)."""

    mean: tuple[float, ...]
    """One per band."""
    std: tuple[float, ...]
    """One per band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What is cut out of a chip, and how it is turned."""

    top: int
    """Pixels. First row."""
    left: int
    """Pixels. First column."""
    symmetry: int
    """0 to 7: quarter turns (0 to 3), and mirrored after them (4 to 7)."""


def constants(stats: BandStats | None, bands: tuple[str, ...]) -> Constants:
    """The constants of `bands` from a data set's statistics.

    Raises:
        UsageError: the data set has none.
    """
    if stats is None:
        raise UsageError(
            f"the data set has no statistics of {list(bands)}: its train split is empty. "
            "Give the recipe constants of its own, or ingest a larger area."
        )
    at = positions(stats.bands, bands)
    return Constants(mean=tuple(stats.mean[i] for i in at), std=tuple(stats.std[i] for i in at))


def check_size(chip_px: int, image_px: int) -> None:
    """Raise UsageError unless an image can be cut from a chip."""
    if chip_px < image_px:
        raise UsageError(
            f"chips of {chip_px} px are too small for images of {image_px} px. "
            f"Ingest with --chip-px {image_px} or more, or choose a recipe with smaller images."
        )


def placements(
    seed: int, epochs_B: NDArray[np.int64], sample_ids_B: NDArray[np.int64], *, slack_px: int
) -> list[Placement]:
    """Crop and symmetry of each sample.

    Args:
        seed: of the run.
        epochs_B: int64.
        sample_ids_B: int64.
        slack_px: pixels by which a chip is larger than an image.
    """
    epochs, ids = torch.from_numpy(epochs_B), torch.from_numpy(sample_ids_B)
    draws_B3 = uniform(seed, epochs, ids, purpose="placement", count=3).double()
    choices_B3 = (draws_B3 * torch.tensor([slack_px + 1, slack_px + 1, _SYMMETRIES])).long().tolist()
    return [Placement(top=top, left=left, symmetry=symmetry) for top, left, symmetry in choices_B3]


def place(chip_CHW: NDArray[Any], placement: Placement, image_px: int) -> NDArray[Any]:
    """The image that `placement` cuts from a chip, as a view."""
    rows = slice(placement.top, placement.top + image_px)
    columns = slice(placement.left, placement.left + image_px)
    turned = np.rot90(chip_CHW[:, rows, columns], placement.symmetry % 4, axes=(1, 2))
    return turned[:, :, ::-1] if placement.symmetry >= 4 else turned


def normalise(image_BCHW: Tensor, stretch: Constants) -> Tensor:
    """Stored values to 0..1 by `two_sigma`; missing pixels to `MISSING`.

    Args:
        image_BCHW: float32 dB, where NaN is missing, or uint16 digital numbers, where 0 is.
        stretch: of the same bands.

    Returns:
        (B, C, H, W) float32.
    """
    # Cast first: torch's uint16 knows hardly any other operation on a GPU.
    values_BCHW = image_BCHW.to(torch.float32)
    missing = values_BCHW.isnan() if image_BCHW.is_floating_point() else values_BCHW == 0
    mean, std = (torch.tensor(values, device=image_BCHW.device) for values in (stretch.mean, stretch.std))
    return two_sigma(values_BCHW, mean, std).masked_fill(missing, MISSING)
