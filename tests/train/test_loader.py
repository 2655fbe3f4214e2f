"""Batches: the right samples, whole and in order; damage is told with its place; threads end."""

import dataclasses
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pairs import make_stack

from pipeline import index, manifest
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import BandMismatch, ContractError, CorruptShard, StreamError, UsageError
from pipeline.store import Store
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.normalise import constants, normalise
from train.stream.once import OncePlan
from train.stream.samples import Samples, open_samples
from train.stream.transforms import Augment, crop, frame_picks, placements, resize, turn

pytestmark = pytest.mark.train
CONFIG = StreamConfig(global_batch=8, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=16)


def opened(store: Store, split: str = "train") -> Samples:
    return open_samples(store, split, kind="pair", bands={"s1": S1_NAMES, "s2": S2_NAMES})


def loader(store: Store, config: StreamConfig = CONFIG, *, done: int = 0, **share: int) -> Loader:
    pairs = open_samples(store, "train", kind=config.kind, bands=config.bands)
    plan = LanePlan(shard_sizes=pairs.shard_sizes, lanes=4, global_batch=8, seed=7)
    return Loader(pairs, plan, config, share=Share(**share), samples_consumed=done)


def test_sample_ids_are_rows_of_the_split(pairs: Store, sample_of: Callable) -> None:
    train, val = opened(pairs), opened(pairs, "val")
    assert (train.samples, train.shard_sizes, val.shard_sizes) == (25, (7, 1, 12, 5), (3,))
    for one, number, first in ((train, 0, 0), (train, 13, 0), (train, 24, 0), (val, 2, 900)):
        wanted = sample_of(first + number, 24)
        chips = one.read(number)
        assert one.key(number) == wanted.key
        assert chips.meta is None
        np.testing.assert_array_equal(chips.images["s1"], wanted.s1)
        np.testing.assert_array_equal(chips.images["s2"], wanted.s2)


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
    cuts = placements(7, epochs, ids, chip_px=24, image_px=16, augment=Augment())
    for row, (number, cut) in enumerate(zip(ids, cuts, strict=True)):
        wanted = sample_of(int(number), 24)
        assert batch.keys[row] == wanted.key
        for name, stored, known in (("s1", wanted.s1, stats.s1), ("s2", wanted.s2, stats.s2)):
            image = torch.from_numpy(turn(crop(stored, cut), cut).copy())
            assert torch.equal(batch.images[name][row], normalise(image, constants(known, known.bands)))


def test_resuming_gives_what_would_have_come(pairs: Store) -> None:
    with loader(pairs) as whole:
        batches = [next(whole) for _ in range(7)]
    for done in (1, 3, 6):
        with loader(pairs, done=batches[done - 1][1].samples_consumed, threads=1, prefetch=0) as resumed:
            batch, state = next(resumed)
        assert state == batches[done][1]
        assert batch.keys == batches[done][0].keys
        assert torch.equal(batch.images["s2"], batches[done][0].images["s2"])


def test_ranks_share_the_batch(pairs: Store) -> None:
    with (
        loader(pairs) as one,
        loader(pairs, rank=0, world_size=2) as first,
        loader(pairs, rank=1, world_size=2) as last,
    ):
        for _ in range(4):
            whole, halves = next(one)[0], [next(first)[0], next(last)[0]]
            assert whole.keys == halves[0].keys + halves[1].keys
            assert torch.equal(whole.images["s1"], torch.cat([half.images["s1"] for half in halves]))
    with pytest.raises(StreamError, match=r"\[1, 2, 4\]"):
        loader(pairs, world_size=3)


def test_bands_are_chosen_by_name(pairs: Store) -> None:
    few = dataclasses.replace(CONFIG, s1_bands=("VH",), s2_bands=("B8A", "B02"))
    with loader(pairs) as whole, loader(pairs, few) as some:
        all_bands, chosen = next(whole)[0], next(some)[0]
    assert torch.equal(chosen.images["s1"], all_bands.images["s1"][:, 1:])
    assert torch.equal(chosen.images["s2"], all_bands.images["s2"][:, [8, 1]])
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
    np.testing.assert_array_equal(data.read(3).images["s2"], sample_of(3, 24).s2)
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


STACK = StreamConfig(global_batch=8, kind="stack", frames=3, s2_bands=("B04", "B02"), image_px=16)


def test_stacks_show_some_of_their_dates_in_order(stacks: Store) -> None:
    stats = manifest.load_stats(stacks)
    with loader(stacks, STACK) as batches:
        batch, _ = next(batches)
        ids, epochs = batches._plan.batch(0, 0, 1)
    cuts = placements(7, epochs, ids, chip_px=24, image_px=16, augment=Augment())
    picks = frame_picks(7, epochs, ids, stored=4, wanted=3)
    assert len({tuple(pick) for pick in picks}) > 1
    assert picks != frame_picks(8, epochs, ids, stored=4, wanted=3)
    assert picks != frame_picks(7, epochs + 1, ids, stored=4, wanted=3)
    for row, (number, cut, pick) in enumerate(zip(ids, cuts, picks, strict=True)):
        wanted = make_stack(int(number), 24)
        assert pick == sorted(set(pick))
        dates = [wanted.meta.acquired[frame] for frame in pick]
        assert batch.dates_BT3[row].tolist() == [[when.year, when.month, when.hour] for when in dates]
        image = torch.from_numpy(turn(crop(wanted.s2[pick][:, [2, 0]], cut), cut).copy())
        assert torch.equal(batch.images["s2"][row], normalise(image, constants(stats.s2, ("B04", "B02"))))
    assert set(batch.images) == {"s2"}


def test_all_dates_by_default(stacks: Store) -> None:
    with loader(stacks, dataclasses.replace(STACK, frames=None)) as batches:
        batch, _ = next(batches)
    assert batch.dates_BT3.shape == (8, 4, 3)
    assert batch.images["s2"].shape == (8, 4, 2, 16, 16)


@pytest.mark.parametrize("augment", [Augment(side_px=(9, 24)), Augment(area=(0.2, 1.0), symmetries=2)], ids=str)
def test_resized_crops_are_alike_for_both_sensors(pairs: Store, sample_of: Callable, augment: Augment) -> None:
    config = dataclasses.replace(CONFIG, augment=augment, scale="uint8")
    stats = manifest.load_stats(pairs)
    with loader(pairs, config) as batches:
        batch, _ = next(batches)
        ids, epochs = batches._plan.batch(0, 0, 1)
    cuts = placements(7, epochs, ids, chip_px=24, image_px=16, augment=augment)
    for row, (number, cut) in enumerate(zip(ids, cuts, strict=True)):
        stored = sample_of(int(number), 24)
        for name, chip, known in (("s1", stored.s1, stats.s1), ("s2", stored.s2, stats.s2)):
            whole = normalise(torch.from_numpy(chip), constants(known, known.bands), scale="uint8")
            wanted = turn(resize(torch.from_numpy(crop(whole.numpy(), cut).copy()), 16, 16).numpy(), cut)
            torch.testing.assert_close(batch.images[name][row], torch.from_numpy(wanted.copy()), atol=2e-6, rtol=0)


def test_a_sensor_that_is_not_wanted_is_not_read(pairs_at: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    store = pairs_at("memory://loader-s2-only")
    both = opened(store)
    only = open_samples(store, "train", kind="pair", bands={"s2": S2_NAMES})
    sizes = []
    real = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *call: sizes.append(call[3] - call[2]) or real(*call))
    assert set(both.read(3).images) == {"s1", "s2"}
    assert set(only.read(3).images) == {"s2"}
    assert sizes[1] == both.places["s2"].ref(3).size < sizes[0]


def test_stacks_and_pairs_are_told_apart(pairs: Store, stacks: Store) -> None:
    with pytest.raises(UsageError, match="--kind"):
        loader(pairs, STACK)
    with pytest.raises(UsageError, match="stack data set"):
        loader(stacks)
    with pytest.raises(UsageError, match="wants 5 dates"):
        loader(stacks, dataclasses.replace(STACK, frames=5))


def test_the_last_batch_of_a_pass_says_which_rows_count(pairs: Store) -> None:
    """25 samples in batches of 8 on two ranks: one row counts in the last batch, and it is rank 0's."""
    samples, plan = opened(pairs), OncePlan(shard_sizes=(7, 1, 12, 5), global_batch=8)
    counted = []
    for rank in (0, 1):
        with Loader(samples, plan, CONFIG, share=Share(rank=rank, world_size=2)) as batches:
            rows = [batch.valid_B.tolist() for batch, _ in batches]
        assert all(all(row) for row in rows[:-1])
        counted.append(rows[-1])
    assert counted == [[True, False, False, False], [False] * 4]
