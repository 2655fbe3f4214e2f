"""From stored pixels to a model's input: alignment, missing pixels, and draws that depend on the sample alone."""

import numpy as np
import pytest
import torch

from pipeline.errors import BandMismatch, UsageError
from pipeline.stats import measure
from train.stream.transforms import (
    MISSING,
    Constants,
    Placement,
    check_size,
    constants,
    normalise,
    place,
    placements,
)

pytestmark = pytest.mark.train


def many(seed: int = 0, slack_px: int = 9, count: int = 4000) -> list[Placement]:
    return placements(seed, np.zeros(count, np.int64), np.arange(count), slack_px=slack_px)


def test_all_crops_and_symmetries_are_drawn_evenly() -> None:
    drawn = many()
    for name, choices in (("top", 10), ("left", 10), ("symmetry", 8)):
        counts = np.bincount([getattr(one, name) for one in drawn], minlength=choices)
        assert len(counts) == choices
        assert counts.min() > 0.7 * len(drawn) / choices
    assert {one.top for one in many(slack_px=0)} == {0}


def test_draws_are_pure() -> None:
    assert many()[5:7] == placements(0, np.zeros(2, np.int64), np.array([5, 6]), slack_px=9)
    assert many() != many(seed=1)
    assert many()[:50] != placements(0, np.ones(50, np.int64), np.arange(50), slack_px=9)


def test_the_eight_symmetries_are_the_dihedral_group() -> None:
    chip = np.arange(16).reshape(1, 4, 4)
    images = {place(chip, Placement(top=0, left=0, symmetry=k), 4).tobytes() for k in range(8)}
    turns = [np.rot90(x, k, axes=(1, 2)) for x in (chip, chip[:, :, ::-1]) for k in range(4)]
    assert images == {turn.tobytes() for turn in turns}
    assert len(images) == 8


def test_both_sensors_are_cut_alike() -> None:
    chip = np.random.default_rng(0).random((1, 12, 12))
    for placement in many(slack_px=4, count=20):
        s2, s1 = place(np.repeat(chip, 12, axis=0), placement, 8), place(np.repeat(chip, 2, axis=0), placement, 8)
        assert s2.shape == (12, 8, 8)
        assert (s2[0] == s1[1]).all()
        rows = slice(placement.top, placement.top + 8)
        assert sorted(s1[0].ravel()) == sorted(chip[0, rows, placement.left : placement.left + 8].ravel())


def test_two_sigma_and_missing_pixels() -> None:
    stretch = Constants(mean=(1000.0, 2000.0), std=(100.0, 500.0))
    dn = torch.tensor([[1000, 800, 1200, 5000, 0], [2000, 1000, 3000, 1, 0]], dtype=torch.uint16)[None, :, :, None]
    out = normalise(dn, stretch)
    assert out.dtype == torch.float32
    assert out[0, :, :, 0].tolist() == [[0.5, 0, 1, 1, MISSING], [0.5, 0, 1, 0, MISSING]]
    db = torch.tensor([[-10.0, float("nan")]])[None, :, :, None]
    assert normalise(db, Constants(mean=(-12.0,), std=(2.0,)))[0, 0, :, 0].tolist() == [0.75, MISSING]


def test_constants_follow_band_names() -> None:
    data = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 5.0)])
    stats = measure(("VV", "VH"), data, np.ones((2, 2), bool), bin_range=(0, 10))
    assert constants(stats, ("VH", "VV")).mean == (5.0, 1.0)
    with pytest.raises(BandMismatch):
        constants(stats, ("HH",))
    with pytest.raises(UsageError, match="no statistics"):
        constants(None, ("VV",))


def test_small_chips_are_refused() -> None:
    check_size(120, 120)
    with pytest.raises(UsageError, match="--chip-px 120"):
        check_size(96, 120)
