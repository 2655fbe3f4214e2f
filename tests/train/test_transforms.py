"""From stored pixels to a model's input: alignment, missing pixels, and draws that depend on the sample alone."""

import numpy as np
import pytest
import torch

from pipeline.errors import BandMismatch, UsageError
from pipeline.stats import measure
from train.stream.normalise import Constants, constants, normalise
from train.stream.transforms import Augment, Placement, check_size, crop, placements, turn

pytestmark = pytest.mark.train


FIXED = Augment()


def many(seed: int = 0, slack_px: int = 9, count: int = 4000, augment: Augment = FIXED) -> list[Placement]:
    return drawn(seed, np.zeros(count, np.int64), np.arange(count), slack_px=slack_px, augment=augment)


def drawn(
    seed: int, epochs: np.ndarray, ids: np.ndarray, *, slack_px: int = 9, augment: Augment = FIXED
) -> list[Placement]:
    return placements(seed, epochs, ids, chip_px=8 + slack_px, image_px=8, augment=augment)


def place(chip: np.ndarray, placement: Placement) -> np.ndarray:
    return turn(crop(chip, placement), placement)


def at(symmetry: int, side: int) -> Placement:
    return Placement(top=0, left=0, height=side, width=side, symmetry=symmetry)


def test_all_crops_and_symmetries_are_drawn_evenly() -> None:
    some = many()
    for name, choices in (("top", 10), ("left", 10), ("symmetry", 8)):
        counts = np.bincount([getattr(one, name) for one in some], minlength=choices)
        assert len(counts) == choices
        assert counts.min() > 0.7 * len(some) / choices
    assert {one.top for one in many(slack_px=0)} == {0}


def test_draws_are_pure() -> None:
    assert many()[5:7] == drawn(0, np.zeros(2, np.int64), np.array([5, 6]))
    assert many() != many(seed=1)
    assert many()[:50] != drawn(0, np.ones(50, np.int64), np.arange(50))


def test_the_eight_symmetries_are_the_dihedral_group() -> None:
    chip = np.arange(16).reshape(1, 4, 4)
    images = {place(chip, at(k, 4)).tobytes() for k in range(8)}
    turns = [np.rot90(x, k, axes=(1, 2)) for x in (chip, chip[:, :, ::-1]) for k in range(4)]
    assert images == {turn.tobytes() for turn in turns}
    assert len(images) == 8


def test_turns_are_numpys() -> None:
    image = np.arange(24).reshape(2, 3, 4)
    for symmetry in range(8):
        known = np.rot90(image, symmetry % 4, axes=(-2, -1))
        found = turn(image, at(symmetry, 4))
        np.testing.assert_array_equal(found, known[..., ::-1] if symmetry >= 4 else known)


def test_both_sensors_are_cut_alike() -> None:
    chip = np.random.default_rng(0).random((1, 12, 12))
    for placement in many(slack_px=4, count=20):
        s2, s1 = place(np.repeat(chip, 12, axis=0), placement), place(np.repeat(chip, 2, axis=0), placement)
        assert s2.shape == (12, 8, 8)
        assert (s2[0] == s1[1]).all()
        rows = slice(placement.top, placement.top + 8)
        assert sorted(s1[0].ravel()) == sorted(chip[0, rows, placement.left : placement.left + 8].ravel())


def test_two_sigma_and_missing_pixels() -> None:
    stretch = Constants(mean=(1000.0, 2000.0), std=(100.0, 500.0))
    dn = torch.tensor([[1000, 800, 1200, 5000, 0], [2000, 1000, 3000, 1, 0]], dtype=torch.uint16)[None, :, :, None]
    out = normalise(dn, stretch)
    assert out.dtype == torch.float32
    assert out[0, :, :, 0].tolist() == [[0.5, 0, 1, 1, 0.5], [0.5, 0, 1, 0, 0.5]]
    db = torch.tensor([[-10.0, float("nan")]])[None, :, :, None]
    assert normalise(db, Constants(mean=(-12.0,), std=(2.0,)))[0, 0, :, 0].tolist() == [0.75, 0.5]


def test_constants_follow_band_names() -> None:
    data = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 5.0)])
    stats = measure(("VV", "VH"), data, np.ones((2, 2), bool), bin_range=(0, 10))
    assert constants(stats, ("VH", "VV")).mean == (5.0, 1.0)
    with pytest.raises(BandMismatch):
        constants(stats, ("HH",))
    with pytest.raises(UsageError, match="no statistics"):
        constants(None, ("VV",))


def test_small_chips_are_refused() -> None:
    check_size(120, 120, FIXED)
    check_size(60, 120, Augment(area=(0.2, 1.0)))
    for chip_px, augment, wanted in ((96, FIXED, 120), (179, Augment(side_px=(60, 180)), 180)):
        with pytest.raises(UsageError, match=f"--chip-px {wanted}"):
            check_size(chip_px, 120, augment)


def test_square_crops_have_every_side() -> None:
    sides = np.array([(one.height, one.width) for one in many(slack_px=12, augment=Augment(side_px=(5, 20)))])
    assert (sides[:, 0] == sides[:, 1]).all()
    assert np.bincount(sides[:, 0], minlength=21)[5:].min() > 150
    assert sides.min() == 5


def test_resized_crops_have_the_asked_area_and_aspect() -> None:
    some = many(slack_px=192, augment=Augment(area=(0.2, 0.8)))
    area = np.array([one.height * one.width for one in some]) / 200**2
    aspect = np.array([one.width / one.height for one in some])
    assert 0.19 < area.min() < 0.22
    assert 0.78 < area.max() < 0.81
    assert 0.74 < aspect.min() < 0.76
    assert 1.32 < aspect.max() < 1.35
    assert abs(np.median(np.log(aspect))) < 0.02
    assert all(one.top + one.height <= 200 and one.left + one.width <= 200 for one in some)


def test_a_crop_that_never_fits_is_the_whole_chip() -> None:
    whole = many(slack_px=2, count=200, augment=Augment(area=(1.0, 1.0)))
    assert {(one.height, one.width) for one in whole} == {(10, 10)}


def test_symmetries_are_those_asked_for() -> None:
    assert {one.symmetry for one in many(augment=Augment(symmetries=1))} == {0}
    assert {one.symmetry for one in many(augment=Augment(symmetries=2))} == {0, 4}
    chip = np.arange(16).reshape(1, 4, 4)
    assert (place(chip, at(4, 4)) == chip[:, :, ::-1]).all()


@pytest.mark.parametrize("wrong", [{"side_px": (9, 5)}, {"area": (0.0, 1.0)}, {"side_px": (5, 9), "area": (0.5, 1.0)}])
def test_impossible_crops_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        Augment(**wrong)


def test_eight_bit_levels_are_truncated() -> None:
    stretch = Constants(mean=(1184.3824625,), std=(650.2842772,))
    dn = torch.tensor([1, 500, 1184, 2484, 3000, 0], dtype=torch.uint16).reshape(1, 1, 6)
    levels = (normalise(dn, stretch, scale="uint8") * 255).round().flatten().tolist()
    assert levels[:5] == [11, 60, 127, 254, 255]
    assert normalise(dn, stretch, scale="uint8")[0, 0, 5] == 0.5


def test_standardised_values() -> None:
    dn = torch.tensor([100, 300, 0], dtype=torch.uint16).reshape(1, 1, 3)
    assert normalise(dn, Constants(mean=(200.0,), std=(50.0,)), scale="standard").flatten().tolist() == [-2, 2, 0]
