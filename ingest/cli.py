"""The `ingest` command. Parses, calls one function, prints; heavy imports stand inside the commands."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.flags import Aois, Dates, Json, takes_request
from pipeline.errors import PretrainError

if TYPE_CHECKING:
    from ingest.plan import IngestPlan
    from ingest.request import Request
    from pipeline.manifest import Manifest

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
@takes_request
def build_shards(
    request: "Request",
    *,
    out: Annotated[str, typer.Option(help="Where the data set goes: a folder or any fsspec URL.")],
    workers: Annotated[int, typer.Option(min=0, help="Local worker processes; 0 works in this one.")] = 2,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler to use instead.")] = None,
    as_json: Json = False,
) -> None:
    """Make co-registered chips of an area: a Zarr cube and WebDataset shards. Run again to go on."""
    from ingest.build import build
    from ingest.progress import BuildProgress

    with BuildProgress() as progress:
        built = build(request, out, workers=workers, scheduler=scheduler, progress=progress)
    _report(_summary(built, out), as_json=as_json)


@app.command()
@takes_request
def plan(
    request: "Request",
    *,
    out: Annotated[str | None, typer.Option(help="Keep the plan there, for build-shards to follow.")] = None,
    as_json: Json = False,
) -> None:
    """Say what build-shards would make, and why every other cell and scene is left out. Reads no pixel."""
    from ingest.build import open_plan
    from ingest.planner import make_plan
    from pipeline.store import Store

    made = open_plan(Store.at(out), request) if out else make_plan(request)
    _report(_plan_facts(made), as_json=as_json)


@app.command()
def make_earth(
    aoi: Aois,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the new catalog.")],
    dates: Dates = None,
    seed: Annotated[int, typer.Option(help="Which Earth.")] = 0,
    noise: Annotated[
        bool, typer.Option(help="Clouds, speckle and sensor noise; without, every pixel is the truth.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write a synthetic Earth: real COGs and a real STAC catalog, offline. Every pixel's true value is known."""
    import shapely

    from ingest.aoi import parse_aoi, parse_dates
    from ingest.synthetic import make_earth as make

    area = shapely.union_all([one.geometry for text in aoi for one in parse_aoi(text)])
    span = parse_dates(dates)
    chosen = (span.start, span.end) if span.start and span.end else None
    made = make(out, aoi=area, dates=chosen, seed=seed, noise=noise, progress=lambda line: typer.echo(line, err=True))
    facts = {"S2 scenes": len(made.s2_ids), "S1 scenes": len(made.s1_ids), "bytes": made.n_bytes}
    _report({**facts, "catalog": str(made.catalog)}, as_json=as_json)


def main() -> None:
    """Run the command; an error of ours is one message and exit code 2, without a traceback."""
    try:
        app()
    except PretrainError as error:
        typer.echo(f"ingest: {error}", err=True)
        sys.exit(error.exit_code)


def _summary(built: "Manifest", out: str) -> dict[str, Any]:
    from pipeline.errors import redact

    rejected = {reason: n for reason, n in built.counts.items() if reason != "accepted"}
    return {
        "chips": sum(built.counts.values()),
        "accepted": built.counts.get("accepted", 0),
        "rejected": rejected,
        "train": built.samples("train"),
        "val": built.samples("val"),
        "shards": len(built.shards),
        "bytes": sum(shard.bytes for shard in built.shards),
        "out": redact(out),
    }


def _plan_facts(made: "IngestPlan") -> dict[str, Any]:
    from collections import Counter

    from ingest.plan import scene_ids

    memory = max((unit.memory_bytes(made.request) for unit in made.units), default=0)
    return {
        "chips": len(made.tasks),
        "units": len(made.units),
        "train": sum(task.split == "train" for task in made.tasks),
        "val": sum(task.split == "val" for task in made.tasks),
        "memory per task": f"{memory / 2**20:.0f} MiB",
        f"{made.request.kind}s": dict(Counter(" + ".join(scene_ids(task)) for task in made.tasks)),
        "cells left out": dict(Counter(item.reason for item in made.left_out)),
        "scenes left out": dict(made.scenes_left_out),
    }


def _report(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print facts for a person, or as JSON."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        lines = [f"{key}: {item}" for key, item in value.items()] if isinstance(value, dict) else [str(value)]
        typer.echo(f"{name:>16}  " + f"\n{'':>18}".join(lines or ["none"]))


if __name__ == "__main__":
    main()
