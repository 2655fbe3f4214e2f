"""Tar shards: the standard library reads them, equal samples are equal bytes, the index points at the right bytes."""

import io
import tarfile
from collections.abc import Callable

import pytest

from pipeline.codec import Codec, encode
from pipeline.index import check
from pipeline.sample import PairSample
from pipeline.shard import pack


@pytest.fixture(params=["b2", "npy"])
def samples(request: pytest.FixtureRequest, make_pair: Callable[..., PairSample]) -> list[tuple[str, dict[str, bytes]]]:
    codec: Codec = request.param
    return [(f"c{i}", encode(make_pair(f"c{i}", seed=i), codec)) for i in range(3)]


def test_standard_library_reads_what_was_packed(samples: list[tuple[str, dict[str, bytes]]]) -> None:
    data, _ = pack(samples)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    assert found == [(f"{key}.{name}", member) for key, members in samples for name, member in members.items()]


def test_headers_are_fixed_ustar(samples: list[tuple[str, dict[str, bytes]]]) -> None:
    data, places = pack(samples)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
            assert info.type == tarfile.REGTYPE
            assert not info.pax_headers
    for place in places:
        for ref in place.values():
            assert data[ref.offset - 512 + 257 : ref.offset - 512 + 263] == b"ustar\0"
    assert len(data) % tarfile.RECORDSIZE == 0


def test_places_are_where_the_bytes_are(samples: list[tuple[str, dict[str, bytes]]]) -> None:
    data, places = pack(samples)
    for (_, members), place in zip(samples, places, strict=True):
        assert list(place) == [name.partition(".")[0] for name in members]
        for name, member in members.items():
            ref = place[name.partition(".")[0]]
            assert data[ref.offset : ref.offset + ref.size] == member
            assert check(member, ref)


def test_equal_samples_are_equal_bytes(samples: list[tuple[str, dict[str, bytes]]]) -> None:
    assert pack(iter(samples)) == pack(list(samples))
    assert pack(samples[::-1])[0] != pack(samples)[0]


def test_no_samples_is_an_empty_tar() -> None:
    data, places = pack([])
    assert places == []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == []


def test_a_key_of_the_longest_length_fits() -> None:
    """ustar splits a name at slashes only, so it has 100 bytes: the longest key must leave room for suffixes."""
    longest = "32733-x0833960-y9999980-20230610t074621-1f0c9a2e"
    data, _ = pack([(longest, {"label.npy": b"x"})])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [f"{longest}.label.npy"]
