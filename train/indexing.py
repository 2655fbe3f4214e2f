"""Foreign tars → a finished data set of ours that points at them: `foreign.json`, index, statistics, manifest.

Each tar is read once, from end to end; only the samples that statistics are taken of are decoded, and nothing is
copied. What a tar gave is kept in `scan/` until the manifest stands: the same command goes on where it was stopped.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import index, manifest, record, stats
from pipeline.codec import MemberSpec
from pipeline.errors import ContractError, CorruptShard, UsageError, redact
from pipeline.index import MemberRef
from pipeline.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest, ShardEntry, Stats
from pipeline.stats import BandStats
from pipeline.store import Store
from train.models.containers import File
from train.stream.foreign import (
    FOREIGN_NAME,
    MAKER,
    Foreign,
    Members,
    foreign_members,
    members_for,
    parse,
    stored_bands,
)
from train.stream.join import join
from train.stream.lanes import permutation
from train.stream.source import Everywhere, place
from train.stream.tars import Tape, scan

SCAN_FOLDER = "scan"
"""Receipts of tars that are done; removed at the end."""
RANGES: Mapping[str, tuple[float, float]] = {"s2": (0.0, 12000.0), "s1": (-40.0, 10.0)}
"""Ends of the histograms, those of ingest."""
PACKAGE = "sentinel-pretrain"
_TAR = b"tar"
_AT_ONCE = 64
"""Samples that are decoded before their statistics are merged."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to index."""

    tars: tuple[str, ...]
    """Paths, URLs, patterns of names (`*`), or ranges (`{0000..0041}`)."""
    map: str
    """Path or URL of the map."""
    out: str
    """Folder or URL of the data set."""
    skip_incomplete: bool = False
    """Leave out samples that lack a member."""
    statistics: int = 1024
    """Training samples that statistics are taken of; 0: all, which also decodes each once."""
    threads: int = 2
    """Tars at once."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.statistics < 0 or self.threads < 1:
            raise UsageError(f"--statistics {self.statistics} --threads {self.threads}: use 0 or more, and 1 or more.")


def build(request: Request, say: Callable[[str], None]) -> tuple[Manifest, Stats]:
    """Index foreign tars, and finish the data set that points at them.

    Raises:
        UsageError: OUT is finished already, or nothing is there to index.
        CorruptShard: a tar is damaged or cut short.
        ContractError: samples are not what the map says.
    """
    out = Store.at(request.out)
    if out.exists(MANIFEST_NAME):
        raise UsageError(f"{out.url} holds a finished data set, which is never changed. Give another --out.")
    foreign = read_map(request.map)
    tables = _scan_all(out, foreign, request, say=say)
    table = pa.concat_tables([one for one in tables if one.num_rows]).replace_schema_metadata(None).combine_chunks()
    data = _parquet(table)
    out.publish(FOREIGN_NAME, record.dumps(foreign))
    built = _manifest(foreign, tables, _specs(out, foreign, table), data)
    say(f"statistics of {f'at most {request.statistics}' if request.statistics else 'all'} training samples")
    measured = _statistics(members_for(out, built), built, table, request)
    manifest.publish(out, built, data, stats=measured)
    out.remove(SCAN_FOLDER)
    return built, measured


def read_map(path: str) -> Foreign:
    """The map at a path or URL."""
    file = File.at(path)
    try:
        return parse(file.store.read(file.name), where=file.url)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"{file.url} is not there. Give --map a JSON file; train/README.md shows one.") from error


def expand(patterns: Sequence[str]) -> list[str]:
    """URLs of tars, each once, those of a pattern in order of their names.

    Raises:
        UsageError: a pattern finds nothing, or a URL carries a secret, which the index would repeat.
    """
    from webdataset.shardlists import expand_urls

    found = [url for pattern in patterns for one in expand_urls(pattern) for url in _named(one)]
    return list(dict.fromkeys(found))


def _named(pattern: str) -> list[str]:
    if redact(pattern) != pattern:
        raise UsageError(
            f"{redact(pattern)} carries a query or a user, and the index would repeat it. Give the plain URL, and "
            "credentials in the environment."
        )
    folder, slash, name = pattern.rpartition("/")
    if not set(name) & set("*?["):
        return [pattern]
    names = [one for one in Store.at(folder + slash or ".").names() if fnmatch(one, name)]
    if not names:
        raise UsageError(f"{pattern} finds nothing. Correct --tars; only the last part may be a pattern.")
    return [folder + slash + one for one in names]


def shard_name(out: Store, foreign: Foreign, url: str) -> str:
    """The tar's name in the index: relative where it lies in OUT, or else its URL.

    Raises:
        UsageError: tars beside it cannot be named after it.
    """
    file = File.at(url)
    whole = str(file.store.fs.unstrip_protocol(file.store.path(file.name)))
    relative = whole.removeprefix(f"{out.fs.unstrip_protocol(out.root)}/")
    parts = [member.tar[0] for member in foreign.members.values() if member.tar is not None]
    name = next((one for one in (relative, whole) if all(part in one for part in parts)), None)
    if name is None:
        raise UsageError(f"{url} has not all of {parts}, which `tar` in the map replaces. Correct --tars or the map.")
    return name


def _scan_all(out: Store, foreign: Foreign, request: Request, *, say: Callable[[str], None]) -> list[pa.Table]:
    """One table a tar, with what is known of the tar in its metadata.

    Raises:
        UsageError: no tar has a sample.
    """
    shards, tables = [shard_name(out, foreign, url) for url in expand(request.tars)], []
    with ThreadPoolExecutor(request.threads, thread_name_prefix="scan") as scanners:
        work = partial(_scanned, out, foreign, skip=request.skip_incomplete)
        for number, (shard, table) in enumerate(zip(shards, scanners.map(work, shards), strict=True), 1):
            say(f"{number}/{len(shards)} {shard}: {table.num_rows} samples")
            tables.append(table)
    if not any(table.num_rows for table in tables):
        seen = sorted({suffix for table in tables for suffix in _told(table)["suffixes"]})
        wanted = [member.suffix for member in foreign.members.values()]
        raise UsageError(f"no sample with {wanted} in {len(shards)} tars, which hold {seen}. Correct the map.")
    return tables


def _scanned(out: Store, foreign: Foreign, shard: str, *, skip: bool) -> pa.Table:
    """The table of a tar, from its receipt where there is one."""
    tapes = {}
    for tar in dict.fromkeys([shard, *(foreign.tar_of(name, shard) for name in foreign.members)]):
        store, name = place(out, tar)
        tapes[tar] = Tape(store=store, name=name)
    asked = {"foreign": foreign, "skip": skip, "tars": {tar: tape.size for tar, tape in tapes.items()}}
    receipt = f"{SCAN_FOLDER}/{record.fingerprint(asked)}.parquet"
    try:
        return pq.read_table(io.BytesIO(out.read(receipt)))
    except (FileNotFoundError, NotADirectoryError):
        pass
    table = _scan(foreign, shard, tapes, skip=skip)
    out.publish(receipt, _parquet(table))
    return table


def _scan(foreign: Foreign, shard: str, tapes: Mapping[str, Tape], *, skip: bool) -> pa.Table:
    found = {}
    for tar, tape in tapes.items():
        wanted = {member.suffix for name, member in foreign.members.items() if foreign.tar_of(name, shard) == tar}
        texts = (foreign.meta.suffix,) if foreign.meta.suffix and tar == shard else ()
        found[tar] = list(scan(tape, wanted, texts=texts))
    joined = join(foreign, shard, found, url=tapes[shard].url, skip=skip)
    told = {
        "name": shard,
        "bytes": tapes[shard].size,
        "sha256": tapes[shard].sha256,
        "counts": joined.counts,
        "suffixes": sorted({suffix for samples in found.values() for one in samples for suffix in one.suffixes}),
    }
    table = pq.read_table(io.BytesIO(index.to_parquet(joined.rows)))
    return table.replace_schema_metadata({_TAR: record.dumps(told)})


def _told(table: pa.Table) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(table.schema.metadata[_TAR])
    return told


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _manifest(foreign: Foreign, tables: Sequence[pa.Table], specs: tuple[MemberSpec, ...], data: bytes) -> Manifest:
    bands = {name: stored_bands(name, member) for name, member in foreign.members.items()}
    counts: Counter[str] = sum((Counter(_told(table)["counts"]) for table in tables), Counter())
    return Manifest(
        format_version=FORMAT_VERSION,
        kind="pair",
        codec="npy",
        members=specs,
        s2_bands=bands.get("s2", ()),
        s1_bands=bands.get("s1", ()),
        chip_px=specs[0].shape[-1],
        shards=tuple(entry for table in tables for entry in _entries(table)),
        counts=dict(sorted(counts.items())),
        plan_fingerprint=record.fingerprint(foreign),
        index_sha256=manifest.sha256(data),
        created_by=f"{PACKAGE} {version(PACKAGE)} {MAKER}",
    )


def _entries(table: pa.Table) -> Iterator[ShardEntry]:
    """One entry a split: a tar may hold samples of both."""
    told, counts = _told(table), Counter(table["split"].to_pylist())
    for split in ("train", "val"):
        if counts[split]:
            yield ShardEntry(
                path=told["name"],
                split=split,
                samples=counts[split],
                bytes=told["bytes"],
                sha256=told["sha256"],
            )


def _specs(out: Store, foreign: Foreign, table: pa.Table) -> tuple[MemberSpec, ...]:
    """Of the first sample.

    Raises:
        ContractError: its chips are not square, or not of one size.
    """
    row = table.slice(0, 1).to_pylist()[0]
    arrays = read(foreign_members(out, foreign, {}), row)
    sizes = {name: array.shape[-2:] for name, array in arrays.items()}
    if len({side for size in sizes.values() for side in size}) != 1:
        raise ContractError(
            f"chips of {row['key']} are {sizes} pixels, and squares of one size are wanted. Cut them in a decoder of "
            "your own."
        )
    return tuple(MemberSpec(name=name, dtype=array.dtype.str, shape=array.shape) for name, array in arrays.items())


def read(members: Members, row: Row) -> dict[str, np.ndarray]:
    """All members of the sample in a row of the index, decoded.

    Raises:
        CorruptShard: they changed since they were indexed.
    """
    parts = ("offset", "size", "crc32c")
    names = members.foreign.members if members.foreign is not None else members.specs
    refs = {name: MemberRef(**{part: row[f"{name}_{part}"] for part in parts}) for name in names}
    data = members.fetch(Everywhere(members.store), row["shard"], refs)
    if data is None:
        raise CorruptShard(f"{row['key']} of {row['shard']} changed while it was indexed. Run the same command again.")
    return {name: members.decode(name, data[name], key=row["key"]) for name in refs}


def _statistics(members: Members, built: Manifest, table: pa.Table, request: Request) -> Stats:
    """Of some training samples, chosen by the map's seed, or of all.

    Raises:
        ContractError: the values cannot be digital numbers, or dB.
    """
    seed = 0 if members.foreign is None else members.foreign.split.seed
    ids = np.flatnonzero(np.asarray(table["split"].to_pylist(), object) == "train")
    chosen = np.sort(ids[permutation(len(ids), seed, "statistics")[: request.statistics or None]])
    bands = {name: one for name, one in (("s2", built.s2_bands), ("s1", built.s1_bands)) if one}
    merged: dict[str, list[BandStats]] = {name: [] for name in bands}
    with ThreadPoolExecutor(request.threads, thread_name_prefix="statistics") as readers:
        for first in range(0, len(chosen), _AT_ONCE):
            rows = table.take(chosen[first : first + _AT_ONCE]).to_pylist()
            found = list(readers.map(partial(_measure, members, bands), rows))
            for name, before in merged.items():
                whole = stats.merge([*before, *(one[name] for one in found)])
                merged[name] = [] if whole is None else [whole]
    done = {name: one[0] if one else None for name, one in merged.items()}
    for name, measured in done.items():
        _check(name, measured)
    return Stats(s2=done.get("s2"), s1=done.get("s1"))


def _measure(members: Members, bands: Mapping[str, tuple[str, ...]], row: Row) -> dict[str, BandStats]:
    arrays = read(members, row)
    valid = {"s2": lambda chip: (chip != 0).all(axis=0), "s1": lambda chip: np.isfinite(chip).all(axis=0)}
    return {
        name: stats.measure(names, arrays[name], valid[name](arrays[name]), bin_range=RANGES[name])
        for name, names in bands.items()
    }


def _check(name: str, measured: BandStats | None) -> None:
    """Raise where a unit is surely another one."""
    if measured is None:
        return
    if not any(measured.count):
        raise ContractError(f"{name} has no valid pixel. Correct `nodata`, `scale` and `offset` in the map.")
    if name == "s2" and max(measured.maximum) <= 2:
        raise ContractError(
            f"s2 reaches {max(measured.maximum):g} digital numbers, as reflectance would. Give it a `scale` of 10000."
        )
    if name == "s1" and min(measured.minimum) >= 0:
        raise ContractError(
            f"s1 is nowhere below {min(measured.minimum):g} dB, as linear power would be. Give its `quantity`: power."
        )


def summary(built: Manifest, measured: Stats) -> list[str]:
    """Lines for a person: what was indexed, and the values in their unit, so that a wrong one is seen."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in built.counts.items())
    lines = [f"{counts}; {built.samples('train')} train, {built.samples('val')} val; {built.chip_px} px"]
    for unit, one in (("DN", measured.s2), ("dB", measured.s1)):
        if one is not None:
            values = zip(one.bands, one.minimum, one.mean, one.maximum, one.std, strict=True)
            lines += [
                f"{band:>4} {low:10.2f} .. {high:9.2f} {unit}, mean {mean:9.2f}, std {std:8.2f}"
                for band, low, mean, high, std in values
            ]
    return lines
