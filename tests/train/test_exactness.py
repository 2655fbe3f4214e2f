"""1,003 samples in 17 uneven shards on four ranks: nothing missing, repeated or partial, and resumed as if undisturbed.

The peers' rows of this table: `python tests/benchmarks/stream.py --tables orders`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import webdataset
from benchmarks import orders
from benchmarks.orders import Order
from benchmarks.peers import shards

from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.store import Store
from train.stream.config import Share, StreamConfig
from train.stream.lanes import LanePlan, default_lanes
from train.stream.loader import Loader
from train.stream.samples import open_samples

pytestmark = pytest.mark.train
SAMPLES, SHARDS, WORLD, ROWS, EPOCHS = 1003, 17, 4, 16, 2
CONFIG = StreamConfig(global_batch=WORLD * ROWS, s1_bands=S1_NAMES, s2_bands=S2_NAMES, image_px=8)
STEPS = -(-EPOCHS * SAMPLES // CONFIG.global_batch)
STOP = 21
"""Steps before the interruption: in the middle of the second epoch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact")
    shards.write(folder, codec="npy", sizes=shards.uneven(SAMPLES, SHARDS), side=8)
    return folder


def read(data: Path, *, world: int = WORLD, first: int = 0, stop: int = STEPS) -> Order:
    """What each of `world` ranks reads in the steps from `first` to `stop`."""
    samples = open_samples(Store.at(data), "train", kind="pair", bands=CONFIG.bands)
    lanes = default_lanes(CONFIG.global_batch, samples.samples)
    sizes = {"shard_sizes": samples.shard_sizes, "lanes": lanes, "global_batch": CONFIG.global_batch}
    done = first * CONFIG.global_batch
    order: Order = {rank: [] for rank in range(world)}
    with ExitStack() as stack:
        for rank, own in order.items():
            share = Share(rank=rank, world_size=world, threads=1)
            loader = stack.enter_context(
                Loader(samples, LanePlan(**sizes, seed=7), CONFIG, share=share, samples_consumed=done)
            )
            for _ in range(first, stop):
                batch, _ = next(loader)
                assert batch.keys == tuple(f"{one:06d}" for one in batch.sample_ids_B.tolist())
                own.append((batch.sample_ids_B + batch.epochs_B * SAMPLES).tolist())
    return order


@pytest.fixture(scope="module")
def whole(data: Path) -> Order:
    return read(data)


def test_nothing_is_missing_repeated_or_partial(whole: Order) -> None:
    for epochs in range(1, EPOCHS + 1):
        assert orders.counted(whole, epochs * SAMPLES) == (0, 0)
    assert orders.partial(whole, ROWS) == 0
    assert orders.batches(whole) == "32/32/32/32"


@pytest.mark.parametrize("world", [4, 2, 8])
def test_resumed_within_an_epoch_it_reads_what_was_left(data: Path, whole: Order, world: int) -> None:
    first, rest = read(data, stop=STOP), read(data, world=world, first=STOP)
    told = orders.resumed(whole, first, rest, samples=EPOCHS * SAMPLES)
    assert told == f"{STEPS - STOP} of {STEPS - STOP} the same, 0 missing, 0 twice"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the collector
def test_webdataset_deals_the_same_shards_to_its_ranks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample comes once there, too; how many batches a rank gets is webdataset's affair (18/16/16/15 measured)."""
    order: Order = {}
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))
    for rank in range(WORLD):
        monkeypatch.setenv("RANK", str(rank))
        urls = sorted(map(str, (data / "shards/train").iterdir()))
        samples = webdataset.WebDataset(urls, shardshuffle=100, nodesplitter=webdataset.split_by_node, seed=7)
        order[rank] = [[int(sample["__key__"])] for sample in samples]
    assert orders.counted(order, SAMPLES) == (0, 0)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda order: order[1].pop(), (1, 0)),
        (lambda order: order[1].append(order[0][0]), (0, 2)),
        (lambda order: order[0][0].pop(), (1, 0)),
    ],
)
def test_the_measures_see_what_is_wrong(damage: Callable[[Order], object], told: tuple[int, int]) -> None:
    order: Order = {0: [[0, 1], [4, 5]], 1: [[2, 3], [6]]}
    assert orders.counted(order, 7) == (0, 0)
    assert orders.partial(order, 2) == 1
    damage(order)
    assert orders.counted(order, 7) == told
    assert orders.global_batches({0: [[0, 1], [4]], 1: [[3, 2]]}) == [[0, 1, 2, 3], [4]]


def test_a_resume_that_goes_wrong_is_seen() -> None:
    whole, first = {0: [[0, 1], [4, 5]], 1: [[2, 3], [6]]}, {0: [[0, 1]], 1: [[2, 3]]}
    assert orders.global_batches({0: [[0, 1], [4]], 1: [[3, 2]]}) == [[0, 1, 2, 3], [4]]
    for rest, told in (
        ({0: [[6, 4, 5]]}, "1 of 1 the same, 0 missing, 0 twice"),
        ({0: [[4, 6]], 1: [[7]]}, "0 of 1 the same, 1 missing, 0 twice"),
        ({0: [[4, 5]], 1: [[3, 6]]}, "0 of 1 the same, 0 missing, 1 twice"),
    ):
        assert orders.resumed(whole, first, rest, samples=7) == told
