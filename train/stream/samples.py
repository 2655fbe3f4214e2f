"""The samples of one split: where their bytes lie, one ranged read per sample, checked and decoded.

In: a finished data set of pairs or stacks. Out: chips as stored, bands chosen by name. Knows no order, no thread and no
tensor; its methods may be called from many threads.

Why not webdataset, whose format this is: it reads tars from end to end and cannot go to a sample, which an exact resume
needs. Axes: N samples of the split, T frames, C bands, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import manifest, record
from pipeline.bands import positions
from pipeline.codec import Kind, MemberSpec
from pipeline.errors import ContractError, CorruptShard, UsageError
from pipeline.index import MemberRef
from pipeline.manifest import Manifest, Stats
from pipeline.sample import SampleMeta
from pipeline.store import Store
from train.stream.foreign import Members, members_for
from train.stream.source import Everywhere, Source, Span, source_of
from train.stream.where import Where

META, LABEL = "json", "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chips:
    """One sample as stored."""

    images: Mapping[str, NDArray[Any]]
    """By sensor: s1 float32 dB, s2 uint16; (C, H, W), of a stack (T, C, H, W)."""
    meta: SampleMeta | None
    """Of a stack, or where asked for."""
    label: NDArray[np.uint8] | None
    """(H, W) class of each pixel, where asked for and stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where one member of all samples lies."""

    offset_N: NDArray[np.int64]
    """Bytes from the start of the tar."""
    size_N: NDArray[np.int64]
    """Bytes."""
    crc32c_N: NDArray[np.uint32]
    """Checksums."""

    def ref(self, sample_id: int) -> MemberRef:
        """Where one sample's bytes lie, and what they are."""
        offset, size = self.span(sample_id)
        return MemberRef(offset=offset, size=size, crc32c=int(self.crc32c_N[sample_id]))

    def span(self, sample_id: int) -> Span:
        """Where one sample's bytes lie."""
        return int(self.offset_N[sample_id]), int(self.size_N[sample_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """How one sensor of all samples is stored, and what of it is wanted."""

    spec: MemberSpec
    """Dtype and shape."""
    bands: tuple[int, ...]
    """Which of the stored bands, in order."""

    whole: bool
    """Whether all bands are wanted as they lie."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """The samples of a split; a sample id is a row number among the split's rows of the index."""

    store: Store
    """The data set."""
    known: Manifest
    """What it is."""
    stats: Stats
    """Of the train split."""
    shards: tuple[str, ...]
    """Names of the tars, in index order."""
    shard_sizes: tuple[int, ...]
    """Samples of each."""
    shard_N: NDArray[np.int32]
    """Number of each sample's shard."""
    rows: pa.Table
    """The split's rows of the index."""
    key_N: pa.StringArray
    """Keys."""
    sensors: Mapping[str, Sensor]
    """Those that are wanted."""
    places: Mapping[str, Places]
    """Members that are read: the sensors, of stacks the json, and what was asked for."""
    members: Members
    """What the bytes mean."""
    source: Source
    """Where they come from."""

    @property
    def samples(self) -> int:
        """N."""
        return len(self.shard_N)

    @property
    def frames(self) -> int | None:
        """T of a stack; None for pairs."""
        return self.known.members[0].shape[0] if self.known.kind == "stack" else None

    def key(self, sample_id: int) -> str:
        """Key of a sample."""
        key: str = self.key_N[sample_id].as_py()
        return key

    def keys(self, sample_ids: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
        """Keys of samples."""
        return tuple(self.key_N.take(pa.array(sample_ids)).to_pylist())

    def shape(self, sensor: str) -> tuple[int, ...]:
        """Shape of a sensor's chip as `read` gives it."""
        *frames, _, height, width = self.sensors[sensor].spec.shape
        return *frames, len(self.sensors[sensor].bands), height, width

    def read(self, sample_id: int) -> Chips:
        """Read, check and decode one sample.

        Raises:
            CorruptShard: the bytes are not those of the index, twice.
            SourceError: the store kept failing.
        """
        data = self._fetch(sample_id) or self._again(sample_id)
        key = self.key(sample_id)
        images = {name: self._decode(name, data[name], key) for name in self.sensors}
        return Chips(images=images, meta=self._meta(data, key), label=self._label(data, key))

    def place(self, sample_id: int) -> tuple[str, int]:
        """Shard of a sample, and the first of its bytes that are read."""
        start = min(places.span(sample_id)[0] for places in self.places.values())
        return self._shard(sample_id), start

    def _shard(self, sample_id: int) -> str:
        return self.shards[int(self.shard_N[sample_id])]

    def _again(self, sample_id: int) -> dict[str, bytes]:
        """A read that was damaged on its way is good the second time; damage in the store is not."""
        self.source.forget(self._shard(sample_id))
        data = self._fetch(sample_id)
        if data is None:
            shard, start = self.place(sample_id)
            raise CorruptShard(
                f"{self.key(sample_id)} at byte {start} of {self.store.url}/{shard} is missing or "
                "not what the index promises. Copy that shard again, or make the data set again."
            )
        return data

    def _fetch(self, sample_id: int) -> dict[str, bytes] | None:
        """The members' bytes; None where they are not what the index promises."""
        refs = {name: places.ref(sample_id) for name, places in self.places.items()}
        return self.members.fetch(self.source, self._shard(sample_id), refs)

    def _decode(self, name: str, data: bytes, key: str) -> NDArray[Any]:
        sensor = self.sensors[name]
        array = self.members.decode(name, data, key=key)
        return array if sensor.whole else array[..., list(sensor.bands), :, :]

    def _meta(self, data: Mapping[str, bytes], key: str) -> SampleMeta | None:
        return record.loads(SampleMeta, data[META], where=f"{key}.{META}") if META in data else None

    def _label(self, data: Mapping[str, bytes], key: str) -> NDArray[np.uint8] | None:
        return self.members.decode(LABEL, data[LABEL], key=key) if LABEL in data else None


def open_samples(
    store: Store,
    split: str,
    *,
    kind: Kind,
    bands: Mapping[str, tuple[str, ...]],
    told: bool = False,
    where: Where | None = None,
) -> Samples:
    """The samples of `split` in the finished data set at `store`.

    Args:
        store: the data set.
        split: `train` or `val`.
        kind: what it must hold.
        bands: wanted bands by sensor, `s1` and `s2`; a sensor without bands is not read.
        told: read what is known of each sample, too: its json, and its label where there is one.
        where: which of the split's samples; None: all.

    Raises:
        UsageError: it is not finished, holds another kind, or the split is empty.
        BandMismatch: a wanted band is not stored.
        ContractError: manifest and index disagree.
    """
    known = manifest.load(store)
    if known.kind != kind or not known.samples(split):
        raise UsageError(
            f"{store.url} is a {known.kind} data set with {known.samples(split)} samples in {split!r}: a {kind} one is "
            "wanted, with at least one. Give another data set, ingest with that --kind, or ingest a larger area."
        )
    stored = {"s1": known.s1_bands, "s2": known.s2_bands}
    sensors = {name: _sensor(known, name, positions(stored[name], want)) for name, want in bands.items() if want}
    members, table = members_for(store, known), manifest.load_index(store, known)
    rows = table.filter(pc.equal(table["split"], split)).combine_chunks()
    shards, shard_N = _shards(known, rows, split)
    if where is not None:
        kept_N = chosen(rows, where)
        rows, shard_N = rows.filter(pa.array(kept_N)).combine_chunks(), shard_N[kept_N]
        if not rows.num_rows:
            raise UsageError(
                f"none of the {len(kept_N)} samples of {split!r} in {store.url} meets {where}. Ask for more."
            )
    return Samples(
        store=store,
        known=known,
        stats=manifest.load_stats(store),
        shards=shards,
        shard_sizes=tuple(np.bincount(shard_N, minlength=len(shards)).tolist()),
        shard_N=shard_N,
        rows=rows,
        key_N=rows["key"].combine_chunks(),
        sensors=sensors,
        places={name: _places(rows, name) for name in (*sensors, *_more(known, rows, told=told))},
        members=members,
        source=source_of(store) if members.foreign is None else Everywhere(store),
    )


def chosen(rows: pa.Table, where: Where) -> NDArray[np.bool_]:
    """Which rows of an index `where` asks for, (N,)."""
    kept_N = np.ones(rows.num_rows, bool)
    if where.bbox is not None:
        west, south, east, north = where.bbox
        lon_N, lat_N = rows["lon"].to_numpy(), rows["lat"].to_numpy()
        across = (lon_N >= west) | (lon_N <= east) if west > east else (lon_N >= west) & (lon_N <= east)
        kept_N &= across & (lat_N >= south) & (lat_N <= north)
    if where.dates is not None:
        day_N = rows["time"].to_numpy().astype("datetime64[D]")
        kept_N &= (day_N >= np.datetime64(where.dates[0])) & (day_N <= np.datetime64(where.dates[1]))
    if where.max_cloud is not None:
        cloud_N = rows["cloud"].to_numpy()
        kept_N &= ~(cloud_N > where.max_cloud)
    return kept_N


def _more(known: Manifest, rows: pa.Table, *, told: bool) -> tuple[str, ...]:
    """Members to read beside the sensors: the dates of a stack stand in its json; foreign samples have none of ours."""
    has_label = any(spec.name == LABEL for spec in known.members)
    meta = (META,) if known.kind == "stack" or (told and f"{META}_offset" in rows.column_names) else ()
    return (*meta, LABEL) if told and has_label else meta


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


def _sensor(known: Manifest, name: str, bands: tuple[int, ...]) -> Sensor:
    spec = _spec(known, name)
    return Sensor(spec=spec, bands=bands, whole=bands == tuple(range(spec.shape[-3])))


def _spec(known: Manifest, name: str) -> MemberSpec:
    spec = next((spec for spec in known.members if spec.name == name), None)
    if spec is None:
        raise ContractError(f"the data set has no member {name}. It was written by something else: ingest again.")
    return spec


def _places(rows: pa.Table, name: str) -> Places:
    if f"{name}_offset" not in rows.column_names:
        raise ContractError(f"the index has no member {name}. It was written by something else: ingest again.")
    offset, size, crc = (rows[f"{name}_{part}"].to_numpy() for part in ("offset", "size", "crc32c"))
    return Places(offset_N=offset, size_N=size, crc32c_N=crc)
