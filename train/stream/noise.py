"""Uniform noise without a generator: a hash of (seed, purpose, epoch, sample, number).

What is drawn for a sample depends on nothing else: not on the rank, the batch, the device or what was drawn before. So
there is no generator state to save, and a resumed run draws what an undisturbed one draws.

Source: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators": the SplitMix64 finaliser. torch has
no unsigned 64-bit arithmetic on all devices: int64 multiplication wraps, and a logical shift is an arithmetic one with
its sign bits masked off.

Axes: B batch, N numbers.
"""

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_FLOAT_BITS = 24


def uniform(seed: int, epochs_B: Tensor, sample_ids_B: Tensor, *, purpose: str, count: int) -> Tensor:
    """`count` numbers for each sample.

    Args:
        seed: of the run.
        epochs_B: int64, the epoch in which each sample is read.
        sample_ids_B: int64.
        purpose: what the numbers are for; different purposes are independent.
        count: N.

    Returns:
        (B, N) float32 in [0, 1), multiples of 2^-24, on the device of `sample_ids_B`.
    """
    state_B = hash64(seed, epochs_B, sample_ids_B, purpose=purpose)
    numbers_N = torch.arange(1, count + 1, device=sample_ids_B.device)
    bits_BN = _shift(_mix(state_B[:, None] + numbers_N * _GOLDEN), 64 - _FLOAT_BITS)
    return bits_BN.to(torch.float32) * 2.0**-_FLOAT_BITS


def hash64(seed: int, epochs_B: Tensor, sample_ids_B: Tensor, *, purpose: str) -> Tensor:
    """64 random bits for each sample, (B,) int64."""
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()
    start = int.from_bytes(digest, "little", signed=True)
    return _mix(_mix(epochs_B * _GOLDEN + start) + sample_ids_B * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
