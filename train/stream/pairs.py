"""The pairs of one split: where their bytes lie, one ranged read per sample, checked and decoded.

In: a finished data set. Out: `(s1, s2)` as stored, bands chosen by name. Knows no order, no thread and no tensor; its
methods may be called from many threads.

Why not webdataset, whose format this is: it reads tars from end to end and cannot go to a sample, which an exact resume
needs. Axes: N samples of the split, C bands, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import index, manifest
from pipeline.bands import positions
from pipeline.codec import Codec, MemberSpec, decode_array
from pipeline.errors import ContractError, CorruptShard, UsageError
from pipeline.index import MemberRef
from pipeline.manifest import Manifest, Stats
from pipeline.store import Store

SENSORS = ("s1", "s2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One sensor of all samples."""

    spec: MemberSpec
    """How it is stored."""
    bands: tuple[int, ...]
    """Which of the stored bands are wanted, in order."""
    offset_N: NDArray[np.int64]
    """Bytes from the start of the tar."""
    size_N: NDArray[np.int64]
    """Bytes."""
    crc32c_N: NDArray[np.uint32]
    """Checksums."""

    def ref(self, sample_id: int) -> MemberRef:
        """Where one sample's bytes lie."""
        place = self.offset_N[sample_id], self.size_N[sample_id], self.crc32c_N[sample_id]
        return MemberRef(offset=int(place[0]), size=int(place[1]), crc32c=int(place[2]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The samples of a split; a sample id is a row number among the split's rows of the index."""

    store: Store
    """The data set."""
    codec: Codec
    """Of array members."""
    index_sha256: str
    """What a checkpoint knows the data by."""
    chip_px: int
    """Pixels. Side of a chip."""
    stats: Stats
    """Of the train split."""
    shards: tuple[str, ...]
    """Names of the tars, in index order."""
    shard_sizes: tuple[int, ...]
    """Samples of each."""
    shard_N: NDArray[np.int32]
    """Number of each sample's shard."""
    keys: pa.StringArray
    """Sample keys."""
    members: Mapping[str, Member]
    """`s1` and `s2`."""

    @property
    def samples(self) -> int:
        """N."""
        return len(self.keys)

    def key(self, sample_id: int) -> str:
        """Key of a sample."""
        key: str = self.keys[sample_id].as_py()
        return key

    def read(self, sample_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Read, check and decode one pair.

        Returns:
            s1 (C, H, W) float32 dB and s2 (C, H, W) uint16, as stored.

        Raises:
            CorruptShard: the bytes are not those of the index, twice.
            SourceError: the store kept failing.
        """
        refs = {name: self.members[name].ref(sample_id) for name in SENSORS}
        # A read that was damaged on its way is good the second time; damage in the store is not.
        data = self._fetch(sample_id, refs) or self._fetch(sample_id, refs)
        if data is None:
            start = min(ref.offset for ref in refs.values())
            raise CorruptShard(
                f"{self.key(sample_id)} at byte {start} of {self.store.url}/{self._shard(sample_id)} is missing or "
                "not what the index promises. Copy that shard again, or remove its unit's receipt and build again."
            )
        s1, s2 = (self._decode(name, data[name], sample_id) for name in SENSORS)
        return s1, s2

    def _shard(self, sample_id: int) -> str:
        return self.shards[int(self.shard_N[sample_id])]

    def _fetch(self, sample_id: int, refs: Mapping[str, MemberRef]) -> dict[str, bytes] | None:
        """The members' bytes; None where they are not what the index promises."""
        start = min(ref.offset for ref in refs.values())
        stop = max(ref.offset + ref.size for ref in refs.values())
        try:
            data = self.store.read_range(self._shard(sample_id), start, stop)
        except FileNotFoundError:
            return None
        parts = {name: data[ref.offset - start : ref.offset - start + ref.size] for name, ref in refs.items()}
        return parts if all(index.check(parts[name], ref) for name, ref in refs.items()) else None

    def _decode(self, name: str, data: bytes, sample_id: int) -> NDArray[Any]:
        member = self.members[name]
        array = decode_array(data, member.spec, codec=self.codec, key=self.key(sample_id))
        return array[list(member.bands)]


def open_pairs(store: Store, split: str, *, s1_bands: tuple[str, ...], s2_bands: tuple[str, ...]) -> Pairs:
    """The pairs of `split` in the finished data set at `store`.

    Raises:
        UsageError: it is not finished, holds no pairs, or the split is empty.
        BandMismatch: a wanted band is not stored.
        ContractError: manifest and index disagree.
    """
    known = manifest.load(store)
    if known.kind != "pair" or not known.samples(split):
        raise UsageError(
            f"{store.url} is a {known.kind} data set with {known.samples(split)} samples in {split!r}: pairs are "
            "wanted, and at least one. Give another data set, or ingest a larger area."
        )
    bands = {"s1": positions(known.s1_bands, s1_bands), "s2": positions(known.s2_bands, s2_bands)}
    table = manifest.load_index(store, known)
    rows = table.filter(pc.equal(table["split"], split))
    shards, shard_N = _shards(known, rows, split)
    return Pairs(
        store=store,
        codec=known.codec,
        index_sha256=known.index_sha256,
        chip_px=known.chip_px,
        stats=manifest.load_stats(store),
        shards=shards,
        shard_sizes=tuple(np.bincount(shard_N, minlength=len(shards)).tolist()),
        shard_N=shard_N,
        keys=rows["key"].combine_chunks(),
        members={name: _member(known, rows, name, bands=bands[name]) for name in SENSORS},
    )


def _shards(known: Manifest, rows: pa.Table, split: str) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    entries = [entry for entry in known.shards if entry.split == split and entry.samples]
    numbers = np.repeat(np.arange(len(entries), dtype=np.int32), [entry.samples for entry in entries])
    names = pa.array([entry.path for entry in entries])
    if len(numbers) != rows.num_rows or not names.take(numbers).equals(rows["shard"].combine_chunks()):
        raise ContractError(
            f"the index has {rows.num_rows} samples of {split!r} and the manifest {len(numbers)}, or in another order. "
            "The data set is damaged: ingest again."
        )
    return tuple(names.to_pylist()), numbers


def _member(known: Manifest, rows: pa.Table, name: str, *, bands: tuple[int, ...]) -> Member:
    spec = next((spec for spec in known.members if spec.name == name), None)
    if spec is None or f"{name}_offset" not in rows.column_names:
        raise ContractError(f"the data set has no member {name}. It was written by something else: ingest again.")
    offset, size, crc = (rows[f"{name}_{part}"].to_numpy() for part in ("offset", "size", "crc32c"))
    return Member(spec=spec, bands=bands, offset_N=offset, size_N=size, crc32c_N=crc)
