"""The order of samples: exactly once an epoch, the same on every world size, found without replaying."""

import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StreamError
from train.stream.lanes import LanePlan, default_lanes, divisors, permutation
from train.stream.once import OncePlan

pytestmark = pytest.mark.train


@st.composite
def plans(draw: st.DrawFn) -> LanePlan:
    lanes = draw(st.integers(1, 24))
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= lanes))
    return LanePlan(
        shard_sizes=tuple(sizes),
        lanes=lanes,
        global_batch=lanes * draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 2**40)),
        window=draw(st.integers(1, 4)),
    )


def stream(plan: LanePlan, steps: range, world_size: int = 1) -> list[list[tuple[int, int]]]:
    """(epoch, sample) of each step, ranks joined."""
    out = []
    for step in steps:
        parts = [plan.batch(step, rank, world_size) for rank in range(world_size)]
        ids, epochs = (np.concatenate(part) for part in zip(*parts, strict=True))
        out.append(list(zip(epochs.tolist(), ids.tolist(), strict=True)))
    return out


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 4))
def test_every_sample_exactly_once_an_epoch(plan: LanePlan, epochs: int) -> None:
    steps = -(-epochs * plan.samples // plan.global_batch)
    seen = Counter(pair for batch in stream(plan, range(steps)) for pair in batch)
    assert max(seen.values()) == 1
    for epoch in range(epochs):
        assert {sample for e, sample in seen if e == epoch} == set(range(plan.samples))


@settings(max_examples=100, deadline=None)
@given(plans(), st.integers(0, 1000))
def test_the_global_batch_is_the_same_at_every_world_size(plan: LanePlan, first: int) -> None:
    wanted = stream(plan, range(first, first + 3))
    for world_size in divisors(plan.lanes):
        assert stream(plan, range(first, first + 3), world_size) == wanted


@settings(max_examples=40, deadline=None)
@given(plans(), st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_any_step_is_found_without_replaying(plan: LanePlan, jumps: list[int]) -> None:
    """A fresh plan, and one that jumps about, give what one that reads from the start gives."""
    replayed = stream(plan, range(max(jumps) + 1))
    fresh = LanePlan(
        shard_sizes=plan.shard_sizes,
        lanes=plan.lanes,
        global_batch=plan.global_batch,
        seed=plan.seed,
        window=plan.window,
    )
    for step in jumps:
        assert stream(fresh, range(step, step + 1)) == replayed[step : step + 1]


@settings(max_examples=50, deadline=None)
@given(plans(), st.integers(0, 20))
def test_lanes_are_of_equal_length_and_cover_the_line(plan: LanePlan, epoch: int) -> None:
    cuts = [plan._cut(epoch, lane) for lane in range(plan.lanes + 1)]
    assert (cuts[0], cuts[-1]) == (0, plan.samples)
    assert set(np.diff(cuts)) <= {plan.samples // plan.lanes, -(-plan.samples // plan.lanes)}


def test_epochs_and_seeds_differ_and_no_batch_keeps_the_stored_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        plan = LanePlan(shard_sizes=(30,) * 8, lanes=4, global_batch=8, seed=seed)
        return [sample for batch in stream(plan, range(epoch * 30, epoch * 30 + 30)) for _, sample in batch]

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    assert order(0, 0) == order(0, 0)
    steps = np.diff(order(0, 0))
    assert (np.abs(steps) > 1).mean() > 0.8


def test_a_batch_mixes_as_many_shards_as_iid_sampling() -> None:
    plan = LanePlan(shard_sizes=(500,) * 200, lanes=240, global_batch=720, seed=3)
    shards = [len(np.unique(plan.batch(step, 0, 1)[0] // 500)) for step in (0, 50, 100)]
    iid = 200 * (1 - (1 - 1 / 200) ** 720)
    assert min(shards) > 0.7 * iid


def test_first_order_is_frozen() -> None:
    """A change here needs a new PLAN_VERSION: old checkpoints would resume into another order."""
    plan = LanePlan(shard_sizes=(3, 7, 1, 12), lanes=4, global_batch=8, seed=1)
    assert [plan.batch(step, 0, 1)[0].tolist() for step in (0, 3)] == FROZEN


FROZEN = [[1, 7, 6, 10, 13, 11, 14, 21], [4, 5, 7, 1, 20, 12, 22, 13]]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1000])
def test_permutation_is_one(size: int) -> None:
    assert sorted(permutation(size, 1, "a", 2)) == list(range(size))


def test_a_large_plan_is_light() -> None:
    """10^8 samples in 10^4 shards over 10^3 lanes, far into the run."""
    tracemalloc.start()
    began_s = time.process_time()
    plan = LanePlan(shard_sizes=np.full(10_000, 10_000), lanes=1000, global_batch=4000, seed=1)
    ids, _ = plan.batch(1_234_567, 0, 1)
    seconds = time.process_time() - began_s
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(ids.tolist())) == 4000
    assert peak < 200e6
    assert seconds < 3, "0.6 s measured; tracing doubles it"


@pytest.mark.parametrize(
    ("world_size", "names"), [(5, "[1, 2, 3, 4, 6, 12]"), (24, "[1, 2, 3, 4, 6, 12]"), (0, "12 lanes")]
)
def test_an_illegal_world_size_names_the_legal_ones(world_size: int, names: str) -> None:
    plan = LanePlan(shard_sizes=(20, 20), lanes=12, global_batch=24, seed=0)
    with pytest.raises(StreamError) as caught:
        plan.batch(0, 0, world_size)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "lanes", "batch", "message"),
    [((3, 2), 8, 8, "5 samples cannot fill 8 lanes"), ((30,), 8, 12, "evenly"), ((30,), 0, 8, "1 or more")],
)
def test_an_unfair_plan_is_refused(sizes: tuple[int, ...], lanes: int, batch: int, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        LanePlan(shard_sizes=sizes, lanes=lanes, global_batch=batch, seed=0)


def test_default_lanes() -> None:
    assert default_lanes(7200, 10**6) == 240
    assert default_lanes(16, 25) == 16
    assert default_lanes(16, 11) == 8
    assert default_lanes(514, 10**6) == 2


@given(plans(), st.integers(0, 40))
def test_the_shards_of_a_step_hold_its_samples(plan: LanePlan, step: int) -> None:
    for world_size in divisors(plan.lanes):
        for rank in range(world_size):
            ids, _ = plan.batch(step, rank, world_size)
            bounds = np.cumsum(plan.shard_sizes)
            read = set(np.searchsorted(bounds, ids, "right").tolist())
            near = plan.shards(step, rank, world_size)
            assert read <= set(near)
            assert len(near) == len(set(near)) <= len(plan.shard_sizes)


def test_no_more_shards_than_a_window_of_each_lane() -> None:
    plan = LanePlan(shard_sizes=(500,) * 200, lanes=10, global_batch=20, seed=3)
    assert all(len(plan.shards(step, 0, 1)) <= 10 * 3 for step in range(0, 9000, 500))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_one_pass_holds_every_sample_once(world_size: int) -> None:
    plan = OncePlan(shard_sizes=(7, 1, 12, 5), global_batch=8)
    seen = []
    for step in range(plan.steps):
        rows = [plan.batch(step, rank, world_size)[0] for rank in range(world_size)]
        valid = [plan.valid(step, rank, world_size) for rank in range(world_size)]
        assert {len(some) for some in rows} == {8 // world_size}
        seen += np.concatenate(rows)[np.concatenate(valid)].tolist()
        shards = {int(np.searchsorted([7, 8, 20, 25], one, "right")) for one in np.concatenate(rows)}
        assert shards == set().union(*(plan.shards(step, rank, world_size) for rank in range(world_size)))
    assert seen == list(range(25))
    with pytest.raises(StreamError, match="batches of 8 cannot be shared by 3"):
        plan.check_world_size(3)


@pytest.mark.parametrize(("limit", "wanted"), [(5, [0, 5, 10, 15, 20]), (1, [0]), (99, list(range(25)))])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_pass_over_a_few_takes_them_from_everywhere(limit: int, wanted: list[int], world_size: int) -> None:
    plan = OncePlan(shard_sizes=(7, 1, 12, 5), global_batch=4, limit=limit)
    seen = []
    for step in range(plan.steps):
        for rank in range(world_size):
            ids, valid = plan.batch(step, rank, world_size)[0], plan.valid(step, rank, world_size)
            seen += ids[valid].tolist()
    assert seen == plan.ids.tolist() == wanted
    assert plan.samples == len(wanted)
