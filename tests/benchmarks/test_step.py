"""The benchmark runs and its numbers are numbers; how large they are is nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.mark.parametrize("more", [(), ("--recompute",)], ids=["plain", "recompute"])
def test_the_step_benchmark_runs(more: tuple[str, ...]) -> None:
    script = Path(__file__).with_name("step.py")
    command = [
        sys.executable,
        str(script),
        "--recipe",
        "tiny",
        "tiny_temporal",
        "--batch",
        "2",
        "--steps",
        "1",
        "--json",
    ]
    told = json.loads(subprocess.check_output([*command, *more, "--device", "cpu"], text=True, timeout=120))
    assert [row["recipe"] for row in told["rows"]] == ["tiny", "tiny_temporal"]
    assert all(row[name] > 0 for row in told["rows"] for name in ("samples/s", "GFLOP/s", "activations MB/sample"))
