"""Training from shards on a device: what the reader lets of the step's speed through.

    python tests/benchmarks/feed.py --recipe base --batch 512 --threads 4 8 16 --chip-px 264
    python tests/benchmarks/feed.py --recipe base --batch 512 --threads 4 --processes 0 1 2 3
    python tests/benchmarks/feed.py --recipe tiny --batch 16 --chip-px 120 --threads 2 --steps 20

Each row is a run of `train.job` on pairs that it made before: no accelerate launch, no checkpoint but the last. The
shards are in the page cache. Medians of the second half of the steps; nothing here is asserted.
"""

import argparse
import dataclasses
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import report
from benchmarks.peers import shards

from pipeline.store import Store
from train.job import fit
from train.meter import read_rows
from train.objective import CromaObjective
from train.options import Options
from train.recipes import croma

TOLD = ("samples_per_s", "data_wait_share", "mfu", "memory_mb")


def main() -> None:
    """Measure and print."""
    asked = arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="feed-") as folder:
        data = Path(folder) / "data"
        shards.write(data, codec=asked.codec, sizes=[64] * (asked.samples // 64), side=asked.chip_px)
        report([row(asked, folder, each) for each in runs(asked)], asked)


class Run(NamedTuple):
    """What is compared."""

    compiled: bool
    processes: int
    """That read; 0: threads of the trainer do."""
    threads: int
    """In each of them."""


def runs(asked: argparse.Namespace) -> Iterator[Run]:
    """Every combination that was asked for."""
    compiled = (False, True) if asked.compile else (False,)
    return itertools.starmap(Run, itertools.product(compiled, asked.processes, asked.threads))


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(croma.RECIPES), default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[4], help="readers of each process, one row for each number"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[0], help="that read; 0: threads of the trainer do")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=512, help="in shards of 64")
    parser.add_argument("--chip-px", type=int, default=264)
    parser.add_argument("--codec", choices=("b2", "npy"), default="b2")
    parser.add_argument("--compile", action="store_true", help="with and without")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help=argparse.SUPPRESS)
    return parser


def row(asked: argparse.Namespace, folder: str, run: Run) -> dict[str, Any]:
    """One run."""
    out = f"{folder}/run-{run.processes}-{run.threads}-{run.compiled}"
    recipe = croma.RECIPES[asked.recipe]()
    stream = dataclasses.replace(recipe.stream, global_batch=asked.batch)
    recipe = dataclasses.replace(recipe, stream=stream, steps=asked.steps)
    make: Callable[[], Any] = lambda: CromaObjective(recipe.model, seed=0)  # noqa: E731 - a name for its type
    readers: dict[str, Any] = {"threads": run.threads, "reader_processes": run.processes}
    options = Options(data=f"{folder}/data", out=out, checkpoint_every=10**6, compile=run.compiled, **readers)
    fit(recipe, options, objective=make)
    paces = [line["pace"] for line in read_rows(Store.at(out))[asked.steps // 2 :]]
    told = {name: [pace[name] for pace in paces] for name in TOLD}
    return {
        "recipe": asked.recipe,
        "batch": asked.batch,
        "chip px": asked.chip_px,
        "codec": asked.codec,
        "compiled": run.compiled,
        "processes": run.processes,
        "readers": run.threads,
        **{name: None if None in values else round(statistics.median(values), 3) for name, values in told.items()},
    }


if __name__ == "__main__":
    main()
