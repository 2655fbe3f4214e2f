"""What `validate` lets through, and what it must not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ContractError
from pipeline.sample import AXES, DTYPES, MaskBit, PairSample, StackSample, arrays, validate


def test_mask_bits_are_the_formats() -> None:
    assert {bit.name: int(bit) for bit in MaskBit} == {
        "S2_NODATA": 1,
        "S1_NODATA": 2,
        "CLOUD": 4,
        "SHADOW": 8,
        "SNOW": 16,
    }


def test_members_stand_in_shard_order(make_pair: Callable[..., PairSample], make_stack: Any) -> None:
    pair = make_pair()
    assert list(arrays(pair)) == ["s2", "s1", "mask", "label"]
    assert list(arrays(replace(pair, label=None))) == ["s2", "s1", "mask"]
    assert list(arrays(make_stack(s1=False))) == ["s2", "mask"]


def test_every_member_has_axes_and_a_little_endian_dtype() -> None:
    for kind in (PairSample, StackSample):
        assert set(AXES[kind]) == set(DTYPES)
    assert all(np.dtype(dtype).str == dtype for dtype in DTYPES.values())


def test_good_samples_pass(make_pair: Callable[..., PairSample], make_stack: Callable[..., StackSample]) -> None:
    validate(make_pair())
    validate(make_stack())
    validate(make_stack(s1=False))


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "ü", "a" * 101, "a\n"])
def test_a_key_that_breaks_a_shard_is_refused(key: str, make_pair: Callable[..., PairSample]) -> None:
    with pytest.raises(ContractError, match="a dot or a slash breaks a shard"):
        validate(make_pair(key))


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("s2", lambda a: a.astype(">u2"), "<u2"),
        ("s2", lambda a: a.astype("<i2"), "<u2"),
        ("s2", lambda a: a[0], "but is"),
        ("s2", lambda a: a[None], "but is"),
        ("s1", lambda a: a.astype("<f8"), "<f4"),
        ("s1", lambda a: a[:, 1:], "other members have"),
        ("mask", lambda a: a.astype(bool), r"\|u1"),
        ("mask", lambda a: a[:, 1:], "along x"),
        ("label", lambda a: a[1:], "along y"),
    ],
)
def test_a_member_that_does_not_fit_is_named(
    name: str, change: Any, match: str, make_pair: Callable[..., PairSample]
) -> None:
    pair = make_pair()
    with pytest.raises(ContractError, match=f"^{name} of {pair.key}.*{match}"):
        validate(replace(pair, **{name: change(getattr(pair, name))}))


@pytest.mark.parametrize("name", ["s1", "mask"])
def test_all_members_of_a_stack_have_its_frames(name: str, make_stack: Callable[..., StackSample]) -> None:
    stack = make_stack()
    with pytest.raises(ContractError, match=f"{name} of .* 2 along time"):
        validate(replace(stack, **{name: getattr(stack, name)[:2]}))
