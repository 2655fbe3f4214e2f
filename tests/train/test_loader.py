"""Batches: the right samples, whole and in order; damage is told with its place; threads end."""

import dataclasses
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import index, manifest
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import BandMismatch, ContractError, CorruptShard, StreamError, UsageError
from pipeline.store import Store
from train.stream.lanes import LanePlan
from train.stream.loader import PairLoader, Share, StreamConfig
from train.stream.pairs import Pairs, open_pairs
from train.stream.transforms import constants, normalise, place, placements

pytestmark = pytest.mark.train
CONFIG = StreamConfig(global_batch=8, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16)


def opened(store: Store, split: str = "train") -> Pairs:
    return open_pairs(store, split, s1_bands=S1_NAMES, s2_bands=S2_NAMES)


def loader(store: Store, config: StreamConfig = CONFIG, *, done: int = 0, **share: int) -> PairLoader:
    pairs = open_pairs(store, "train", s1_bands=config.s1_bands, s2_bands=config.s2_bands)
    plan = LanePlan(shard_sizes=pairs.shard_sizes, lanes=4, global_batch=8, seed=7)
    return PairLoader(pairs, plan, config, share=Share(**share), samples_consumed=done)


def test_sample_ids_are_rows_of_the_split(pairs: Store, sample_of: Callable) -> None:
    train, val = opened(pairs), opened(pairs, "val")
    assert (train.samples, train.shard_sizes, val.shard_sizes) == (25, (7, 1, 12, 5), (3,))
    for one, number, first in ((train, 0, 0), (train, 13, 0), (train, 24, 0), (val, 2, 900)):
        wanted = sample_of(first + number, 24)
        s1, s2 = one.read(number)
        assert one.key(number) == wanted.key
        np.testing.assert_array_equal(s1, wanted.s1)
        np.testing.assert_array_equal(s2, wanted.s2)


@pytest.mark.parametrize(("url", "codec"), [("memory://loader-b2", "b2"), ("memory://loader-npy", "npy")])
def test_batches_are_the_plan_s_samples(pairs_at: Callable, sample_of: Callable, url: str, codec: str) -> None:
    store = pairs_at(url, codec=codec)
    stats = manifest.load_stats(store)
    with loader(store) as batches:
        batch, state = next(batches)
        ids, epochs = batches._plan.batch(0, 0, 1)
    assert state.samples_consumed == 8
    assert batch.sample_ids_B.tolist() == ids.tolist()
    assert batch.epochs_B.tolist() == epochs.tolist()
    for row, (number, cut) in enumerate(zip(ids, placements(7, epochs, ids, slack_px=8), strict=True)):
        wanted = sample_of(int(number), 24)
        assert batch.keys[row] == wanted.key
        for got, stored, known in ((batch.s1_BCHW, wanted.s1, stats.s1), (batch.s2_BCHW, wanted.s2, stats.s2)):
            image = torch.from_numpy(place(stored, cut, 16).copy())[None]
            assert torch.equal(got[row], normalise(image, constants(known, known.bands))[0])


def test_resuming_gives_what_would_have_come(pairs: Store) -> None:
    with loader(pairs) as whole:
        batches = [next(whole) for _ in range(7)]
    for done in (1, 3, 6):
        with loader(pairs, done=batches[done - 1][1].samples_consumed, threads=1, prefetch=0) as resumed:
            batch, state = next(resumed)
        assert state == batches[done][1]
        assert batch.keys == batches[done][0].keys
        assert torch.equal(batch.s2_BCHW, batches[done][0].s2_BCHW)


def test_ranks_share_the_batch(pairs: Store) -> None:
    with (
        loader(pairs) as one,
        loader(pairs, rank=0, world_size=2) as first,
        loader(pairs, rank=1, world_size=2) as last,
    ):
        for _ in range(4):
            whole, halves = next(one)[0], [next(first)[0], next(last)[0]]
            assert whole.keys == halves[0].keys + halves[1].keys
            assert torch.equal(whole.s1_BCHW, torch.cat([half.s1_BCHW for half in halves]))
    with pytest.raises(StreamError, match=r"\[1, 2, 4\]"):
        loader(pairs, world_size=3)


def test_bands_are_chosen_by_name(pairs: Store) -> None:
    few = dataclasses.replace(CONFIG, s1_bands=("VH",), s2_bands=("B8A", "B02"))
    with loader(pairs) as whole, loader(pairs, few) as some:
        all_bands, chosen = next(whole)[0], next(some)[0]
    assert torch.equal(chosen.s1_BCHW, all_bands.s1_BCHW[:, 1:])
    assert torch.equal(chosen.s2_BCHW, all_bands.s2_BCHW[:, [8, 1]])
    with pytest.raises(BandMismatch, match="B10"):
        loader(pairs, dataclasses.replace(CONFIG, s2_bands=("B10",)))


def test_one_read_a_sample(pairs_at: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(pairs_at("memory://loader-reads"))
    calls = []
    real = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *call: calls.append(call) or real(*call))
    data.read(3)
    assert len(calls) == 1


def test_damage_on_the_way_is_read_again(
    pairs_at: Callable, sample_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(pairs_at("memory://loader-flaky"))
    real, calls = Store.read_range, []

    def flaky(store: Store, name: str, start: int, stop: int) -> bytes:
        calls.append(name)
        good = real(store, name, start, stop)
        return good[:-40] if len(calls) == 1 else good

    monkeypatch.setattr(Store, "read_range", flaky)
    np.testing.assert_array_equal(data.read(3)[1], sample_of(3, 24).s2)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_in_the_store_is_told_with_its_place(pairs_at: Callable, tmp_path: Path, damage: str) -> None:
    store = pairs_at(str(tmp_path / "data"))
    table = index.from_parquet(store.read("index.parquet"), where="")
    row = {name: column[20].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}
    path = Path(store.path(row["shard"]))
    data = bytearray(path.read_bytes())
    data[row["s1_offset"] + 5] ^= 1
    path.write_bytes(data if damage == "flip" else data[: row["s1_offset"] + 9])
    if damage == "remove":
        path.unlink()
    with loader(store) as batches, pytest.raises(CorruptShard) as caught:
        list(itertools.islice(batches, 4))
    assert row["shard"] in str(caught.value)
    if damage == "flip":
        assert row["key"] in str(caught.value)
        assert f"byte {row['s2_offset']}" in str(caught.value)


def test_closing_ends_the_threads(pairs: Store) -> None:
    before = set(threading.enumerate())
    batches = loader(pairs, threads=3, prefetch=4)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert not set(threading.enumerate()) - before


def test_what_cannot_be_read_is_refused(pairs: Store, pairs_at: Callable, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished data set"):
        opened(Store.at(str(tmp_path)))
    with pytest.raises(UsageError, match="0 samples in 'test'"):
        opened(pairs, "test")
    with pytest.raises(UsageError, match="too small"):
        loader(pairs, dataclasses.replace(CONFIG, image_px=32))
    store = pairs_at("memory://loader-other-index")
    store.publish("index.parquet", pairs_at("memory://loader-x", shards=(("train", 9),)).read("index.parquet"))
    with pytest.raises(ContractError, match="not the one"):
        opened(store)
