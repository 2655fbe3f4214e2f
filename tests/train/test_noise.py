"""Noise without a generator: equal to plain integer arithmetic, and uniform."""

import hashlib

import pytest
import torch

from train.stream.noise import hash64, uniform

pytestmark = pytest.mark.train
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def plain(seed: int, epoch: int, sample: int, *, purpose: str, number: int) -> float:
    start = int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest(), "little")
    state = mix((mix((epoch * GOLDEN + start) & MASK) + sample * GOLDEN) & MASK)
    return (mix((state + (number + 1) * GOLDEN) & MASK) >> 40) / 2**24


def test_equals_plain_integers() -> None:
    epochs, samples = torch.tensor([0, 0, 3, 10**6]), torch.tensor([0, 7, 123_456_789, 2**40])
    out = uniform(5, epochs, samples, purpose="crop", count=4)
    wanted = [
        [plain(5, e, s, purpose="crop", number=n) for n in range(4)]
        for e, s in zip(epochs.tolist(), samples.tolist(), strict=True)
    ]
    assert out.dtype == torch.float32
    assert out.tolist() == wanted


def test_depends_on_the_sample_alone() -> None:
    epochs, samples = torch.zeros(6, dtype=torch.int64), torch.arange(6)
    whole = uniform(0, epochs, samples, purpose="mask", count=9)
    assert torch.equal(uniform(0, epochs[2:4], samples[2:4], purpose="mask", count=9), whole[2:4])
    assert torch.equal(uniform(0, epochs, samples.flip(0), purpose="mask", count=9), whole.flip(0))
    assert torch.equal(uniform(0, epochs, samples, purpose="mask", count=4), whole[:, :4])


def test_seed_purpose_epoch_and_sample_all_matter() -> None:
    def one(seed: int = 0, epoch: int = 0, sample: int = 0, purpose: str = "a") -> float:
        return uniform(seed, torch.tensor([epoch]), torch.tensor([sample]), purpose=purpose, count=1).item()

    assert len({one(), one(seed=1), one(epoch=1), one(sample=1), one(purpose="b"), one(epoch=1, sample=1)}) == 6


def test_is_uniform_and_uncorrelated() -> None:
    out = uniform(1, torch.arange(2000) // 500, torch.arange(2000) % 500, purpose="x", count=50).double()
    assert out.min() >= 0
    assert out.max() < 1
    counts = torch.histc(out, bins=20, min=0, max=1)
    assert ((counts - 5000).abs() < 5 * 5000**0.5).all()
    assert torch.corrcoef(out.T).fill_diagonal_(0).abs().max() < 0.12
    assert torch.corrcoef(out[:100]).fill_diagonal_(0).abs().max() < 0.7


def test_hashes_of_a_large_grid_do_not_collide() -> None:
    epochs, samples = torch.meshgrid(torch.arange(100), torch.arange(2000), indexing="ij")
    assert len(hash64(0, epochs.flatten(), samples.flatten(), purpose="batch").unique()) == 200_000
