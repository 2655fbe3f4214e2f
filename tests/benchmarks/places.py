"""Leaving places out: who learns, who is asked, how answers are scored, and how sure a mean over places and seeds is.

Axes: N samples, P places, S seeds, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.probes.metrics import accuracy

Box = tuple[float, float, float, float]
"""Degrees: west, south, east, north."""
RESAMPLES = 10_000
"""R."""
UNSEEN, HALF = "no", "western half"
"""What a probe learns of the place that it is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Who learns, and who is asked."""

    train_N: NDArray[np.bool_]
    """Samples that a probe learns from."""
    test_N: NDArray[np.bool_]
    """Samples that it is asked about, all of one place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How right answers are."""

    accuracy: float
    """Share of samples."""
    balanced: float
    """Mean over the classes that occur of the share of each that is found."""


def boxes(areas: Mapping[str, Any]) -> dict[str, Box]:
    """The box round each named polygon of a GeoJSON collection."""
    found = {}
    for feature in areas["features"]:
        corners = np.array(feature["geometry"]["coordinates"][0], float)[:, :2]
        (west, south), (east, north) = corners.min(0), corners.max(0)
        found[feature["properties"]["name"]] = (float(west), float(south), float(east), float(north))
    return found


def place_of(lon: float, lat: float, known: Mapping[str, Box]) -> str:
    """The place whose box holds a point.

    Raises:
        ValueError: none does, or several.
    """
    found = [
        name for name, (west, south, east, north) in known.items() if west <= lon <= east and south <= lat <= north
    ]
    if len(found) != 1:
        raise ValueError(f"{lon}, {lat} lies in {found or 'no place'}: places must be apart.")
    return found[0]


def without(areas: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The collection less one place."""
    kept = [feature for feature in areas["features"] if feature["properties"]["name"] != place]
    return {**areas, "features": kept}


def fold(place_N: NDArray[np.str_], west_N: NDArray[np.bool_], *, place: str, learns: str) -> Fold:
    """One place against the others.

    Args:
        place_N: of each sample.
        west_N: whether it lies in the western half of its place.
        place: that is asked about.
        learns: `UNSEEN`, all of the place is asked about; or `HALF`, its western half is learned from, too.
    """
    here_N, known_N = place_N == place, west_N & (learns == HALF)
    return Fold(train_N=~here_N | known_N, test_N=here_N & ~known_N)


def score(said_N: Tensor, wanted_N: Tensor) -> Score:
    """Accuracy and balanced accuracy; no class that does not occur counts."""
    found = [accuracy(said_N[wanted_N == one], wanted_N[wanted_N == one]) for one in wanted_N.unique()]
    return Score(accuracy=accuracy(said_N, wanted_N), balanced=sum(found) / len(found))


def always(learned_N: Tensor, wanted_N: Tensor) -> Score:
    """Of saying the most frequent class of the training samples each time."""
    return score(torch.full_like(wanted_N, int(learned_N.bincount().argmax())), wanted_N)


def resampled(values_PS: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """95 % of the mean: places are drawn with replacement, and for each drawn place its seeds.

    Few places have few means: with three, no interval is wider than from the lowest place to the highest.
    """
    draw = np.random.default_rng(seed)
    places, seeds = values_PS.shape
    place_RP = draw.integers(places, size=(RESAMPLES, places))
    seed_RPS = draw.integers(seeds, size=(RESAMPLES, places, seeds))
    means_R = values_PS[place_RP[:, :, None], seed_RPS].mean((1, 2))
    low, high = np.quantile(means_R, (0.025, 0.975))
    return float(low), float(high)
