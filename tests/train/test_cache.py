"""Shards kept on this machine: the same bytes as from the store, whatever breaks; never more than the limit."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from flaky_server import serving
from hypothesis import given
from hypothesis import strategies as st
from tiny_pairs import write_pairs

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import CorruptShard, SourceError, UsageError
from pipeline.store import Store
from train.batch import Batch
from train.stream import cache
from train.stream.cache import CachedShards, cache_folder
from train.stream.cachedir import CacheFolder, CacheFullError
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.samples import open_samples

pytestmark = pytest.mark.train
CONFIG = StreamConfig(global_batch=8, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data set on disk."""
    path = tmp_path_factory.mktemp("served")
    write_pairs(str(path))
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once, and a shard is many ranges."""
    monkeypatch.setattr("pipeline.store._pause_s", lambda attempt: 0.0)
    monkeypatch.setattr(cache, "PART_BYTES", 5000)


def batches(url: str, kept: CacheFolder | None, *, steps: int = 9, said: list[str] | None = None) -> tuple[list, Any]:
    samples = open_samples(Store.at(url), "train", kind="pair", bands=CONFIG.bands)
    if kept is not None:
        shards = {entry.path: (entry.sha256, entry.bytes) for entry in samples.known.shards}
        say = (said if said is not None else []).append
        samples = dataclasses.replace(samples, source=CachedShards(samples.store, shards, kept, say=say))
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=4, global_batch=8, seed=7)
    with Loader(samples, plan, CONFIG, share=Share(threads=2)) as loader:
        return [next(loader)[0] for _ in range(steps)], samples


def same(found: list[Batch], wanted: list[Batch]) -> bool:
    return all(
        a.keys == b.keys and all(torch.equal(a.images[name], b.images[name]) for name in a.images)
        for a, b in zip(found, wanted, strict=True)
    )


def test_a_cached_stream_is_the_stream(folder: Path, tmp_path: Path) -> None:
    wanted, _ = batches(str(folder), None)
    kept = CacheFolder(path=tmp_path, limit=10**9)
    with serving(folder) as (url, asked):
        first, samples = batches(url, kept)
        shards = [path for path in asked if path.endswith(".tar")]
        asked.clear()
        again, warm = batches(url, kept)
        assert not [path for path in asked if path.endswith(".tar")], "what is kept was asked for again"
    assert same(first, wanted)
    assert same(again, wanted)
    assert samples.source.counts.hits + samples.source.counts.misses >= 9 * 8
    assert warm.source.counts.misses == 0
    assert shards
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", *[".tar"] * 4]


@pytest.mark.parametrize("what", ["503", "reset"])
def test_broken_answers_are_asked_for_again(folder: Path, tmp_path: Path, what: str) -> None:
    wanted, _ = batches(str(folder), None)
    kept = CacheFolder(path=tmp_path, limit=10**9)
    with serving(folder, lambda path, number: what if number % 4 == 0 else None) as (url, _):
        found, samples = batches(url, kept)
    assert same(found, wanted)
    assert samples.store.traffic.retries > 3


def test_a_store_that_stays_broken_is_told(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    down = lambda path, number: "503" if path.endswith(".tar") else None  # noqa: E731
    with serving(folder, down) as (url, _), pytest.raises(SourceError, match="503"):
        batches(url, CacheFolder(path=tmp_path, limit=10**9), said=said)
    assert len(said) == 1
    assert "is not cached" in said[0]
    assert not list(tmp_path.glob("*.part"))


def test_a_shard_cut_short_in_the_store_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    shard = copy / "shards/train/u00003-0000.tar"
    shard.write_bytes(shard.read_bytes()[:20000])
    with serving(copy) as (url, _), pytest.raises(CorruptShard, match="u00003"):
        batches(url, CacheFolder(path=tmp_path / "kept", limit=10**9))
    assert not list((tmp_path / "kept").glob("*.part"))


def test_a_damaged_copy_is_fetched_again(folder: Path, tmp_path: Path) -> None:
    wanted, _ = batches(str(folder), None)
    kept = CacheFolder(path=tmp_path, limit=10**9)
    with serving(folder) as (url, _):
        batches(url, kept)
        for path in tmp_path.glob("*.tar"):
            path.write_bytes(bytes(path.stat().st_size))
        assert same(batches(url, kept)[0], wanted)


def test_a_full_disk_costs_requests_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    wanted, _ = batches(str(folder), None)
    monkeypatch.setattr(os, "posix_fallocate", full)
    said: list[str] = []
    with serving(folder) as (url, _):
        found, samples = batches(url, CacheFolder(path=tmp_path, limit=10**9), said=said)
    assert same(found, wanted)
    assert samples.source.counts.hits == 0
    assert len(said) == 1
    assert "No space left" in said[0]
    assert not list(tmp_path.glob("*.[pt]a*"))


def test_a_small_limit_is_kept_and_cannot_lock_up(folder: Path, tmp_path: Path) -> None:
    wanted, _ = batches(str(folder), None)
    sizes = sorted(path.stat().st_size for path in (folder / "shards/train").glob("*.tar"))
    kept, seen = CacheFolder(path=tmp_path, limit=sizes[0] + sizes[1]), []
    real = CacheFolder.begin

    def begin(self: CacheFolder, sha256: str, size: int) -> object:
        part = real(self, sha256, size)
        seen.append(self.used())
        return part

    with serving(folder) as (url, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CacheFolder, "begin", begin)
        assert same(batches(url, kept)[0], wanted)
    assert seen
    assert max(seen) <= kept.limit


def test_a_killed_fetch_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal, pathlib\n"
        "from train.stream.cachedir import CacheFolder\n"
        "part = CacheFolder(path=pathlib.Path(sys.argv[1]), limit=1000).begin('a' * 64, 600)\n"
        "part.write(b'x' * 300, 0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -9
    kept = CacheFolder(path=tmp_path, limit=1000)
    assert kept.used() == 600
    assert kept.claim("a" * 64) is None
    part = kept.begin("b" * 64, 700)
    assert part is not None, "the dead process's part was not removed for room"
    part.drop()
    part = kept.begin("a" * 64, 600)
    assert part is not None
    part.write(b"y" * 600, 0)
    part.finish()
    fd = kept.claim("a" * 64)
    assert os.read(fd, 700) == b"y" * 600
    os.close(fd)


def test_one_fetches_and_what_is_in_use_stays(tmp_path: Path) -> None:
    kept = CacheFolder(path=tmp_path, limit=1000)
    part = kept.begin("a" * 64, 600)
    assert kept.begin("a" * 64, 600) is None
    with pytest.raises(CacheFullError, match="in use"):
        kept.begin("b" * 64, 600)
    part.write(b"a" * 600, 0)
    part.finish()
    assert kept.begin("a" * 64, 600) is None
    fd = kept.claim("a" * 64)
    with pytest.raises(CacheFullError, match="in use"):
        kept.begin("b" * 64, 600)
    os.close(fd)
    other = kept.begin("b" * 64, 600)
    assert kept.claim("a" * 64) is None
    assert kept.used() == 600
    other.drop()
    assert kept.used() == 0


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=30), limit=st.integers(0, 150))
def test_the_limit_holds_and_the_last_used_stay(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    kept = CacheFolder(path=tmp_path_factory.mktemp("limit"), limit=limit)
    model: dict[str, int] = {}
    for number, size in enumerate(sizes):
        name = f"{number:064d}"
        if size > limit:
            with pytest.raises(CacheFullError):
                kept.begin(name, size)
            model = {}
            assert kept.used() == 0
            continue
        part = kept.begin(name, size)
        while sum(model.values()) + size > limit:
            model.pop(next(iter(model)))
        model[name] = size
        part.write(bytes(size), 0)
        part.finish()
        os.utime(kept.path / f"{name}.tar", ns=(number, number))
        assert {path.stem: path.stat().st_size for path in kept.path.glob("*.tar")} == model


def test_many_processes_share_a_folder(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "sys.path[:0] = [sys.argv[3], sys.argv[3] + '/train']\n"
        "from test_cache import batches, CacheFolder\n"
        "found, _ = batches(sys.argv[1], CacheFolder(path=pathlib.Path(sys.argv[2]), limit=400_000), steps=30)\n"
        "print(sum(float(b.images['s2'].double().sum()) for b in found))"
    )
    with serving(folder) as (url, _):
        command = [sys.executable, "-c", code, url, str(tmp_path), str(Path(__file__).parents[1])]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        said = {process.communicate(timeout=200)[0] for process in running}
    wanted, _ = batches(str(folder), None, steps=30)
    assert said == {f"{sum(float(b.images['s2'].double().sum()) for b in wanted)}\n"}


def test_threads_end(folder: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with serving(folder) as (url, _):
        batches(url, CacheFolder(path=tmp_path, limit=10**9), steps=1)
    end_s = time.monotonic() + 5
    while _ours(before) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not _ours(before)


def _ours(before: set[threading.Thread]) -> set[str]:
    names = {thread.name for thread in set(threading.enumerate()) - before}
    return {name for name in names if name.startswith(("samples", "shards", "ranges"))}


def test_where_and_how_much(tmp_path: Path) -> None:
    assert cache_folder(str(tmp_path), 0) is None
    assert cache_folder(str(tmp_path), 1.5).limit == 1_500_000_000
    assert cache_folder(str(tmp_path), None).limit > 0
    assert cache_folder(None, None).path.name == f"sentinel-pretrain-{os.getuid()}"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="--cache"):
        cache_folder(str(tmp_path / "file"), None)
