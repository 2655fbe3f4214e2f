"""The samples that all readers read: a finished data set of ours, and `places.npz` for those that do not know it.

Sample i has the key `i` of six digits and the pixels of `tiny_pairs.make_sample(i % DISTINCT)`.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from tiny_pairs import make_sample

from pipeline import index, manifest, stats
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.codec import Codec, encode, specs
from pipeline.index import IndexRow
from pipeline.manifest import FORMAT_VERSION, Manifest, ShardEntry, Stats
from pipeline.sample import PairSample
from pipeline.shard import pack
from pipeline.store import Store

DISTINCT = 256
"""Pairs of pixels."""


def write(folder: Path, *, codec: Codec, sizes: list[int], side: int) -> None:
    """Shards of so many samples each."""
    samples = [make_sample(number, side) for number in range(min(DISTINCT, sum(sizes)))]
    encoded = [encode(one, codec) for one in samples]
    numbers, rows, entries = itertools.count(), [], []
    for shard, size in enumerate(sizes):
        name, ids = f"shards/train/u{shard:05d}-0000.tar", [next(numbers) for _ in range(size)]
        data, places = pack([(f"{number:06d}", encoded[number % DISTINCT]) for number in ids])
        Store.at(folder).publish(name, data)
        sha = manifest.sha256(data)
        entries.append(ShardEntry(path=name, split="train", samples=size, bytes=len(data), sha256=sha))
        rows += [_row(number, name, place) for number, place in zip(ids, places, strict=True)]
    _publish(Store.at(folder), samples, entries, rows, codec=codec)
    _write_places(folder, samples, sizes, rows)


def _row(number: int, shard: str, place: dict[str, Any]) -> IndexRow:
    sample = make_sample(0, 4)
    return IndexRow(
        shard=shard,
        key=f"{number:06d}",
        split="train",
        group="g",
        lon=12.0,
        lat=48.0,
        time=sample.meta.acquired[0],
        gap_hours=None,
        cloud=None,
        shift=None,
        members=place,
    )


def _publish(
    store: Store, samples: list[PairSample], entries: list[ShardEntry], rows: list[IndexRow], *, codec: Codec
) -> None:
    data = index.to_parquet(rows)
    s2 = [stats.measure(S2_NAMES, one.s2, one.mask & 1 == 0, bin_range=(0, 1e4)) for one in samples[:4]]
    s1 = [stats.measure(S1_NAMES, one.s1, one.mask & 2 == 0, bin_range=(-40, 10)) for one in samples[:4]]
    built = Manifest(
        format_version=FORMAT_VERSION,
        kind="pair",
        codec=codec,
        members=specs(samples[0]),
        s2_bands=S2_NAMES,
        s1_bands=S1_NAMES,
        chip_px=samples[0].s2.shape[-1],
        shards=tuple(entries),
        counts={"accepted": len(rows)},
        plan_fingerprint="0" * 64,
        index_sha256=manifest.sha256(data),
        created_by="benchmarks",
    )
    manifest.publish(store, built, data, stats=Stats(s2=stats.merge(s2), s1=stats.merge(s1)))


def _write_places(folder: Path, samples: list[PairSample], sizes: list[int], rows: list[IndexRow]) -> None:
    sums = [int(one.s2.sum(dtype=np.int64)) + int(one.s1.view(np.int32).sum(dtype=np.int64)) for one in samples]
    np.savez(
        folder / "places.npz",
        shards=[f"shards/train/u{shard:05d}-0000.tar" for shard in range(len(sizes))],
        shard=np.repeat(np.arange(len(sizes)), sizes),
        offset=[[row.members[name].offset for name in ("s2", "s1")] for row in rows],
        size=[[row.members[name].size for name in ("s2", "s1")] for row in rows],
        sums=[sums[number % DISTINCT] for number in range(len(rows))],
        side=samples[0].s2.shape[-1],
    )


def uneven(samples: int, shards: int) -> list[int]:
    """Sizes that differ, from a few samples to three times the mean.

    >>> sum(uneven(1003, 17)), len(uneven(1003, 17)), min(uneven(1003, 17)) > 0
    (1003, 17, True)
    """
    weights = np.random.default_rng(5).uniform(0.1, 3, shards)
    cuts = np.round(np.concatenate(([0], weights.cumsum())) / weights.sum() * samples).astype(int)
    return np.diff(cuts).tolist()
