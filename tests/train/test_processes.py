"""Readers in processes of their own: the same batches, the same errors, and nothing left behind."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flaky_server import serving
from tiny_run import train

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import CorruptShard, StreamError, UsageError
from pipeline.store import Store
from train.meter import read_rows, steady
from train.options import Options
from train.stream.cache import CachedShards, cache_folder
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.samples import Samples, open_samples
from train.stream.transforms import Augment

pytestmark = pytest.mark.train
PAIRS = StreamConfig(
    global_batch=6, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16, augment=Augment(side_px=(8, 24))
)
STACKS = StreamConfig(global_batch=6, kind="stack", frames=3, s2_bands=("B04", "B02"), image_px=16)


def samples_of(data: Store, config: StreamConfig) -> Samples:
    return open_samples(data, "train", kind=config.kind, bands=config.bands)


def loader(samples: Samples, config: StreamConfig, **share: Any) -> Loader:
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=6, global_batch=6, seed=0)
    return Loader(samples, plan, config, share=Share(threads=2, **share))


def read(samples: Samples, config: StreamConfig, *, count: int = 9, **share: Any) -> list[Any]:
    with loader(samples, config, **share) as batches:
        return [next(batches) for _ in range(count)]


def running(batches: Loader) -> list[int]:
    return [worker._process.pid for worker in batches._readers._workers]


def ended(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


@pytest.mark.parametrize("config", [PAIRS, STACKS], ids=["pairs", "stacks"])
def test_batches_are_those_of_threads(config: StreamConfig, pairs: Store, stacks: Store) -> None:
    """More of them than there are slots, so each is filled anew."""
    samples = samples_of(stacks if config is STACKS else pairs, config)
    ours, theirs = (read(samples, config, processes=count) for count in (2, 0))
    for (mine, state), (known, known_state) in zip(ours, theirs, strict=True):
        assert (state, mine.keys, mine.damaged) == (known_state, known.keys, known.damaged)
        assert mine.images.keys() == known.images.keys()
        assert all(torch.equal(mine.images[name], image) for name, image in known.images.items())
        for name in ("hashes_B", "sample_ids_B", "epochs_B", "valid_B"):
            assert torch.equal(getattr(mine, name), getattr(known, name))
        assert (mine.dates_BT3 is None) or torch.equal(mine.dates_BT3, known.dates_BT3)


def test_nothing_runs_on(pairs: Store) -> None:
    with loader(samples_of(pairs, PAIRS), PAIRS, processes=2) as batches:
        next(batches)
        pids = running(batches)
        assert not any(ended(pid) for pid in pids)
    assert all(ended(pid) for pid in pids)


def test_what_is_read_is_counted(pairs: Store) -> None:
    samples = samples_of(pairs, PAIRS)
    before = samples.store.traffic.requests
    source = _Counting(samples.store)
    read(replace(samples, source=source), PAIRS, count=2, processes=2)
    assert samples.store.traffic.requests - before >= 12


class _Counting:
    """Reads by range, which a store counts; files of this machine are not counted."""

    reads_ahead = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, shard: str, spans: Any) -> list[bytes]:
        return [self._store.read_range(shard, offset, offset + size) for offset, size in spans]

    def want(self, shards: Any) -> None: ...

    def forget(self, shard: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def damaged(pairs_at: Any, tmp_path: Path) -> Samples:
    """The second sample's bytes are not what they were."""
    store = pairs_at(str(tmp_path / "data"))
    samples = samples_of(store, PAIRS)
    shard, offset = samples.place(1)
    with Path(store.path(shard)).open("r+b") as file:
        file.seek(offset + 40)
        file.write(b"damaged!")
    return samples


def test_damage_is_told_as_by_threads(damaged: Samples) -> None:
    with pytest.raises(CorruptShard, match=f"{damaged.key(1)} at byte"):
        read(damaged, PAIRS, processes=2)


def test_stand_ins_are_those_of_threads(damaged: Samples) -> None:
    ours, theirs = (read(damaged, PAIRS, count=5, processes=n, on_corrupt="quarantine") for n in (2, 0))
    assert any(batch.damaged for batch, _ in ours)
    assert [(batch.keys, batch.damaged) for batch, _ in ours] == [(batch.keys, batch.damaged) for batch, _ in theirs]


def test_one_that_is_killed_ends_the_run_with_words(pairs: Store) -> None:
    with loader(samples_of(pairs, PAIRS), PAIRS, processes=2) as batches:
        next(batches)
        os.kill(running(batches)[0], signal.SIGKILL)
        with pytest.raises(StreamError, match="exit code -9"):
            list(itertools.islice(batches, 20))


def test_they_end_with_their_reader(pairs: Store) -> None:
    """A rank that is killed cannot end them."""
    script = (
        "import sys, test_processes as t\n"
        "from pipeline.store import Store\n"
        "batches = t.loader(t.samples_of(Store.at(sys.argv[1]), t.PAIRS), t.PAIRS, processes=2)\n"
        "next(batches); print(*t.running(batches), flush=True); sys.stdin.read()\n"
    )
    paths = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, *sys.path[:2], Path(__file__).parents[2]))
    rank = subprocess.Popen(
        [sys.executable, "-c", script, pairs.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    try:
        pids = [int(pid) for pid in rank.stdout.readline().split()]
        assert len(pids) == 2
    finally:
        rank.kill()
        rank.communicate()
    limit = time.monotonic() + 30
    while not all(ended(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.fixture
def served(pairs: Store) -> Iterator[Store]:
    with serving(Path(pairs.path(""))) as (url, _):
        yield Store.at(url)


def test_they_share_a_cache(served: Store, pairs: Store, tmp_path: Path) -> None:
    samples = samples_of(served, PAIRS)
    shards = {entry.path: (entry.sha256, entry.bytes) for entry in samples.known.shards}
    source = CachedShards(served, shards, cache_folder(str(tmp_path), 1.0), say=pytest.fail)
    ours = read(replace(samples, source=source), PAIRS, processes=2)
    theirs = read(samples_of(pairs, PAIRS), PAIRS)
    assert [batch.hashes_B.tolist() for batch, _ in ours] == [batch.hashes_B.tolist() for batch, _ in theirs]
    assert source.counts.hits + source.counts.misses >= 54
    assert source.counts.hits > 0


def test_a_run_is_that_of_threads(pairs: Store, tmp_path: Path) -> None:
    for count in (0, 2):
        train(pairs, str(tmp_path / f"run-{count}"), reader_processes=count)
    ours, theirs = (read_rows(Store.at(str(tmp_path / f"run-{count}"))) for count in (2, 0))
    assert [steady(row) for row in ours] == [steady(row) for row in theirs]


def test_what_lies_in_this_process_is_refused(pairs_at: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory://"):
        train(pairs_at("memory://here"), str(tmp_path / "run"), reader_processes=1)


def test_fewer_than_none_are_refused() -> None:
    with pytest.raises(UsageError, match="--reader-processes -1"):
        Options(data="", out="", reader_processes=-1)
