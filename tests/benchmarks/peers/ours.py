"""Ours: `train.stream.loader.Loader`."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[3]))

from fetch import measured
from meter import Asked, Batch, serve

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store
from train.stream import device as device_module
from train.stream.cache import CachedShards
from train.stream.cachedir import CacheFolder
from train.stream.config import Share, StreamConfig
from train.stream.device import on_device as device_step
from train.stream.heap import keep_freed_memory
from train.stream.lanes import LanePlan, default_lanes
from train.stream.loader import Loader
from train.stream.samples import open_samples
from train.stream.transforms import Augment

OBJECT_BYTES = 64_000_000
PLAN = {"samples": 100_000_000, "shards": 10_000, "lanes": 1_000, "batch": 8_000, "world": 8}


def ours(asked: Asked, *, consumed: int = 0) -> Loader:
    """A rank's loader: `raw` gives the pixels as stored, as the peers do; otherwise they are turned and normalised."""
    store, raw = Store.at(asked.data), asked.variant != "normalised"
    samples = open_samples(store, "train", kind="pair", bands={"s1": S1_NAMES, "s2": S2_NAMES})
    config = StreamConfig(
        global_batch=asked.batch * asked.world,
        s1_bands=S1_NAMES,
        s2_bands=S2_NAMES,
        image_px=samples.known.chip_px,
        augment=Augment(symmetries=1) if raw else Augment(),
    )
    lanes = default_lanes(config.global_batch, samples.samples)
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=lanes, global_batch=config.global_batch, seed=7)
    share = Share(rank=asked.rank, world_size=asked.world, threads=max(1, asked.workers))
    keep_freed_memory()
    device_module.on_device = device_step if asked.variant == "normalised" else lambda slot, *_: dict(slot.images)
    return Loader(samples, plan, config, share=share, samples_consumed=consumed)


class Ours:
    """Epochs of an endless loader. Ids go on counting: sample 3 of the second of 10 samples' epochs is 13."""

    def __init__(self, asked: Asked):
        self._asked, self._loader, self._consumed = asked, ours(asked), 0
        self._samples = self._loader._samples.samples

    def epoch(self) -> Iterator[Batch]:
        end = (self._consumed // self._samples + 1) * self._samples
        while self._consumed < end:
            batch, state = next(self._loader)
            self._consumed = state.samples_consumed
            ids = batch.sample_ids_B + batch.epochs_B * self._samples
            yield ids, batch.images["s2"], batch.images["s1"]

    def state(self) -> int:
        return self._consumed

    def restore(self, consumed: int) -> None:
        self._loader.close()
        self._loader, self._consumed = ours(self._asked, consumed=consumed), consumed


def plan(_: Asked) -> dict[str, Any]:
    """Seconds and memory to build the plan of a very large data set and to deal one rank's first batch."""
    from benchmarks.machine import peak_bytes, reset_peak

    cpu = torch.device("cpu")
    reset_peak(cpu)
    before, start = peak_bytes(cpu), time.perf_counter()
    sizes = [PLAN["samples"] // PLAN["shards"]] * PLAN["shards"]
    lanes = LanePlan(shard_sizes=sizes, lanes=PLAN["lanes"], global_batch=PLAN["batch"], seed=7)
    ids, _ = lanes.batch(0, 0, PLAN["world"])
    assert len(set(ids.tolist())) == PLAN["batch"] // PLAN["world"]
    return {**PLAN, "s": round(time.perf_counter() - start, 3), "MB": round((peak_bytes(cpu) - before) / 1e6, 1)}


def objects(asked: Asked) -> dict[str, list[float]]:
    """Fetch what `fill` has written the way that the loader does: in ranges, into files."""
    store = Store.at(f"s3://{asked.data}")
    shards = {f"object-{number}": (f"object-{number}", OBJECT_BYTES) for number in range(asked.batch)}
    with tempfile.TemporaryDirectory(prefix="objects-") as temp:
        folder = CacheFolder(path=Path(temp), limit=2 * len(shards) * OBJECT_BYTES)
        source = CachedShards(store, shards, folder, say=sys.stderr.write)
        found = measured(lambda _: fetched(source, list(shards)), ["all"], threads=1, rounds=asked.epochs)
        source.close()
    return found


def fetched(source: CachedShards, names: list[str]) -> int:
    """Bring all objects here, and forget them; their bytes."""
    source.want(names)
    while source._coming:
        time.sleep(0.002)
    size = sum(len(source._files[name].read([(0, OBJECT_BYTES)])[0]) for name in names[:1]) * len(names)
    source.want([])
    for name in names:
        source.forget(name)
    return size


def fill(asked: Asked) -> None:
    """Write objects of 64 MB into a bucket that is new."""
    store = Store.at(f"s3://{asked.data}")
    store.fs.mkdir(asked.data)
    for number in range(asked.batch):
        store.publish(f"object-{number}", os.urandom(OBJECT_BYTES))


def clear(asked: Asked) -> None:
    """Remove the bucket."""
    Store.at(f"s3://{asked.data}").fs.rm(asked.data, recursive=True)


if __name__ == "__main__":
    serve(Ours, plan=plan, objects=objects, fill=fill, clear=clear)
