"""Weak scaling: constant work for each process, on 1, 2 and 4 of them; and on paper to 1,000 ranks.

    python tests/benchmarks/scaling.py                                # the three tables
    python tests/benchmarks/scaling.py --tables paper --batch 64      # another share of each rank

`stream`: each process is a rank that reads its part of a data set that grows with the ranks. `ingest`: each makes units
of its own, as workers do. All begin at the same time, behind a first round that warms up. Where processors are fewer
than processes the samples/s of each must fall; processor time a sample tells whether the work grows. `paper`: what so
many ranks ask of store and network in a second or a step, and what is asked too much of first. Nothing is asserted.
"""

import argparse
import multiprocessing
import os
import queue
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import report

from pipeline import index
from pipeline.index import IndexRow, MemberRef
from train.recipes import croma
from train.recipes.run import parameters
from train.stream.cache import PART_BYTES
from train.stream.lanes import MAX_LANES

AREA, UNITS = (12.02, 48.0, 12.05, 48.018), 3
"""Of the ingest: one more unit warms up."""
WAIT_S = 600
NUMBER_BYTES, SAVED = 4, 3
"""float32; a weight and two moments."""


def main() -> None:
    """Measure and print."""
    asked = arguments().parse_args()
    asked.device, asked.threads = "cpu", 1
    for made in asked.tables:
        with tempfile.TemporaryDirectory(prefix="scaling-", dir=asked.temp) as folder:
            report(list(TABLES[made](Path(folder), asked)), asked)


def arguments() -> argparse.ArgumentParser:
    """The flags; the rates of `paper` are those of the machines that one has in mind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=sorted(TABLES), default=list(TABLES))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=512, help="of each process of `stream`")
    parser.add_argument("--chip-px", type=int, default=120)
    parser.add_argument("--steps", type=int, default=3, help="epochs that are measured")
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 8, 64, 240, 1000])
    parser.add_argument("--batch", type=int, default=512, help="of each rank")
    parser.add_argument("--rates", nargs=2, type=float, default=[3561, 1425], help="samples/s a rank, CROMA-B and -L")
    parser.add_argument("--sample-bytes", type=float, default=300_000, help="as stored")
    parser.add_argument("--data-samples", type=int, default=10_000_000, help="of the data set")
    parser.add_argument("--link", type=float, default=25.0, help="GB/s of a rank to the others")
    parser.add_argument("--store", type=float, default=100.0, help="GB/s of the store, to all")
    parser.add_argument("--store-requests", type=float, default=5500, help="requests/s that the store answers")
    parser.add_argument("--memory", type=float, default=141.0, help="GB of a rank")
    parser.add_argument("--temp", type=Path, help="folder for samples and images")
    parser.add_argument("--json", action="store_true", help="one line a table")
    return parser


# --- measured ----------------------------------------------------------------------------------------------------


def stream(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Reading: one row for each number of ranks."""
    from benchmarks.peers import shards

    for count in asked.processes:
        data = folder / str(count)
        shards.write(data, codec="b2", sizes=[64] * (count * asked.samples // 64 or 1), side=asked.chip_px)
        found = together(count, read_shards, data=str(data), samples=asked.samples, epochs=asked.steps)
        yield _row("stream", count, found, unit="sample")


def read_shards(rank: int, world: int, *, data: str, samples: int, epochs: int) -> Callable[[], int]:
    """One rank that has read an epoch; what reads some more and says how many samples it read."""
    from benchmarks.peers.meter import Asked, drain
    from benchmarks.peers.ours import Ours

    reader = Ours(Asked(job="speed", data=data, batch=min(64, samples), workers=1, rank=rank, world=world))
    drain(reader)
    return lambda: sum(drain(reader) for _ in range(epochs))


def ingest(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Making chips: one row for each number of workers."""
    import shapely

    from ingest.synthetic import make_earth

    dates = (UNITS + 1) * max(asked.processes)
    make_earth(folder / "earth", aoi=shapely.box(*AREA), noise=False, n_dates=dates)
    for count in asked.processes:
        prepare(folder, str(folder / str(count)), asked.chip_px)
        found = together(count, make_chips, folder=folder, out=str(folder / str(count)), chip_px=asked.chip_px)
        yield _row("ingest", count, found, unit="chip")


def prepare(folder: Path, out: str, chip_px: int) -> Any:
    """The work on a unit, and the units; the plan is made where there is none."""
    from benchmarks.peers_ingest.asking import plain_request

    from ingest import build
    from ingest.areas.aoi import parse_aoi
    from pipeline.store import Store

    areas = parse_aoi(",".join(map(str, AREA)))
    request = plain_request(areas=areas, catalog=str(folder / "earth" / "catalog.json"), chip_px=chip_px, block_px=0)
    store = Store.at(out)
    begun = store.exists("plan.parquet")
    plan = build.open_plan(store, request)
    if not begun:
        build._lay_out(store, plan)
    work = partial(build.run_unit, store=store, request=request, with_label=False, fingerprint=plan.fingerprint)
    return work, plan.units


def make_chips(rank: int, world: int, *, folder: Path, out: str, chip_px: int) -> Callable[[], int]:
    """One worker that has made a unit; what makes the next ones and says how many chips they have."""
    work, units = prepare(folder, out, chip_px)
    first, *mine = units[rank * (UNITS + 1) : (rank + 1) * (UNITS + 1)]
    work(first)
    return lambda: sum(sum(work(unit).counts.values()) for unit in mine)


def together(count: int, prepared: Callable[..., Callable[[], int]], **given: Any) -> list[dict[str, float]]:
    """What each of so many processes found: seconds by the clock and of the processor, and how much it did."""
    context = multiprocessing.get_context("spawn")
    meet, told = context.Barrier(count), context.Queue()
    started = [
        context.Process(target=_one, args=(partial(prepared, rank, count, **given), meet, told), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    try:
        return list(_heard(told, started))
    finally:
        for process in started:
            process.join(timeout=30)
            process.kill()


def _heard(told: Any, started: list[Any]) -> Iterator[dict[str, float]]:
    left = len(started)
    while left:
        try:
            yield told.get(timeout=1)
            left -= 1
        except queue.Empty:
            if any(process.exitcode for process in started):
                sys.exit("error: a process failed; what it said stands above")


def _one(prepared: Callable[[], Callable[[], int]], meet: Any, told: Any) -> None:
    work = prepared()
    meet.wait(timeout=WAIT_S)
    wall, busy = time.perf_counter(), time.process_time()
    done = work()
    told.put({"done": done, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - busy})


def _row(what: str, count: int, found: list[dict[str, float]], *, unit: str) -> dict[str, Any]:
    rates = [one["done"] / one["wall_s"] for one in found]
    return {
        "what": what,
        "processes": count,
        f"{unit}s each": round(statistics.mean(one["done"] for one in found)),
        f"{unit}s/s a process": round(statistics.median(rates), 1),
        f"{unit}s/s of all": round(sum(rates), 1),
        f"CPU ms a {unit}": round(1000 * statistics.median(one["cpu_s"] / one["done"] for one in found), 3),
    }


# --- on paper ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What so many ranks of CROMA ask for."""

    ranks: int
    """Each with its own GPU."""
    numbers: int
    """Trained ones."""
    width: int
    """Of a feature."""
    batch: int
    """Samples of a rank."""
    rate: float
    """Samples/s of a rank that nothing holds up."""
    sample_bytes: float
    """As stored."""

    @property
    def step_s(self) -> float:
        """Seconds of a step that nothing holds up."""
        return self.batch / self.rate

    @property
    def read_bytes_s(self) -> float:
        """From the store, by all ranks."""
        return self.ranks * self.rate * self.sample_bytes

    @property
    def reduce_bytes(self) -> float:
        """Sent by each rank in a step: a ring's all-reduce of the gradients."""
        return 2 * (self.ranks - 1) / self.ranks * NUMBER_BYTES * self.numbers

    @property
    def feature_bytes(self) -> float:
        """Sent by each rank in a step: both sensors' features of all ranks gathered, their gradients all-reduced."""
        everyone = 2 * self.ranks * self.batch * self.width * NUMBER_BYTES
        return 3 * (self.ranks - 1) / self.ranks * everyone

    @property
    def logit_bytes(self) -> float:
        """Held by each rank: its rows against everyone's, both ways, with their softmax."""
        return 4 * self.batch * (self.ranks * self.batch) * NUMBER_BYTES

    @property
    def saved_bytes(self) -> float:
        """A checkpoint's."""
        return SAVED * NUMBER_BYTES * self.numbers


def paper(_: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each recipe and number of ranks."""
    row_bytes = index_bytes(20_000) / 20_000
    for run, rate in zip((croma.base(), croma.large()), asked.rates, strict=True):
        for ranks in asked.ranks:
            demand = Demand(
                ranks=ranks,
                numbers=parameters(run),
                width=run.model.encoder_dim,
                batch=asked.batch,
                rate=rate,
                sample_bytes=asked.sample_bytes,
            )
            yield _paper_row(run.name, demand, asked, row_bytes * asked.data_samples)


def _paper_row(name: str, demand: Demand, asked: argparse.Namespace, index_size: float) -> dict[str, Any]:
    shares = used(demand, asked)
    worst = max(shares, key=lambda what: shares[what])
    return {
        "recipe": name,
        "ranks": demand.ranks,
        "store GB/s": round(demand.read_bytes_s / 1e9, 1),
        "requests/s": round(demand.read_bytes_s / PART_BYTES),
        "by sample": round(demand.ranks * demand.rate),
        "index at start GB": round(demand.ranks * index_size / 1e9, 1),
        "gradients GB/step": round(demand.reduce_bytes / 1e9, 2),
        "features GB/step": round(demand.feature_bytes / 1e9, 2),
        "logits GB": round(demand.logit_bytes / 1e9, 2),
        "checkpoint GB": round(demand.saved_bytes / 1e9, 1),
        "resume reads GB": round(demand.ranks * demand.saved_bytes / 1e9, 1),
        "first": f"{worst} {shares[worst]:.0%}",
    }


def used(demand: Demand, asked: argparse.Namespace) -> dict[str, float]:
    """The share of each thing that is in use all the time; above 1 it holds the ranks up, or cannot be."""
    return {
        "store bytes": demand.read_bytes_s / (asked.store * 1e9),
        "store requests": demand.read_bytes_s / PART_BYTES / asked.store_requests,
        "gradients": demand.reduce_bytes / (asked.link * 1e9) / demand.step_s,
        "features": demand.feature_bytes / (asked.link * 1e9) / demand.step_s,
        "logits": demand.logit_bytes / (asked.memory * 1e9),
        "lanes": demand.ranks / MAX_LANES,
    }


def index_bytes(rows: int) -> int:
    """Size of an index of so many rows with keys, places and checksums that are not alike."""
    draw = random.Random(0)
    return len(index.to_parquet([_index_row(draw, number) for number in range(rows)]))


def _index_row(draw: random.Random, number: int) -> IndexRow:
    names = ("s2", "s1", "mask", "json")
    places = {name: (draw.randrange(60_000_000), draw.randrange(500, 250_000), draw.getrandbits(32)) for name in names}
    cell = f"32633-r{draw.randrange(99999):05d}-c{draw.randrange(99999):05d}"
    return IndexRow(
        shard=f"shards/train/u{number // 200:05d}-0000.tar",
        key=f"{cell}-20230610t074621-{draw.getrandbits(32):08x}",
        split="train",
        group=cell[:14],
        lon=draw.uniform(-180, 180),
        lat=draw.uniform(-60, 80),
        time=datetime.fromtimestamp(1_600_000_000 + draw.randrange(10**8), UTC),
        gap_hours=draw.uniform(0, 72),
        cloud=draw.random(),
        shift=(draw.random(), draw.random()),
        members={name: MemberRef(offset=at, size=size, crc32c=check) for name, (at, size, check) in places.items()},
    )


TABLES: dict[str, Callable[[Path, argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "stream": stream,
    "ingest": ingest,
    "paper": paper,
}

if __name__ == "__main__":
    main()
