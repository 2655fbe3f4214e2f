"""Small, real data sets, written with `pipeline` alone: uneven shards of structured pairs or stacks, some in `val`."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from pipeline import index, manifest, stats
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.codec import Codec, encode, specs
from pipeline.index import IndexRow
from pipeline.manifest import FORMAT_VERSION, Manifest, ShardEntry, Stats
from pipeline.sample import PairSample, Sample, SampleMeta, StackSample
from pipeline.shard import pack
from pipeline.store import Store

SHARDS = (("train", 7), ("train", 1), ("val", 3), ("train", 12), ("train", 5))
NOON = datetime(2023, 6, 1, 12, tzinfo=UTC)


def make_sample(number: int, chip_px: int) -> PairSample:
    """Stripes whose direction and width both sensors share; some pixels are missing."""
    draw = np.random.default_rng(number)
    angle, wave = draw.uniform(0, np.pi), draw.uniform(8, 40)
    y, x = np.mgrid[:chip_px, :chip_px]
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wave)
    gains = np.linspace(400, 900, len(S2_NAMES))[:, None, None]
    s2 = (2000 + number + gains * stripes + draw.normal(0, 30, (len(S2_NAMES), chip_px, chip_px))).astype(np.uint16)
    s1 = (-14 + 4 * stripes + draw.normal(0, 0.5, (len(S1_NAMES), chip_px, chip_px))).astype(np.float32)
    mask = np.zeros((chip_px, chip_px), np.uint8)
    s2[:, 0, :3], s1[:, :2, 0], mask[0, :3] = 0, np.nan, 1
    mask[:2, 0] |= 2
    meta = SampleMeta(
        cell_id=f"32633-r{number:05d}-c00000",
        epsg=32633,
        transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_300_000.0),
        center_lonlat=(12.0, 48.0),
        acquired=(NOON + timedelta(days=number),),
        s1_acquired=(NOON + timedelta(days=number, hours=5),),
        scene_ids={"s2": (f"S2-{number}",), "s1": (f"S1-{number}",)},
        offsets={f"S2-{number}": "0 none"},
        gap_hours=5.0,
        backscatter="gamma0",
        orbit_state=None,
        cloud_fraction=None,
        valid_fraction=1.0,
        shift_px=None,
        resampled=(),
        classes=(),
    )
    return PairSample(key=f"sample-{number:03d}", s2=s2, s1=s1, mask=mask, meta=meta)


def make_stack(number: int, chip_px: int, *, frames: int = 4) -> StackSample:
    """Three bands of as many pairs' S2 as there are frames, forty days apart."""
    pairs = [make_sample(number + 50 * frame, chip_px) for frame in range(frames)]
    meta = dataclasses.replace(
        pairs[0].meta,
        acquired=tuple(NOON + timedelta(days=number + 40 * frame, hours=frame) for frame in range(frames)),
        s1_acquired=(),
        scene_ids={"s2": tuple(f"S2-{number}-{frame}" for frame in range(frames))},
        gap_hours=None,
        backscatter=None,
    )
    s2, mask = (np.stack(arrays) for arrays in ([one.s2[1:4] for one in pairs], [one.mask & 1 for one in pairs]))
    return StackSample(key=f"stack-{number:03d}", s2=s2, mask=mask, meta=meta)


def write_pairs(
    url: str, *, chip_px: int = 24, codec: Codec = "b2", shards: tuple = SHARDS, classes: int | None = None
) -> Store:
    """A finished data set at `url`; sample i of `train` is `make_sample(i)`, those of `val` begin at 900.

    With `classes`, all pixels of sample i are of class `i % classes`, 0 being the unknown one.
    """

    def make(number: int) -> PairSample:
        sample = make_sample(number, chip_px)
        label = None if classes is None else np.full((chip_px, chip_px), number % classes, np.uint8)
        return dataclasses.replace(sample, label=label)

    return _write(url, make, codec=codec, shards=shards)


def write_stacks(url: str, *, chip_px: int = 24, codec: Codec = "b2", shards: tuple = SHARDS) -> Store:
    """The same of `make_stack`: bands B02, B03, B04."""
    return _write(url, lambda number: make_stack(number, chip_px), codec=codec, shards=shards)


def _write(url: str, make: Callable[[int], Sample], *, codec: Codec, shards: tuple) -> Store:
    first = make(0)
    stack = isinstance(first, StackSample)
    s2_bands, s1_bands = (S2_NAMES[1:4], ()) if stack else (S2_NAMES, S1_NAMES)
    store, rows, entries, samples = Store.at(url), [], [], []
    numbers = {"train": iter(range(900)), "val": iter(range(900, 1000))}
    for shard, (split, count) in enumerate(shards):
        made = [make(next(numbers[split])) for _ in range(count)]
        name = f"shards/{split}/u{shard:05d}-0000.tar"
        data, places = pack([(one.key, encode(one, codec)) for one in made])
        store.publish(name, data)
        sha = manifest.sha256(data)
        entries.append(ShardEntry(path=name, split=split, samples=count, bytes=len(data), sha256=sha))
        rows += [_row(one, split, name, place) for one, place in zip(made, places, strict=True)]
        samples += made if split == "train" else []
    data = index.to_parquet(rows)
    built = Manifest(
        format_version=FORMAT_VERSION,
        kind="stack" if stack else "pair",
        codec=codec,
        members=specs(first),
        s2_bands=s2_bands,
        s1_bands=s1_bands,
        chip_px=first.s2.shape[-1],
        shards=tuple(entries),
        counts={"accepted": len(rows)},
        plan_fingerprint="0" * 64,
        index_sha256=manifest.sha256(data),
        created_by="tests",
    )
    manifest.publish(store, built, data, stats=_stats(samples, s2_bands))
    return store


def _row(sample: Sample, split: str, shard: str, place: dict) -> IndexRow:
    return IndexRow(
        shard=shard,
        key=sample.key,
        split=split,
        group="g",
        lon=12.0,
        lat=48.0,
        time=sample.meta.acquired[0],
        gap_hours=sample.meta.gap_hours,
        cloud=None,
        shift=None,
        members=place,
    )


def _stats(samples: list[Sample], s2_bands: tuple[str, ...]) -> Stats:
    frames = [(s2, mask) for one in samples for s2, mask in _frames(one)]
    s2 = [stats.measure(s2_bands, pixels, mask & 1 == 0, bin_range=(0, 1e4)) for pixels, mask in frames]
    s1 = [
        stats.measure(S1_NAMES, one.s1, one.mask & 2 == 0, bin_range=(-40, 10)) for one in samples if one.s1 is not None
    ]
    return Stats(s2=stats.merge(s2), s1=stats.merge(s1) if s1 else None)


def _frames(sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(sample, StackSample):
        return list(zip(sample.s2, sample.mask, strict=True))
    return [(sample.s2, sample.mask)]
