"""Readers of shards side by side: the same samples, the same decoding, each reader in an environment of its own.

    python tests/benchmarks/stream.py                           # makes .venv-peers on its first run
    python tests/benchmarks/stream.py --peers --samples 256     # ours and the floor alone
    python tests/benchmarks/stream.py --tables --s3 ENDPOINT    # whole objects of a store

Three tables. What a sample costs, as tensors of raw values, shuffled, from the page cache: processor time of all
processes after an epoch that warms up, the clock, memory at its peak; `floor` is one thread that reads and
decodes, and nothing else. What each reader makes of 1,003 samples in 17 uneven shards on four ranks, and after an
interruption. What the order of a very large data set costs before the first batch. Nothing here is asserted.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import report
from benchmarks.orders import Order, batches, counted, partial, resumed
from benchmarks.peers import shards
from benchmarks.peers.fetch import MARK

HERE = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[2]
SAMPLES, WORLD, STOP, CHUNK = 1003, 4, 5, 59
"""Samples, ranks, batches before the interruption, samples of a shard of LitData and MosaicML streaming."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A reader."""

    script: str
    """In `peers/`."""
    package: str | None = None
    """Whose pins lie beside it; None: this environment."""
    variants: tuple[str, ...] = ("",)
    """Ways of reading whose cost is measured."""
    exact: tuple[str, ...] = ("",)
    """Ways of reading whose order is compared."""
    worlds: tuple[int, ...] = ()
    """Numbers of ranks on which it can go on."""
    writes: bool = False
    """Has a format of its own."""
    together: bool = False
    """Its ranks must be processes that meet."""


PEERS = {
    "floor": Peer(script="floor.py", exact=()),
    "ours": Peer(script="ours.py", variants=("", "normalised"), worlds=(4, 2, 8)),
    "webdataset": Peer(script="wds.py", package="webdataset"),
    "litdata": Peer(script="lit.py", package="litdata", exact=("", "drop_last=False"), worlds=(4, 2, 8), writes=True),
    "mosaicml": Peer(script="mds.py", package="mosaicml-streaming", worlds=(4, 2, 8), writes=True, together=True),
    "grain": Peer(script="grains.py", package="grain", exact=("processes",), worlds=(4,)),
    "torchdata": Peer(script="sdl.py", package="torchdata", worlds=(4,)),
}
OURS = ("floor", "ours")
"""Always measured."""
WITHOUT_STORE = ["costs", "orders", "plans"]
"""Tables that need no object store."""


def main() -> None:
    """Measure and print."""
    asked = arguments().parse_args()
    asked.threads, asked.device = asked.workers, "cpu"
    names = [*OURS, *asked.peers]
    pythons = {name: python(PEERS[name].package, asked.envs) for name in names}
    for made in [*asked.tables, *(["objects"] if asked.s3 else [])]:
        with tempfile.TemporaryDirectory(prefix="stream-", dir=asked.temp) as folder:
            report(list(TABLES[made](pythons, Path(folder), asked)), asked)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others = [name for name in PEERS if name not in OURS]
    parser.add_argument("--peers", nargs="*", choices=others, default=others)
    parser.add_argument("--tables", nargs="*", choices=WITHOUT_STORE, default=WITHOUT_STORE)
    parser.add_argument("--codecs", nargs="+", choices=("b2", "npy"), default=["b2", "npy"])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--chip-px", type=int, default=120)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="threads or processes of each reader")
    parser.add_argument("--steps", type=int, default=3, help="epochs that are measured; one more warms up")
    parser.add_argument("--envs", type=Path, default=ROOT / ".venv-peers", help="folder of the peers' environments")
    parser.add_argument("--temp", type=Path, help="folder for the samples (4 GB)")
    parser.add_argument(
        "--s3", help="endpoint of an object store, whose credentials are in the environment: one more table"
    )
    parser.add_argument("--objects", type=int, default=8, help="of 64 MB, that are written to and read from the store")
    parser.add_argument("--json", action="store_true", help="one line a table")
    return parser


def costs(pythons: dict[str, str], folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What a sample costs: one row for each way of reading."""
    sizes = [min(64, asked.samples)] * (asked.samples // 64 or 1)
    for codec in asked.codecs:
        data, floor = folder / codec, 0.0
        shards.write(data, codec=codec, sizes=sizes, side=asked.chip_px)
        common = {"data": str(data), "codec": codec, "batch": asked.batch, "workers": asked.workers}
        for name, executable in pythons.items():
            for label, found in speeds(name, executable, {**common, "epochs": asked.steps}):
                row = cost_row(label, codec, found, floor)
                floor = floor or row["CPU ms/sample"]
                yield row
        shutil.rmtree(data)


def speeds(name: str, executable: str, common: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A peer's ways of reading, each in a process of its own."""
    peer = PEERS[name]
    if peer.writes:
        run(executable, peer, [{**common, "job": "write"}])
    for variant in peer.variants:
        found = run(executable, peer, [{**common, "job": "speed", "variant": variant}])
        yield f"{name} {variant}".strip(), found[0]


def cost_row(name: str, codec: str, found: dict[str, Any], floor: float) -> dict[str, Any]:
    """Medians."""
    cpu_ms = statistics.median(found["cpu_s"]) * 1000
    return {
        "reader": name,
        "codec": codec,
        "CPU ms/sample": round(cpu_ms, 3),
        "times the floor": round(cpu_ms / floor, 2) if floor else 1.0,
        "samples/s": round(1 / statistics.median(found["wall_s"])),
        "private MB": round(found["private"] / 1e6),
        "with shared MB": round(found["all"] / 1e6),
    }


def orders(pythons: dict[str, str], folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What becomes of 1,003 samples on four ranks: one row for each way of reading."""
    shards.write(folder, codec="npy", sizes=shards.uneven(SAMPLES, 17), side=8)
    common = {"data": str(folder), "codec": "npy", "chunk": CHUNK}
    for name, executable in pythons.items():
        if PEERS[name].writes:
            run(executable, PEERS[name], [{**common, "job": "write"}])
        for way in PEERS[name].exact:
            label = {"reader": f"{name} {way}".strip()}
            yield label | order_row(executable, PEERS[name], {**common, "variant": way})


def order_row(executable: str, peer: Peer, common: dict[str, Any]) -> dict[str, Any]:
    """Two whole epochs, one that is interrupted where that can be, and what follows it."""
    job = {**common, "job": "exact", "batch": 16, "workers": 0}
    stopped = [{**job, "stop": STOP}] if peer.worlds else []
    none, two, *first = launch(executable, peer, [job, {**job, "workers": 2}, *stopped], WORLD)
    row = told(none, two)
    for world in (4, 2, 8):
        again = {**job, "resume": True, "batch": 16 * WORLD // world}
        found = launch(executable, peer, [again], world)[0] if world in peer.worlds else None
        row[f"resumed 4 to {world}"] = "-" if found is None else resumed(none, first[0], found, samples=SAMPLES)
    return row


def told(none: Order, two: Order) -> dict[str, Any]:
    """How often each sample came, without workers and with two."""
    columns = {
        "batches of each rank": batches,
        "missing": lambda order: counted(order, SAMPLES)[0],
        "twice": lambda order: counted(order, SAMPLES)[1],
        "smaller batches": lambda order: partial(order, 16),
    }
    return {name: f"{count(none)}, {count(two)}" for name, count in columns.items()}


def launch(executable: str, peer: Peer, jobs: list[dict[str, Any]], world: int) -> list[Order]:
    """The ranks' ids for each job: one process plays all ranks, or each has its own."""
    alone = [[{**job, "world": world, "ranks": list(range(world))} for job in jobs]]
    apart = [[{**job, "world": world, "ranks": [rank]} for job in jobs] for rank in range(world)]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    parts = apart if peer.together else alone
    running = [start(executable, peer, part, meeting if peer.together else {}) for part in parts]
    return [{rank: ids for part in job for rank, ids in part.items()} for job in zip(*map(end, running), strict=True)]


def plans(pythons: dict[str, str], folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The order of a very large data set, from nothing to one rank's first batch."""
    yield run(pythons["ours"], PEERS["ours"], [{"job": "plan", "data": str(folder)}])[0]


def objects(pythons: dict[str, str], folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What a GB of whole objects costs its reader, ours beside obstore, eight threads each."""
    env = {"AWS_ENDPOINT_URL": asked.s3}
    common = {"data": f"benchmark-{folder.name.lower().replace('_', '-')}", "batch": asked.objects, "workers": 8}
    job = {**common, "epochs": asked.steps}
    run(pythons["ours"], PEERS["ours"], [{**job, "job": "fill"}], env)
    try:
        theirs = run(python("obstore", asked.envs), Peer(script="objects.py"), [job], env)[0]
        found = run(pythons["ours"], PEERS["ours"], [{**job, "job": "objects"}], env)[0]
    finally:
        run(pythons["ours"], PEERS["ours"], [{**job, "job": "clear"}], env)
    yield from object_rows({"obstore": theirs, "ours": found})


def object_rows(found: dict[str, dict[str, list[float]]]) -> Iterator[dict[str, Any]]:
    """Medians, and how they compare with the first."""
    first: dict[str, float] = {}
    for name, times in found.items():
        seconds = {kind: statistics.median(each) for kind, each in times.items()}
        first = first or seconds
        yield {
            "reader": name,
            "MB/s": round(1000 / seconds["wall_s"]),
            "CPU s/GB": round(seconds["cpu_s"], 2),
            "share of the rate": round(first["wall_s"] / seconds["wall_s"], 2),
            "times the CPU": round(seconds["cpu_s"] / first["cpu_s"], 2),
        }


def run(executable: str, peer: Peer, jobs: list[dict[str, Any]], env: dict[str, str] | None = None) -> list[Any]:
    """Do jobs in one process."""
    return end(start(executable, peer, jobs, env or {}))


def start(executable: str, peer: Peer, jobs: list[dict[str, Any]], env: dict[str, str]) -> subprocess.Popen[str]:
    """Begin jobs in one process, one thread for each operation of torch."""
    command = [executable, str(HERE / peer.script), json.dumps(jobs)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[str]) -> list[Any]:
    """What a process found: its last lines."""
    try:
        printed, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    if process.returncode:
        sys.exit(f"error: {process.args}\n{errors[-4000:]}")
    return [json.loads(line.removeprefix(MARK)) for line in printed.splitlines() if line.startswith(MARK)]


def python(package: str | None, envs: Path) -> str:
    """The interpreter of a peer's environment, which is made if it is not there."""
    if package is None:
        return sys.executable
    pins, folder = HERE / f"{package}.txt", envs / package
    ready = folder / ".pins"
    if not ready.exists() or ready.read_text() != pins.read_text():
        uv = [sys.executable, "-m", "uv"] if shutil.which("uv") is None else ["uv"]
        env = {**os.environ, "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
        install = ["pip", "install", "--quiet", "--python", str(folder), "-r", str(pins)]
        for command in (["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], install):
            subprocess.run([*uv, *command], env=env, check=True, timeout=900)
        ready.write_text(pins.read_text())
    return str(folder / "bin" / "python")


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


TABLES = {"costs": costs, "orders": orders, "plans": plans, "objects": objects}

if __name__ == "__main__":
    main()
