"""Masks against a plain loop, and what every mask must hold."""

import pytest
import torch

from pipeline.errors import UsageError
from train.models.masking import kept_count, mask_from_noise, take_patches

pytestmark = pytest.mark.train


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 56), (0.6, 90), (0.5, 112), (0.8, 44), (0.9, 22)])
def test_kept_counts_of_the_note(ratio: float, kept: int) -> None:
    assert kept_count(225, ratio) == kept


@pytest.mark.parametrize(("patches", "ratio"), [(225, 0.0), (225, 1.0), (4, 0.8), (225, -0.5)])
def test_all_or_nothing_is_a_usage_error(patches: int, ratio: float) -> None:
    with pytest.raises(UsageError, match=f"of {patches} patches"):
        kept_count(patches, ratio)


def test_mask_is_a_plain_loop() -> None:
    noise = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))
    mask = mask_from_noise(noise, ratio=0.5)
    for sample in range(5):
        order = sorted(range(12), key=noise[sample].tolist().__getitem__)
        assert mask.keep_ids_BK[sample].tolist() == order[:6]
        assert mask.restore_ids_BL[sample].tolist() == [order.index(patch) for patch in range(12)]
        assert mask.removed_BL[sample].tolist() == [patch in order[6:] for patch in range(12)]


def test_a_sample_is_masked_alike_in_every_batch() -> None:
    noise = torch.rand(6, 30, generator=torch.Generator().manual_seed(1))
    whole, part = mask_from_noise(noise, ratio=0.7), mask_from_noise(noise[4:5], ratio=0.7)
    assert torch.equal(whole.keep_ids_BK[4:5], part.keep_ids_BK)
    assert torch.equal(whole.removed_BL[4:5], part.removed_BL)


def test_equal_noise_keeps_the_first_patches() -> None:
    assert mask_from_noise(torch.zeros(1, 8), ratio=0.5).keep_ids_BK.tolist() == [[0, 1, 2, 3]]


def test_taken_patches_come_in_the_order_of_their_numbers() -> None:
    values = torch.arange(24.0).view(2, 4, 3)
    ids = torch.tensor([[3, 0], [1, 2]])
    expected = torch.stack([values[sample][ids[sample]] for sample in range(2)])
    assert torch.equal(take_patches(values, ids), expected)
