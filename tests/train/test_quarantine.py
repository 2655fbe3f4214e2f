"""`--on-corrupt quarantine`: others stand in, alike at every world size and after a kill; each is told once."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flaky_server import serving
from tiny_pairs import make_sample, write_pairs
from tiny_run import RUN, Failing, Killed, train

from pipeline import manifest
from pipeline.errors import CorruptShard
from pipeline.store import Store
from train import flags, options
from train.batch import Batch
from train.meter import read_rows, steady
from train.objective import CromaObjective
from train.progress import Reporter
from train.quarantine import FILE_NAME
from train.stream.config import Share
from train.stream.lanes import LanePlan
from train.stream.loader import Loader
from train.stream.normalise import constants, normalise
from train.stream.samples import Samples, open_samples
from train.stream.transforms import crop, placements, turn

pytestmark = pytest.mark.train
SHARDS = (("train", 100), ("val", 3), ("train", 40), ("train", 60))
BATCH = 40
STREAM = dataclasses.replace(RUN.stream, global_batch=BATCH)
LONGER = dataclasses.replace(RUN, stream=STREAM, steps=7)
"""200 samples: an epoch ends every 5 steps, and 2 samples may be damaged."""
FLIPPED, CUT = 20, 139
"""Sample ids: a flipped byte in the first shard; the last one of the second, which is cut there."""
DAMAGED = {FLIPPED, CUT}


def opened(store: Store) -> Samples:
    return open_samples(store, "train", kind="pair", bands=STREAM.bands)


def flip(store: Store, sample_id: int) -> None:
    shard, start = opened(store).place(sample_id)
    path = Path(store.path(shard))
    data = bytearray(path.read_bytes())
    data[start + 100] ^= 1
    path.write_bytes(data)


def cut(store: Store, sample_id: int) -> None:
    shard, start = opened(store).place(sample_id)
    path = Path(store.path(shard))
    path.write_bytes(path.read_bytes()[: start + 9])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_pairs(str(tmp_path_factory.mktemp("sound") / "data"), shards=SHARDS)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = write_pairs(str(tmp_path_factory.mktemp("damaged") / "data"), shards=SHARDS)
    flip(store, FLIPPED)
    cut(store, CUT)
    return store


def batches(store: Store, *, first: int = 0, stop: int = 7, world: int = 1) -> list[list[Batch]]:
    """What all ranks read in each step."""
    samples = opened(store)
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=BATCH, global_batch=BATCH, seed=0)
    ranks = []
    for rank in range(world):
        share = Share(rank=rank, world_size=world, threads=2, on_corrupt="quarantine")
        with Loader(samples, plan, STREAM, share=share, samples_consumed=first * BATCH) as loader:
            ranks.append([next(loader)[0] for _ in range(first, stop)])
    return [list(step) for step in zip(*ranks, strict=True)]


def same(one: list[Batch], two: list[Batch]) -> bool:
    joined = [{name: torch.cat([b.images[name] for b in parts]) for name in ("s1", "s2")} for parts in (one, two)]
    return (
        [key for b in one for key in b.keys] == [key for b in two for key in b.keys]
        and sorted(i for b in one for i in b.damaged) == sorted(i for b in two for i in b.damaged)
        and all(torch.equal(joined[0][name], joined[1][name]) for name in joined[0])
    )


def test_others_stand_in_and_nothing_else_changes(sound: Store, damaged: Store) -> None:
    stats = manifest.load_stats(damaged)
    plan = LanePlan(shard_sizes=opened(sound).shard_sizes, lanes=BATCH, global_batch=BATCH, seed=0)
    met = []
    for step, ((was,), (now,)) in enumerate(zip(batches(sound), batches(damaged), strict=True)):
        ids, epochs = plan.batch(step, 0, 1)
        cuts = placements(0, epochs, ids, chip_px=24, image_px=16, augment=STREAM.augment)
        assert was.damaged == ()
        assert was.sample_ids_B.tolist() == ids.tolist()
        assert set(now.damaged) == DAMAGED & set(ids.tolist())
        for row, one in enumerate(ids.tolist()):
            taken = int(now.sample_ids_B[row])
            assert (taken == one) == (one not in DAMAGED)
            assert taken not in DAMAGED
            assert now.keys[row] == make_sample(taken, 4).key
            if one not in DAMAGED:
                assert torch.equal(now.images["s2"][row], was.images["s2"][row])
                continue
            met.append((one, taken))
            image = torch.from_numpy(turn(crop(make_sample(taken, 24).s2, cuts[row]), cuts[row]).copy())
            wanted = normalise(image, constants(stats.s2, stats.s2.bands))
            assert torch.equal(now.images["s2"][row], wanted)
    assert {one for one, _ in met} == DAMAGED
    assert len({taken for _, taken in met}) == len(met), "all of them were the same one"


@pytest.mark.parametrize("world", [2, 5])
def test_the_same_at_every_world_size_and_after_a_resume(damaged: Store, world: int) -> None:
    whole = batches(damaged)
    assert all(map(same, batches(damaged, world=world), whole))
    assert all(map(same, batches(damaged, first=3, world=world), whole[3:]))


def test_where_everything_is_damaged_the_sample_itself_is_told(tmp_path: Path) -> None:
    store = write_pairs(str(tmp_path / "data"))
    for shard in opened(store).shards:
        Path(store.path(shard)).unlink()
    samples = opened(store)
    plan = LanePlan(shard_sizes=samples.shard_sizes, lanes=4, global_batch=8, seed=0)
    first = samples.key(int(plan.batch(0, 0, 1)[0][0]))
    share = Share(threads=1, on_corrupt="quarantine")
    with Loader(samples, plan, STREAM, share=share) as loader, pytest.raises(CorruptShard, match=f"{first} at byte"):
        next(loader)


def run(
    data: Store | str, out: Path, said: list[str], *, dies: int | None = None, resume: bool = False, **more: object
) -> Store:
    """A run of seven steps, saved at each, killed at its step `dies`."""
    make: Callable = (lambda: CromaObjective(RUN.model, seed=0)) if dies is None else (lambda: Failing(dies))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "say", lambda _, text: said.append(text))
        train(data, str(out), LONGER, make=make, resume=resume, on_corrupt="quarantine", **more)
    return Store.at(str(out))


def told(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("damaged")]


@pytest.mark.slow
def test_killed_and_resumed_rows_and_the_list_are_those_of_an_undisturbed_run(damaged: Store, tmp_path: Path) -> None:
    calm_said: list[str] = []
    said: list[str] = []
    calm = run(damaged, tmp_path / "calm", calm_said)
    for life in (2, 3):
        with pytest.raises(Killed):
            run(damaged, tmp_path / "stormy", said, dies=life, resume=True)
    stormy = run(damaged, tmp_path / "stormy", said, resume=True)
    assert [steady(row) for row in read_rows(stormy)] == [steady(row) for row in read_rows(calm)]
    assert stormy.read(FILE_NAME) == calm.read(FILE_NAME)
    listed = [json.loads(line) for line in calm.read(FILE_NAME).decode().splitlines()]
    assert {one["sample_id"] for one in listed} == DAMAGED
    places = {one: opened(damaged).place(one) for one in DAMAGED}
    for one in listed:
        assert (one["shard"], one["offset"]) == places[one["sample_id"]]
        assert one["key"] == make_sample(one["sample_id"], 4).key
    assert len(told(calm_said)) == len(told(said)) == 2
    for lines in (told(calm_said), told(said)):
        assert [json.loads(line[line.index("{") :]) for line in lines] == listed


@pytest.mark.slow
def test_rows_count_them_and_the_hash_is_of_what_was_learned_from(sound: Store, damaged: Store, tmp_path: Path) -> None:
    was, now = (read_rows(run(data, tmp_path / str(n), [])) for n, data in enumerate((sound, damaged)))
    counts = [len(batch.damaged) for (batch,) in batches(damaged)]
    assert sum(counts) >= len(DAMAGED)
    assert [row["quarantined"] for row in now] == counts
    assert [row["quarantined"] for row in was] == [0] * 7
    differs = [a["batch_hash"] != b["batch_hash"] for a, b in zip(was, now, strict=True)]
    assert differs == [count > 0 for count in counts]
    assert not Store.at(str(tmp_path / "0")).exists(FILE_NAME)


@pytest.mark.slow
def test_behind_a_server_and_a_cache_it_is_the_same(damaged: Store, tmp_path: Path) -> None:
    wanted = run(damaged, tmp_path / "folder", [])
    with serving(Path(damaged.path(""))) as (url, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.store._pause_s", lambda attempt: 0.0)
        found = run(url, tmp_path / "server", [], cache=str(tmp_path), cache_gb=1.0)
    assert [steady(row) for row in read_rows(found)] == [steady(row) for row in read_rows(wanted)]
    assert found.read(FILE_NAME) == wanted.read(FILE_NAME)
    assert max(row["pace"]["cache_hit_share"] for row in read_rows(found)) > 0


@pytest.mark.slow
def test_more_than_one_in_a_hundred_end_the_run(tmp_path: Path) -> None:
    data = write_pairs(str(tmp_path / "data"), shards=SHARDS)
    for one in (5, 105, 155):
        flip(data, one)
    said: list[str] = []
    with pytest.raises(CorruptShard, match=r"3 of 200 samples are damaged, .* bears 2"):
        run(data, tmp_path / "run", said)
    listed = (tmp_path / "run" / FILE_NAME).read_text().splitlines()
    assert len(listed) == len(told(said)) == 3
    assert len(read_rows(Store.at(str(tmp_path / "run")))) < 5


def test_by_default_the_first_one_ends_the_run(damaged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flags.parser("", ["tiny"]).get_default("on_corrupt") == options.Options(data="", out="").on_corrupt == "stop"
    monkeypatch.setattr(Reporter, "say", lambda *_: None)
    with pytest.raises(CorruptShard) as caught:
        train(damaged, str(tmp_path / "run"), LONGER)
    places = [(make_sample(one, 4).key, *opened(damaged).place(one)) for one in DAMAGED]
    assert any(f"{key} at byte {start} of {damaged.url}/{shard}" in str(caught.value) for key, shard, start in places)
    assert not (tmp_path / "run" / FILE_NAME).exists()
