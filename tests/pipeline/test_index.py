"""The sample index: round trip, its checksums, and damage."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from pipeline import index
from pipeline.errors import ContractError
from pipeline.index import IndexRow, MemberRef, check, crc32c

COLUMNS = ["shard", "key", "split", "group", "lon", "lat", "time", "gap_hours", "cloud", "shift_dy", "shift_dx"]


def _row(key: str = "k", **changes: Any) -> IndexRow:
    fields: dict[str, Any] = {
        "shard": "shards/train/u00000-0000.tar",
        "key": key,
        "split": "train",
        "group": "b1-c2",
        "lon": 15.123456789012345,
        "lat": -1.25,
        "time": datetime(2023, 6, 10, 7, 46, 21, 24000, tzinfo=UTC),
        "gap_hours": 8.3,
        "cloud": None,
        "shift": None,
        "members": {
            "s2": MemberRef(offset=512, size=7, crc32c=2**32 - 1),
            "json": MemberRef(offset=2**40, size=1, crc32c=0),
        },
    }
    return IndexRow(**{**fields, **changes})


def _rows() -> Sequence[IndexRow]:
    return [_row("a"), _row("b", gap_hours=None, cloud=0.25, shift=(0.0, -1.5), split="val")]


def test_round_trip() -> None:
    rows = _rows()
    table = index.from_parquet(index.to_parquet(rows), where="index")
    assert table.column_names == COLUMNS + [f"{m}_{p}" for m in ("s2", "json") for p in ("offset", "size", "crc32c")]
    for found, row in zip(table.to_pylist(), rows, strict=True):
        for name in ("shard", "key", "split", "group", "lon", "lat", "time", "gap_hours", "cloud"):
            assert found[name] == getattr(row, name)
        assert (found["shift_dy"], found["shift_dx"]) == (row.shift or (None, None))
        for name, ref in row.members.items():
            assert (found[f"{name}_offset"], found[f"{name}_size"]) == (ref.offset, ref.size)
            assert found[f"{name}_crc32c"] == ref.crc32c


def test_equal_rows_give_equal_bytes() -> None:
    assert index.to_parquet(_rows()) == index.to_parquet(_rows())
    assert index.to_parquet(_rows()) != index.to_parquet(_rows()[::-1])


def test_no_rows() -> None:
    assert index.from_parquet(index.to_parquet([]), where="index").num_rows == 0


def test_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C (Castagnoli)
    ref = MemberRef(offset=0, size=9, crc32c=0xE3069283)
    assert check(b"123456789", ref)
    assert not check(b"123456780", ref)
    assert not check(b"12345678", ref)


@pytest.mark.parametrize("cut", [0, 1, 4, 100, -1, -4])
def test_damaged_bytes_are_refused(cut: int) -> None:
    with pytest.raises(ContractError, match=r"index\.parquet"):
        index.from_parquet(index.to_parquet(_rows())[:cut], where="index.parquet")


def test_a_missing_column_is_named() -> None:
    table = pa.table({"key": ["a"]})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink)
    with pytest.raises(ContractError, match=r"no columns .*'shard'"):
        index.from_parquet(sink.getvalue().to_pybytes(), where="index.parquet")
