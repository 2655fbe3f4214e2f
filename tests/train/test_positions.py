"""Positions against plain loops, and against the numbers that the CROMA note gives."""

import math

import pytest
import torch

from pipeline.errors import UsageError
from train.models.positions import alibi_bias, alibi_slopes, grid_yx, patch_yx, sincos_table

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (3, [2**-4, 2**-8, 2**-2]),
        (4, [0.25, 0.0625, 0.015625, 0.00390625]),
        (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]),
        (12, [2.0**-k for k in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
        (16, [2 ** (-k / 2) for k in range(1, 17)]),
    ],
)
def test_slopes(heads: int, slopes: list[float]) -> None:
    torch.testing.assert_close(alibi_slopes(heads), torch.tensor(slopes), rtol=0, atol=0)


@pytest.mark.parametrize("heads", range(1, 34))
def test_any_number_of_heads_has_its_own_slopes(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert slopes.shape == (heads,)
    assert slopes.unique().numel() == heads
    assert ((slopes > 0) & (slopes < 1)).all()


def test_no_heads_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="heads is 0"):
        alibi_slopes(0)


@pytest.mark.parametrize(("rows", "cols"), [(2, 2), (3, 5), (5, 3), (1, 7)])
def test_bias_of_a_grid_is_a_plain_loop(rows: int, cols: int) -> None:
    slopes = alibi_slopes(6)
    bias = alibi_bias(grid_yx(rows, cols), grid_yx(rows, cols), slopes)
    assert bias.shape == (6, rows * cols, rows * cols)
    for head, slope in enumerate(slopes):
        for a in range(rows * cols):
            for b in range(rows * cols):
                distance = math.sqrt((a // cols - b // cols) ** 2 + (a % cols - b % cols) ** 2)
                assert bias[head, a, b] == -slope * torch.tensor(distance)


def test_bias_of_kept_patches_is_the_table_at_their_numbers() -> None:
    slopes, cols = alibi_slopes(4), 5
    query_ids, key_ids = torch.tensor([[3, 14, 0], [7, 7, 19]]), torch.tensor([[1, 19], [8, 2]])
    table = alibi_bias(grid_yx(4, cols), grid_yx(4, cols), slopes)
    bias = alibi_bias(patch_yx(query_ids, cols), patch_yx(key_ids, cols), slopes)
    assert bias.shape == (2, 4, 3, 2)
    for sample in range(2):
        assert torch.equal(bias[sample], table[:, query_ids[sample]][:, :, key_ids[sample]])


def test_the_base_models_table() -> None:
    bias = alibi_bias(grid_yx(15, 15), grid_yx(15, 15), alibi_slopes(16))
    assert bias.min() == bias[0, 0, 224] == -14.0
    assert bias[3, 112, 0].item() == pytest.approx(-2.47487378)
    assert bias.double().sum().item() == pytest.approx(-950015.7669, abs=1e-3)
    assert torch.equal(bias, bias.transpose(1, 2))
    assert (bias.diagonal(dim1=1, dim2=2) == 0).all()


def test_a_larger_image_only_adds_distances() -> None:
    slopes = alibi_slopes(4)
    small, large = (alibi_bias(grid_yx(n, n), grid_yx(n, n), slopes) for n in (3, 5))
    corner = [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert torch.equal(small, large[:, corner][:, :, corner])


@pytest.mark.parametrize(("rows", "cols", "width"), [(3, 3, 8), (2, 5, 32), (15, 15, 64)])
def test_sincos_is_a_plain_loop(rows: int, cols: int, width: int) -> None:
    table, quarter = sincos_table(rows, cols, width=width), width // 4
    assert table.dtype == torch.float32
    for patch in range(rows * cols):
        for k in range(quarter):
            wave = 10_000 ** (-k / quarter)
            row, col = (patch // cols) * wave, (patch % cols) * wave
            expected = [math.sin(col), math.cos(col), math.sin(row), math.cos(row)]
            assert table[patch, k::quarter].tolist() == pytest.approx(expected, abs=1e-7)


def test_sincos_needs_quarters() -> None:
    with pytest.raises(UsageError, match="divisible by 4 but it is 30"):
        sincos_table(2, 2, width=30)
