"""The sample index: one row per sample, with the place of each member's bytes in its shard.

In: `IndexRow`s, in shard order. Out: `index.parquet`. A reader needs no tar parsing: it reads byte ranges and checks
them. Columns: shard, key, split, group, lon, lat, time, gap_hours, cloud, shift_dy, shift_dx, and for every member M
its M_offset, M_size and M_crc32c.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ContractError

INDEX_NAME = "index.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRef:
    """Where one member's bytes lie in a shard."""

    offset: int
    """Bytes from the start of the tar to the member's data."""
    size: int
    """Bytes of data."""
    crc32c: int
    """Checksum of the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """One sample of a finished data set."""

    shard: str
    """Name of the tar, relative to the data set."""
    key: str
    """Sample key."""
    split: str
    """`train` or `val`."""
    group: str
    """Block of ground; all samples of one group are in the same split."""
    lon: float
    """Degrees, EPSG:4326. Centre of the cell; NaN where foreign shards do not say."""
    lat: float
    """Degrees, EPSG:4326. Centre of the cell; NaN where foreign shards do not say."""
    time: datetime | None
    """UTC. Acquisition of the (first) S2 scene; None where foreign shards do not say."""
    gap_hours: float | None
    """Hours between the S2 and the S1 acquisition."""
    cloud: float | None
    """Share of cloudy pixels; None where nothing is known."""
    shift: tuple[float, float] | None
    """Pixels. Estimated S1-S2 shift (dy, dx)."""
    members: Mapping[str, MemberRef]
    """By member name without codec: `s2`, `s1`, `mask`, `label`, `json`."""


def crc32c(data: bytes) -> int:
    """Checksum of `data`, as in a `MemberRef`."""
    return int(google_crc32c.value(data))


def check(data: bytes, ref: MemberRef) -> bool:
    """Whether `data` is what the index promised."""
    return len(data) == ref.size and crc32c(data) == ref.crc32c


def to_parquet(rows: Sequence[IndexRow]) -> bytes:
    """`index.parquet` of `rows`; equal rows give equal bytes."""
    members = list(rows[0].members) if rows else []
    columns = {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in _COLUMNS.items()}
    columns["shift_dy"] = pa.array([row.shift and row.shift[0] for row in rows], pa.float32())
    columns["shift_dx"] = pa.array([row.shift and row.shift[1] for row in rows], pa.float32())
    for member in members:
        for part, kind in _MEMBER_COLUMNS.items():
            columns[f"{member}_{part}"] = pa.array([getattr(row.members[member], part) for row in rows], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes, *, where: str) -> pa.Table:
    """The table in `data`.

    Raises:
        ContractError: not Parquet, or a column of FORMAT.md is missing.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"{where} is not Parquet: {error}. The file is damaged: ingest again.") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ContractError(f"{where} has no columns {missing}. It was written by something else: ingest again.")
    return table


_COLUMNS = {
    "shard": pa.string(),
    "key": pa.string(),
    "split": pa.string(),
    "group": pa.string(),
    "lon": pa.float64(),
    "lat": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "gap_hours": pa.float64(),
    "cloud": pa.float32(),
}
_MEMBER_COLUMNS = {"offset": pa.int64(), "size": pa.int64(), "crc32c": pa.uint32()}
