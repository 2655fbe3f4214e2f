"""Readers of chips side by side: the same images behind the same server, the same chips, the same pixels.

    python tests/benchmarks/ingest.py                                    # makes .venv-peers-ingest on its first run
    python tests/benchmarks/ingest.py --peers --scenarios sparse random  # ours and the floor alone
    python tests/benchmarks/ingest.py --tables faults --rate 0.05
    python tests/benchmarks/ingest.py --tables ends                      # whole builds, from search to shards
    python tests/benchmarks/ingest.py --tables plan --chips 1000000

A chip is 264 px of two dates and three bands: six windows. Tables: `costs` of a chip, with a delay of each answer;
`ends`, whole builds of pairs from search to shards; `faults`, what comes through when requests fail; `parts`, how many
blocks the units of a full tile decode more than once; `plan`, what planning very many chips costs. `floor` decodes each
touched block once from local files, by one thread, and does nothing else. Nothing here is asserted; processor time is
that of the reader alone, and of whole processes in `ends`.
"""

import argparse
import contextlib
import json
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
from benchmarks.peers_ingest import ends, images, parts, plans
from benchmarks.peers_ingest.job import MARK
from benchmarks.peers_ingest.running import HERE, ask, environment, python, serving

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A reader."""

    script: str
    """In `peers_ingest/`."""
    package: str | None = None
    """Whose pins lie beside it; None: this environment."""
    way: str = ""
    """Of several."""


PEERS = {
    "floor": Peer(script="floor.py"),
    "ours": Peer(script="ours.py"),
    "rslearn": Peer(script="rsl.py", package="rslearn"),
    "odc-stac, chips": Peer(script="odcstac.py", package="odc-stac", way="chips"),
    "odc-stac, cube": Peer(script="odcstac.py", package="odc-stac", way="cube"),
    "stackstac, chips": Peer(script="stack.py", package="stackstac", way="chips"),
    "stackstac, cube": Peer(script="stack.py", package="stackstac", way="cube"),
}
OURS = ("floor", "ours")
"""Always measured."""


def main() -> None:
    """Measure and print."""
    asked = arguments().parse_args()
    asked.device = "cpu"
    for made in asked.tables:
        with tempfile.TemporaryDirectory(prefix="ingest-", dir=asked.temp) as folder:
            rows = []
            for row in TABLES[made](Path(folder), asked):
                print(json.dumps(row), file=sys.stderr, flush=True)  # a run of all takes an hour
                rows.append(row)
            report(rows, asked)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others, scenarios = [name for name in PEERS if name not in OURS], ["sparse", "random", "clustered", "grid", "edge"]
    parser.add_argument("--tables", nargs="+", choices=sorted(TABLES), default=["costs"])
    parser.add_argument("--peers", nargs="*", choices=others, default=others)
    parser.add_argument("--scenarios", nargs="+", choices=scenarios, default=scenarios)
    parser.add_argument("--blocks", nargs="+", type=int, choices=(512, 1024), default=[1024])
    parser.add_argument("--runs", type=int, default=1, help="of each; the fastest counts, time by the clock is a range")
    parser.add_argument("--delay", type=float, default=0.03, help="seconds before the first byte of an answer")
    parser.add_argument("--rate", type=float, default=0.05, help="share of requests that fail, of the table `faults`")
    parser.add_argument("--chips", type=int, default=1_000_000, help="of the table `plan`")
    parser.add_argument("--envs", type=Path, default=ROOT / ".venv-peers-ingest", help="folder of the environments")
    parser.add_argument("--earth", type=Path, help="folder of the table `ends`' images, made if it is not there")
    parser.add_argument("--temp", type=Path, help="folder for the images")
    parser.add_argument("--json", action="store_true", help="one line a table")
    return parser


def costs(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What a chip costs: one row for each reader, scenario and size of blocks."""
    for block in asked.blocks:
        with imaged(folder, block) as (url, items):
            for scenario in asked.scenarios:
                told = images.job(scenario, block, folder, items)
                for name in [*OURS, *asked.peers]:
                    if not (name == "floor" and scenario == "edge"):
                        label = {"scenario": scenario, "block": block, "reader": name}
                        yield label | costs_row([once(name, told, url, asked) for _ in range(asked.runs)])


def costs_row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run that took least processor time, and all by the clock."""
    best = min(runs, key=lambda run: float(run.get("cpu_s", 1e9)))
    if "error" in best:
        return {"CPU ms/chip": "", "chips/s": "", "requests/chip": "", "MB/chip": "", "peak MB": "", "wrong": "ended"}
    chips, walls = best["chips"], sorted(run["wall_s"] for run in runs if "wall_s" in run)
    return {
        "CPU ms/chip": round(best["cpu_s"] / chips * 1000, 1),
        "chips/s": " to ".join(f"{chips / wall:.1f}" for wall in sorted({walls[0], walls[-1]}, reverse=True)),
        "requests/chip": round(best["requests"] / chips, 2) or 0,
        "MB/chip": round(best["bytes"] / chips / 1e6, 2) or 0,
        "peak MB": round(best["peak"] / 1e6),
        "wrong": best["wrong"] + best["missing"] * 1000,
    }


def faults(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Who comes through when requests fail, and with which pixels."""
    with imaged(folder, asked.blocks[0]) as (url, items):
        told = images.job("clustered", asked.blocks[0], folder, items)
        for fault in ("503", "429", "cut", "403"):
            for name in ["ours", *asked.peers]:
                found = once(name, told, url, asked, faulty=f"fault={fault}&rate={asked.rate}")
                row = {"fault": fault, "reader": name, "failed requests": found["failed"]}
                yield row | {"outcome": found.get("error") or f"{found['wrong']} wrong", "s": round(found["wall_s"], 1)}


def once(name: str, told: Path, url: str, asked: argparse.Namespace, *, faulty: str = "") -> dict[str, Any]:
    """One run of a reader."""
    peer = PEERS[name]
    ask(f"{url}/-/set?delay={asked.delay}&{faulty}")
    command = [python(peer.package, asked.envs), str(HERE / peer.script), str(told), peer.way]
    try:
        done = subprocess.run(command, env=environment(), text=True, capture_output=True, timeout=900, check=True)
        found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK)).removeprefix(MARK))
    except subprocess.CalledProcessError as error:
        found = {"error": error.stderr.strip().splitlines()[-1][:60], "wall_s": 0.0}
    except subprocess.TimeoutExpired:
        found = {"error": "not done in 15 minutes", "wall_s": 900.0}
    return {**found, **ask(f"{url}/-/counts")}


@contextlib.contextmanager
def imaged(folder: Path, block: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of the images, and their items."""
    images.write(folder, block, "")
    with serving(folder) as url:
        yield url, images.write(folder, block, url)


TABLES = {"costs": costs, "ends": ends.table, "faults": faults, "parts": parts.table, "plan": plans.table}

if __name__ == "__main__":
    main()
