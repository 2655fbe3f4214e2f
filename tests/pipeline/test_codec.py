"""Round trips through both codecs, and that damaged bytes are named as such."""

import io
from collections.abc import Callable
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pipeline import codec
from pipeline.codec import Codec, MemberSpec, decode, decode_array, encode, specs
from pipeline.errors import ContractError
from pipeline.sample import PairSample, Sample, StackSample, arrays

CODECS: tuple[Codec, ...] = ("b2", "npy")
SPEC = MemberSpec(name="s2", dtype="<u2", shape=(2, 8, 8))


def _assert_equal(one: Sample, other: Sample) -> None:
    assert (type(one), one.key, one.meta) == (type(other), other.key, other.meta)
    assert list(arrays(one)) == list(arrays(other))
    for name, array in arrays(one).items():
        again = arrays(other)[name]
        assert again.dtype == array.dtype
        assert again.flags.c_contiguous
        assert again.tobytes() == np.ascontiguousarray(array).tobytes()  # NaN included


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("label", [True, False])
def test_pairs_round_trip(name: Codec, label: bool, make_pair: Callable[..., PairSample]) -> None:
    pair = make_pair() if label else replace(make_pair(), label=None)
    members = encode(pair, name)
    want = [f"s2.{name}", f"s1.{name}", f"mask.{name}", *([f"label.{name}"] if label else []), "json"]
    assert list(members) == want
    _assert_equal(decode(pair.key, members, kind="pair", specs=specs(pair)), pair)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("s1", [True, False])
def test_stacks_round_trip(name: Codec, s1: bool, make_stack: Callable[..., StackSample]) -> None:
    stack = make_stack(s1=s1)
    _assert_equal(decode(stack.key, encode(stack, name), kind="stack", specs=specs(stack)), stack)


@pytest.mark.parametrize("name", CODECS)
def test_equal_samples_give_equal_bytes(name: Codec, make_pair: Callable[..., PairSample]) -> None:
    pair = make_pair()
    turned = replace(pair, s2=np.asfortranarray(pair.s2), mask=np.repeat(pair.mask, 2, axis=1)[:, ::2])
    assert not turned.s2.flags.c_contiguous
    assert encode(turned, name) == encode(make_pair(), name)
    assert encode(replace(pair, mask=pair.mask ^ 1), name) != encode(pair, name)


def test_standard_tools_read_the_members(make_pair: Callable[..., PairSample]) -> None:
    pair = make_pair()
    for name, data in encode(pair, "npy").items():
        if name != "json":
            assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), arrays(pair)[name.removesuffix(".npy")])
    raw = blosc2.decompress2(encode(pair, "b2")["s1.b2"])
    assert_array_equal(np.frombuffer(raw, "<f4").reshape(2, 16, 16), pair.s1)


def test_a_b2_member_is_one_chunk_with_one_block_a_band(make_pair: Callable[..., PairSample]) -> None:
    """The header that c-blosc2 documents: typesize at 3, sizes at 4 and 8, the filter pipeline at 16."""
    for name, itemsize in (("s2", 2), ("s1", 4), ("mask", 1)):
        data, array = encode(make_pair(), "b2")[f"{name}.b2"], arrays(make_pair())[name]
        assert data[3] == itemsize
        assert int.from_bytes(data[4:8], "little") == array.nbytes
        assert int.from_bytes(data[8:12], "little") == 16 * 16 * itemsize
        assert blosc2.Filter.BITSHUFFLE.value in data[16:22]


def test_b2_is_smaller_on_smooth_ground() -> None:
    smooth = np.add.outer(np.arange(120, dtype="<u2") * 8, np.arange(120, dtype="<u2") * 3)[None].repeat(12, 0)
    assert len(codec._encode_array(smooth, "b2")) < smooth.nbytes / 2


def test_a_broken_sample_is_not_written(make_pair: Callable[..., PairSample]) -> None:
    with pytest.raises(ContractError, match="a dot or a slash"):
        encode(make_pair("a.b"))


@pytest.mark.parametrize("missing", ["s2.b2", "mask.b2", "json"])
def test_a_missing_member_is_named(missing: str, make_pair: Callable[..., PairSample]) -> None:
    pair = make_pair()
    members = {name: data for name, data in encode(pair).items() if name != missing}
    with pytest.raises(ContractError, match=rf"{pair.key}.*{missing.partition('.')[0]}"):
        decode(pair.key, members, kind="pair", specs=specs(pair))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "other",
    [np.zeros((2, 8, 7), "<u2"), np.zeros((2, 8, 8), "<u4"), np.zeros((8, 8), "<u2"), np.zeros((3, 8, 8), "<u2")],
)
def test_another_size_is_refused(name: Codec, other: np.ndarray) -> None:
    with pytest.raises(ContractError, match="s2 of KEY"):
        decode_array(codec._encode_array(other, name), SPEC, codec=name, key="KEY")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_npy_must_be_of_the_dtype_and_never_a_pickle() -> None:
    for array in (np.zeros((2, 8, 8), ">u2"), np.zeros((2, 8, 8), "<i2"), np.full((2, 8, 8), None)):
        with pytest.raises(ContractError, match="s2 of KEY"):
            decode_array(_npy(array), SPEC, codec="npy", key="KEY")


_GOOD = {name: codec._encode_array(np.arange(128, dtype="<u2").reshape(2, 8, 8), name) for name in CODECS}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04" + b"0" * 60, b"\x93NUMPY\x01\x00", b"\x80\x04N.", bytes(64)])
def test_foreign_bytes_are_refused(name: Codec, data: bytes) -> None:
    with pytest.raises(ContractError, match="s2 of KEY does not decode"):
        decode_array(data, SPEC, codec=name, key="KEY")


def test_a_negative_size_in_the_header_is_refused() -> None:
    damaged = bytearray(_GOOD["b2"])
    damaged[7] = 0xAF  # the sign of the size
    with pytest.raises(ContractError, match="s2 of KEY does not decode"):
        decode_array(bytes(damaged), SPEC, codec="b2", key="KEY")


@settings(max_examples=150)
@given(st.sampled_from(CODECS), st.data())
def test_damage_ends_in_an_array_or_in_a_contract_error(name: Codec, data: st.DataObject) -> None:
    good = _GOOD[name]
    at = data.draw(st.integers(8 if name == "b2" else 0, len(good) - 1))
    damaged = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    cut = data.draw(st.sampled_from([len(good), at]))
    try:
        array = decode_array(damaged[:cut], SPEC, codec=name, key="KEY")
    except ContractError as error:
        assert "KEY" in str(error)  # noqa: PT017
    else:
        assert (array.dtype.str, array.shape) == (SPEC.dtype, SPEC.shape)


def test_others_run_while_one_decodes() -> None:
    """blosc2 holds the interpreter's lock unless it is told otherwise, for the whole process."""
    assert blosc2.set_releasegil(True)
