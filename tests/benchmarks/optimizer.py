"""A step of AdamW over a recipe's parameters: fused, foreach and a plain loop.

    python tests/benchmarks/optimizer.py --recipe base

Measurements are interleaved medians.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.machine import flags, report, timed
from benchmarks.step import RECIPES

WAYS: dict[str, dict[str, Any]] = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}


def main() -> None:
    """Measure and print."""
    parser = flags(__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="base")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    report(measure(asked.recipe, device=torch.device(asked.device), steps=asked.steps), asked)


def measure(recipe: str, *, device: torch.device, steps: int) -> list[dict[str, Any]]:
    """One row for each way."""
    parameters = list(RECIPES[recipe]().module().to(device).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizers = {name: torch.optim.AdamW(parameters, lr=1e-4, **way) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(steps + 1):
        for name, optimizer in optimizers.items():
            found = timed(optimizer.step, device).wall
            seconds[name] += [found] if turn else []
    millions = sum(parameter.numel() for parameter in parameters) / 1e6
    return [
        {"recipe": recipe, "million parameters": round(millions, 1), "AdamW": name, "s": round(median, 4)}
        for name, median in ((name, statistics.median(found)) for name, found in seconds.items())
    ]


if __name__ == "__main__":
    main()
