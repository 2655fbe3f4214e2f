"""Forward, backward and optimizer step of a recipe against this machine's matrix products.

    python tests/benchmarks/step.py --recipe base --batch 8
    python tests/benchmarks/step.py --recipe group_large temporal_large --precision bf16 --compile --device cuda

One row a recipe: samples/s, achieved operations per second as a share of what plain matrix products of the model's own
shapes reach in the same run, and memory. Measurements are interleaved and medians, because machines are noisy; nothing
here is asserted.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from train import flops
from train.batch import Batch
from train.models.blocks import compile_layers, set_recompute
from train.objective import CromaObjective, SatmaeObjective
from train.optim import adamw
from train.recipes import croma, satmae

RECIPES = {**croma.RECIPES, **satmae.RECIPES}
OBJECTIVES = {"croma": CromaObjective, "satmae": SatmaeObjective}
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measure and print."""
    asked = flags().parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    rows = [measure(recipe, asked) for recipe in asked.recipe]
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "hardware": hardware(asked.device), "torch": torch.__version__}
    if asked.json:
        print(json.dumps({**facts, "rows": rows}))
        return
    print(", ".join(str(value) for value in facts.values()), f"{torch.get_num_threads()} threads", sep=", ")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


def flags() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", choices=sorted(RECIPES), default=["tiny"])
    parser.add_argument("--batch", type=int, default=8, help="samples of a step on this device")
    parser.add_argument("--steps", type=int, default=5, help="measured steps; one more warms up")
    parser.add_argument("--precision", choices=sorted(DTYPES), help="the recipe's by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def measure(recipe: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    run = RECIPES[recipe]()
    precision = asked.precision or run.precision
    device = torch.device(asked.device)
    step = stepper(run, asked, precision)
    products = matmul(run, DTYPES[precision], device, asked.batch)
    timed(step, device)
    base_bytes = peak_bytes(device, reset=True)
    step_s, rate = [], []
    for _ in range(asked.steps):
        step_s.append(timed(step, device))
        rate.append(products())
    seconds, peak = statistics.median(step_s), statistics.median(rate)
    achieved = flops.step(run.model) * asked.batch / seconds
    return {
        "recipe": recipe,
        "precision": "float32" if precision == "no" else precision,
        "batch": asked.batch,
        "compiled": asked.compile,
        "recomputed": asked.recompute,
        "samples/s": round(asked.batch / seconds, 3),
        "GFLOP/sample": round(flops.step(run.model) / 1e9, 1),
        "GFLOP/s": round(achieved / 1e9, 1),
        "matmul GFLOP/s": round(peak / 1e9, 1),
        "share": f"{achieved / peak:.0%}",
        "activations MB/sample": round(saved_bytes(run, asked, precision) / 1e6, 1),
        "peak memory MB": round(max(peak_bytes(device), base_bytes) / 1e6),
    }


def stepper(run: Any, asked: argparse.Namespace, precision: str) -> Callable[[], None]:
    """A whole training step on random data."""
    objective = built(run, asked)
    optimizer = adamw(objective.module, run.optim)
    batch = random_batch(run, asked.batch, torch.device(asked.device))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(objective, batch, asked.device, precision).backward()
        optimizer.step()

    return step


def built(run: Any, asked: argparse.Namespace) -> Any:
    """The objective on its device."""
    torch.manual_seed(0)
    objective = OBJECTIVES[run.objective](run.model, seed=0)
    objective.module.to(asked.device).train()
    set_recompute(objective.module, on=asked.recompute)
    if asked.compile:
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
    return Batch(images=images, dates_BT3=dates, keys=keys, sample_ids_B=ids, epochs_B=torch.zeros_like(ids))


def matmul(run: Any, dtype: torch.dtype, device: torch.device, batch: int) -> Callable[[], float]:
    """Measures operations per second of the encoder's first MLP product and of its two gradients, as in a step."""
    rows, width = batch * run.kept_tokens, run.model.encoder_dim
    x = torch.randn(rows, width, device=device, dtype=dtype)
    w = torch.randn(4 * width, width, device=device, dtype=dtype)
    y = torch.randn(rows, 4 * width, device=device, dtype=dtype)
    work = 3 * flops.linear(rows, width, 4 * width)
    repeats = max(1, int(2e10 / work)) if device.type == "cpu" else 50

    def products() -> None:
        for _ in range(repeats):
            torch.nn.functional.linear(x, w)
            y @ w
            y.T @ x

    products()
    return lambda: repeats * work / timed(products, device)


def timed(action: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call."""
    synchronise(device)
    began_s = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - began_s


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def saved_bytes(run: Any, asked: argparse.Namespace, precision: str) -> float:
    """Bytes per sample that autograd keeps: the slope over two batches, so that weights do not count."""
    plain = argparse.Namespace(**{**vars(asked), "compile": False})
    objective, device = built(run, plain), torch.device(asked.device)

    def total(rows: int) -> int:
        kept: dict[int, torch.Tensor] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            result = loss(objective, random_batch(replace(run), rows, device), asked.device, precision)
        found = sum(x.untyped_storage().nbytes() for x in kept.values())
        return found if result.requires_grad else 0

    return (total(3) - total(1)) / 2


def peak_bytes(device: torch.device, *, reset: bool = False) -> int:
    """Most memory so far: of the GPU since the last reset, or of this process."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = torch.cuda.max_memory_allocated(device)
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return found


def hardware(device: str) -> str:
    """What this ran on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    bf16 = "with" if any("avx512_bf16" in line for line in lines) else "without"
    return f"{model}, {bf16} bfloat16 instructions"


if __name__ == "__main__":
    main()
