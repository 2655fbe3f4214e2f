"""`make demo`: an area in, a resumed CROMA checkpoint out, offline. Each step is one command that you could type.

    python examples/demo.py [RUN]

Run it again and every step finds its result: nothing is done twice.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
AREA = ROOT / "examples" / "aoi.geojson"
STEPS, CHECKPOINT_EVERY, KILL_AFTER = 120, 20, 40
console = Console(stderr=True, highlight=False)


def main() -> None:
    """Earth, shards, training, death, resurrection, page, table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"), help="folder of everything")
    run = parser.parse_args().run
    started_s = time.monotonic()
    earth, data, model = run / "earth", run / "data", run / "croma"
    say(1, "a synthetic Earth: real COGs, a real STAC catalog, every pixel's true value known")
    call(BIN / "ingest", "make-earth", "--aoi", AREA, "--out", earth)
    say(2, "co-registered Sentinel-1/2 chips of 1.2 km: a Zarr cube and WebDataset shards")
    build = (
        "build-shards",
        "--aoi",
        AREA,
        "--catalog",
        earth,
        "--chip-px",
        "120",
        "--labels",
        "land-cover",
        "--val",
        "30",
        "--seed",
        "1",
        "--out",
        data,
    )
    call(BIN / "ingest", *build)
    train = (BIN / "accelerate", "launch", "--config_file", ROOT / "infra/accelerate/cpu-two-ranks.yaml",
             ROOT / "train/croma.py", "--recipe", "tiny", "--data", data, "--out", model,
             "--steps", STEPS, "--checkpoint-every", CHECKPOINT_EVERY)  # fmt: skip
    say(3, f"CROMA on two CPU ranks, killed with SIGKILL after step {KILL_AFTER}")
    killed = call_and_kill(*train, "--resume", when=lambda: committed(model) >= KILL_AFTER)
    say(4, "resumed from its last checkpoint, to the bit")
    call(*train, "--resume")
    say(5, "one page about the run: what went in, how it learned, what it paints, what its features are worth")
    call(BIN / "python", ROOT / "train/report.py", model, "--data", data)
    report(run, time.monotonic() - started_s, killed=killed)


def say(number: int, what: str) -> None:
    """Announce a step."""
    console.print(f"\n[bold]{number}  {what}[/bold]")


def call(*command: object) -> None:
    """Show a command and run it; its failure ends the demo with its exit code."""
    console.print(f"[dim]$ {shown(command)}[/dim]")
    code = subprocess.run([str(part) for part in command], check=False, env=environment()).returncode
    if code:
        sys.exit(code)


def call_and_kill(*command: object, when: Any) -> bool:
    """Run a command in a session of its own and kill the session as soon as `when` holds; whether it was killed."""
    if when():
        console.print("[dim]it came further than that before: not killed again[/dim]")
        return False
    console.print(f"[dim]$ {shown(command)}   # then kill -9[/dim]")
    process = subprocess.Popen([str(part) for part in command], start_new_session=True, env=environment())
    try:
        while process.poll() is None and not when():
            time.sleep(0.05)
        if process.returncode:
            sys.exit(process.returncode)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            console.print("[red]killed[/red]")
    return process.returncode == -signal.SIGKILL


def environment() -> dict[str, str]:
    """One thread a rank: two ranks share two cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}


def shown(command: tuple[object, ...]) -> str:
    """The command as one would type it from the project's folder."""
    parts = [str(part).replace(f"{ROOT}/", "").replace(f"{BIN}/", "") for part in command]
    return shlex.join(parts)


def committed(model: Path) -> int:
    """Step of the newest finished checkpoint."""
    return max((int(path.parent.name.rpartition("-")[2]) for path in model.glob("step-*/COMMIT.json")), default=0)


def report(run: Path, seconds: float, *, killed: bool) -> None:
    """Print what was made, where it lies, and what to try next."""
    manifest = json.loads((run / "data/manifest.json").read_text())
    rows = [json.loads(line) for line in (run / "croma/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    counts = dict(manifest["counts"])
    accepted = counts.pop("accepted", 0)
    size = sum(shard["bytes"] for shard in manifest["shards"])
    ends = max(1, len(steps) // 10)
    before, after = (sum(row["loss"] for row in part) / ends for part in (steps[:ends], steps[-ends:]))
    table = Table(title=f"from an area to a checkpoint in {seconds:.0f} s", show_header=False)
    for name, value in {
        "chips found": accepted + sum(counts.values()),
        "accepted": accepted,
        "rejected": ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none",
        "shards": f"{len(manifest['shards'])} ({size / 1e6:.1f} MB)",
        "steps": f"{steps[-1]['step']}" + (f", killed after {KILL_AFTER} and resumed" if killed else ""),
        "loss": f"{before:.3f} before, {after:.3f} after (means of {ends} steps)",
        "samples/s": f"{sorted(row['pace']['samples_per_s'] for row in steps)[len(steps) // 2]:.0f} (median)",
        "cube": run / "data/cube.zarr",
        "shards in": run / "data/shards",
        "checkpoint": run / f"croma/step-{committed(run / 'croma'):08d}",
        "curves": run / "croma",
        "page": run / "croma/report.html",
    }.items():
        table.add_row(name, str(value))
    Console().print(table)
    Console().print(
        f"next:  open {run}/croma/report.html in a browser\n"
        f"       .venv/bin/tensorboard --logdir {run}/croma\n"
        f"       .venv/bin/python -c 'import xarray; print(xarray.open_zarr(\"{run}/data/cube.zarr\"))'\n"
        f"       .venv/bin/ingest plan --aoi your.geojson --catalog YOUR_STAC_API --dates 2023-04-01/2023-09-30",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
