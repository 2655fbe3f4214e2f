"""Forward, backward and optimizer step of a recipe against this machine's matrix products.

    python tests/benchmarks/step.py --recipe base --batch 16 --precision no --threads 1
    python tests/benchmarks/step.py --recipe base large group_large temporal_large --fit --device cuda --compile

One row a recipe: samples/s, achieved operations per second as a share of what plain matrix products of the model's own
shapes reach in the same run, and memory. Measurements are interleaved and medians, because machines are noisy; nothing
here is asserted.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import Seconds, flags, largest, peak_bytes, report, reset_peak, timed

from train import flops
from train.batch import Batch
from train.models.blocks import compile_layers, set_recompute
from train.objective import CromaObjective, SatmaeObjective
from train.optim import adamw
from train.recipes import croma, satmae

RECIPES = {**croma.RECIPES, **satmae.RECIPES}
OBJECTIVES = {"croma": CromaObjective, "satmae": SatmaeObjective}
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}
PRODUCTS_S = 0.5
"""Seconds of matrix products beside each step."""


def main() -> None:
    """Measure and print."""
    asked = arguments().parse_args()
    if asked.fit and torch.device(asked.device).type == "cpu":
        sys.exit("error: --fit needs a GPU: a CPU's system kills what does not fit. Choose a batch.")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    report([measure(recipe, asked) for recipe in asked.recipe], asked)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = flags(__doc__)
    parser.add_argument("--recipe", nargs="+", choices=sorted(RECIPES), default=["tiny"])
    parser.add_argument("--batch", type=int, default=8, help="samples of a step on this device")
    parser.add_argument("--fit", action="store_true", help="the largest batch that the GPU holds")
    parser.add_argument("--precision", choices=sorted(DTYPES), help="the recipe's by default")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    return parser


def measure(recipe: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    run, device = RECIPES[recipe](), torch.device(asked.device)
    precision = asked.precision or run.precision
    batch = fitting(run, asked, precision) if asked.fit else asked.batch
    saved = saved_bytes(run, asked, precision)
    reset_peak(device)
    learn, update = stepper(run, asked, batch=batch, precision=precision)
    products, work = matmul(run, DTYPES[precision], device, batch)
    learn()
    update()
    times = [[timed(action, device) for action in (learn, update, products)] for _ in range(asked.steps)]
    row = {
        "recipe": recipe,
        "precision": "float32" if precision == "no" else precision,
        "batch": batch,
        "compiled": asked.compile,
        "recomputed": asked.recompute,
        **speeds(times, batch=batch, flop=flops.step(run.model) * batch, work=work),
        "activations MB/sample": round(saved / 1e6, 1),
        "peak memory MB": round(peak_bytes(device) / 1e6),
    }
    if device.type == "cuda":
        del row["share of busy time"]
    return row


def speeds(times: list[list[Seconds]], *, batch: int, flop: int, work: int) -> dict[str, Any]:
    """What follows from the times of forward and backward, of the update and of the matrix products."""
    learn, update, products = (
        Seconds(*map(statistics.median, zip(*part, strict=True))) for part in zip(*times, strict=True)
    )
    whole = learn.wall + update.wall
    return {
        "samples/s": round(batch / whole, 3),
        "GFLOP/sample": round(flop / batch / 1e9, 1),
        "GFLOP/s": round(flop / whole / 1e9, 1),
        "matmul GFLOP/s": round(work / products.wall / 1e9, 1),
        "share": f"{flop / whole / (work / products.wall):.0%}",
        "share of busy time": f"{flop / (learn.busy + update.busy) / (work / products.busy):.0%}",
        "share without update": f"{flop / learn.wall / (work / products.wall):.0%}",
        "update s": round(update.wall, 4),
    }


def fitting(run: Any, asked: argparse.Namespace, precision: str) -> int:
    """The largest batch of which a whole step fits."""

    def works(batch: int) -> bool:
        try:
            learn, update = stepper(run, asked, batch=batch, precision=precision)
            learn()
            update()
        except torch.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    return largest(works)


def stepper(
    run: Any, asked: argparse.Namespace, *, batch: int, precision: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step on random data: losses and gradient, and what the loop does with them."""
    objective = built(run, asked)
    optimizer = adamw(objective.module, run.optim)
    images = random_batch(run, batch, torch.device(asked.device))
    limit = math.inf if run.optim.grad_clip is None else run.optim.grad_clip

    def learn() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(objective, images, asked.device, precision).backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(objective.module.parameters(), limit)
        optimizer.step()

    return learn, update


def built(run: Any, asked: argparse.Namespace, *, compiled: bool = True) -> Any:
    """The objective on its device."""
    torch.manual_seed(0)
    objective = OBJECTIVES[run.objective](run.model, seed=0)
    objective.module.to(asked.device).train()
    set_recompute(objective.module, on=asked.recompute)
    if asked.compile and compiled:
        compile_layers(objective.module)
    return objective


def loss(objective: Any, batch: Batch, device: str, precision: str) -> torch.Tensor:
    """The loss of one batch, autocast as in training."""
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        return objective.losses(objective.module, batch).total


def random_batch(run: Any, rows: int, device: torch.device) -> Batch:
    """Uniform noise in the shapes of the recipe's stream."""
    side, frames = run.stream.image_px, (run.stream.frames,) if run.stream.frames else ()
    images = {
        name: torch.rand(rows, *frames, len(bands), side, side, device=device)
        for name, bands in run.stream.bands.items()
    }
    dates = torch.tensor([2020, 5, 10], device=device).expand(rows, *frames, 3) if frames else None
    ids = torch.arange(rows, device=device)
    keys = tuple(str(row) for row in range(rows))
    return Batch(
        images=images,
        dates_BT3=dates,
        keys=keys,
        hashes_B=torch.zeros(rows, dtype=torch.int64),
        sample_ids_B=ids,
        epochs_B=torch.zeros_like(ids),
        valid_B=torch.ones(rows, dtype=torch.bool, device=device),
    )


def matmul(run: Any, dtype: torch.dtype, device: torch.device, batch: int) -> tuple[Callable[[], None], int]:
    """The encoder's first MLP product and its two gradients, as in a step, again and again; and their operations."""
    rows, width = batch * run.kept_tokens, run.model.encoder_dim
    x = torch.randn(rows, width, device=device, dtype=dtype)
    w = torch.randn(4 * width, width, device=device, dtype=dtype)
    y = torch.randn(rows, 4 * width, device=device, dtype=dtype)

    def products(repeats: int = 1) -> None:
        for _ in range(repeats):
            torch.nn.functional.linear(x, w)
            y @ w
            y.T @ x

    products()
    repeats = math.ceil(PRODUCTS_S / timed(products, device).wall)
    return lambda: products(repeats), repeats * 3 * flops.linear(rows, width, 4 * width)


def saved_bytes(run: Any, asked: argparse.Namespace, precision: str) -> float:
    """Bytes per sample that autograd keeps: the slope over two batches, so that weights do not count."""
    objective, device = built(run, asked, compiled=False), torch.device(asked.device)

    def total(rows: int) -> int:
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            result = loss(objective, random_batch(run, rows, device), asked.device, precision)
        return sum(storage.nbytes() for storage in kept.values()) if result.requires_grad else 0

    return (total(3) - total(1)) / 2


if __name__ == "__main__":
    main()
