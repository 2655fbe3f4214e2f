"""The samples of a finished data set, read one at a time from their places in the index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import manifest, record
from pipeline.codec import decode, suffix
from pipeline.errors import CorruptShard
from pipeline.index import MemberRef, check
from pipeline.manifest import Manifest
from pipeline.sample import Sample, SampleMeta
from pipeline.store import Store

Row = Mapping[str, Any]
"""A row of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A finished data set, opened."""

    store: Store
    """Where it lies."""
    manifest: Manifest
    """What it is."""
    index: pa.Table
    """Its samples, in shard order."""

    def rows(self) -> Iterator[Row]:
        """The rows of the index, converted a few at a time."""
        for batch in self.index.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def read(self, row: Row) -> Sample:
        """One sample: one request, checked and decoded.

        Raises:
            CorruptShard: its bytes are not those that the index promised.
        """
        names = [*(spec.name for spec in self.manifest.members), "json"]
        places = {name: place(row, name) for name in names}
        first = min(ref.offset for ref in places.values())
        data = self.store.read_range(row["shard"], first, max(ref.offset + ref.size for ref in places.values()))
        members = {name: data[ref.offset - first : ref.offset - first + ref.size] for name, ref in places.items()}
        for name, ref in places.items():
            _check(members[name], ref, name, row)
        named = {tar_name(name, self.manifest): member for name, member in members.items()}
        return decode(row["key"], named, kind=self.manifest.kind, specs=self.manifest.members)

    def read_meta(self, row: Row) -> SampleMeta:
        """The json of one sample.

        Raises:
            CorruptShard: its bytes are not those that the index promised.
        """
        ref = place(row, "json")
        data = self.store.read_range(row["shard"], ref.offset, ref.offset + ref.size)
        _check(data, ref, "json", row)
        return record.loads(SampleMeta, data, where=f"{row['key']}.json")


def open_set(store: Store) -> DataSet:
    """The finished data set in `store`.

    Raises:
        UsageError: there is none.
        ContractError: its manifest or index is damaged.
    """
    known = manifest.load(store)
    return DataSet(store=store, manifest=known, index=manifest.load_index(store, known))


def place(row: Row, name: str) -> MemberRef:
    """Where member `name` of a sample lies in its shard."""
    return MemberRef(offset=row[f"{name}_offset"], size=row[f"{name}_size"], crc32c=row[f"{name}_crc32c"])


def tar_name(name: str, known: Manifest) -> str:
    """What follows the key's dot in the tar."""
    return name if name == "json" else suffix(name, known.codec)


def _check(data: bytes, ref: MemberRef, name: str, row: Row) -> None:
    if not check(data, ref):
        raise CorruptShard(
            f"{name} of {row['key']} in {row['shard']} (byte {ref.offset}) is not what the index promised. "
            "Run `ingest verify`: it says what else is damaged, and what to do."
        )
