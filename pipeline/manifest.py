"""The manifest: what a finished data set is. Published last: no manifest, no data set.

In: the shards, the index and the statistics that ingest made. Out: what train needs to read them, checked.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline import record
from pipeline.codec import Codec, Kind, MemberSpec
from pipeline.errors import ContractError, UsageError, VersionMismatch
from pipeline.index import INDEX_NAME, from_parquet
from pipeline.stats import BandStats
from pipeline.store import Store

FORMAT_VERSION = 2
"""Raised together with FORMAT.md."""
MANIFEST_NAME = "manifest.json"
STATS_NAME = "stats.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One tar of a finished data set."""

    path: str
    """Relative to the data set: `shards/train/u00000-0000.tar`."""
    split: str
    """`train` or `val`."""
    samples: int
    """Samples in the tar."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar, hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Statistics of the valid pixels of the `train` split; None where it is empty."""

    s2: BandStats | None
    """Digital numbers."""
    s1: BandStats | None
    """dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished data set."""

    format_version: int
    """Version of FORMAT.md."""
    kind: Kind
    """`pair` or `stack`."""
    codec: Codec
    """How array members are encoded."""
    members: tuple[MemberSpec, ...]
    """Array members of every sample; empty in a data set without samples."""
    s2_bands: tuple[str, ...]
    """Names along the band axis of `s2`."""
    s1_bands: tuple[str, ...]
    """Names along the band axis of `s1`."""
    chip_px: int
    """Pixels of 10 m. Side of a chip."""
    shards: tuple[ShardEntry, ...]
    """In index order."""
    counts: Mapping[str, int]
    """Chips by outcome: `accepted`, or the reason of rejection."""
    plan_fingerprint: str
    """Ties the data set to its plan."""
    index_sha256: str
    """Of `index.parquet`; a checkpoint keeps it to know its data again."""
    created_by: str
    """Package and version."""

    def samples(self, split: str) -> int:
        """How many samples `split` has."""
        return sum(shard.samples for shard in self.shards if shard.split == split)


def publish(store: Store, manifest: Manifest, index: bytes, *, stats: Stats) -> None:
    """Write index and statistics, then the manifest."""
    store.publish(INDEX_NAME, index)
    store.publish(STATS_NAME, record.dumps(stats))
    store.publish(MANIFEST_NAME, record.dumps(manifest))


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def load(store: Store) -> Manifest:
    """The manifest of the data set in `store`.

    Raises:
        UsageError: there is none.
        VersionMismatch: it was written by another format version.
        ContractError: it is damaged.
    """
    try:
        data = store.read(MANIFEST_NAME)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{store.url} has no {MANIFEST_NAME}, so it is not a finished data set. "
            "Give the OUT of a build that ended, or run that build again to finish it."
        ) from error
    _check_version(data, store.url)
    return record.loads(Manifest, data, where=MANIFEST_NAME)


def load_stats(store: Store) -> Stats:
    """The statistics beside the manifest."""
    return record.loads(Stats, _read_beside(store, STATS_NAME), where=STATS_NAME)


def load_index(store: Store, manifest: Manifest) -> pa.Table:
    """The sample index, checked against the manifest.

    Raises:
        ContractError: it is not the index that the manifest was written with.
    """
    data = _read_beside(store, INDEX_NAME)
    if sha256(data) != manifest.index_sha256:
        raise ContractError(f"{store.url}/{INDEX_NAME} is not the one of {MANIFEST_NAME}. Copy or ingest it again.")
    return from_parquet(data, where=INDEX_NAME)


def _read_beside(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except FileNotFoundError as error:
        raise ContractError(
            f"{store.url} has a {MANIFEST_NAME} but no {name}. Copy the data set whole, or build it again."
        ) from error


def _check_version(data: bytes, url: str) -> None:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise ContractError(f"{url}/{MANIFEST_NAME} is not JSON: {error}. The file is damaged.") from error
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != FORMAT_VERSION:
        by = fields.get("created_by", "something unknown") if isinstance(fields, dict) else "something unknown"
        raise VersionMismatch(
            f"{url} is of format version {version!r}, written by {by}; this reader knows {FORMAT_VERSION}. "
            "Use the release that wrote it, or ingest again."
        )
