"""What the benchmarks ask of a machine: time, peak memory, the largest batch that fits, and a table to print."""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Seconds(NamedTuple):
    """How long something took."""

    wall: float
    """By the clock."""
    busy: float
    """Processor time per thread: what other programs take of the machine is not in it, as far as threads do not wait
    for each other."""


def timed(action: Callable[[], object], device: torch.device) -> Seconds:
    """Run `action` once."""
    synchronise(device)
    wall, busy = time.perf_counter(), time.process_time()
    action()
    synchronise(device)
    return Seconds(time.perf_counter() - wall, (time.process_time() - busy) / torch.get_num_threads())


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Forget earlier peaks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Most memory since `reset_peak`: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        found = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def largest(works: Callable[[int], bool]) -> int:
    """The largest batch that works, to a sixteenth; 0 if none does."""
    low, high = 0, 1
    while works(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def flags(description: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--steps", type=int, default=5, help="measured; one more warms up")
    parser.add_argument("--json", action="store_true")
    return parser


def report(rows: Sequence[dict[str, Any]], asked: argparse.Namespace) -> None:
    """Print what was measured, when and on what."""
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(asked.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }
    if asked.json:
        print(json.dumps({**facts, "rows": rows}))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


def hardware(device: str) -> str:
    """What this ran on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    bf16 = "with" if any("avx512_bf16" in line for line in lines) else "without"
    return f"{next(names, platform.machine())} ({bf16} bfloat16 instructions)"
