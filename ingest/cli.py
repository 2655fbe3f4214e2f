"""The `ingest` command. Parses, calls one function, prints; heavy imports stand inside the commands."""

import inspect
import json
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import PretrainError, UsageError

if TYPE_CHECKING:
    from ingest.plan import IngestPlan
    from ingest.request import Request
    from pipeline.manifest import Manifest

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Grid(StrEnum):
    """Where cells lie."""

    utm = "utm"
    aoi = "aoi"
    scene = "scene"


class Kind(StrEnum):
    """What a sample is."""

    pair = "pair"
    stack = "stack"


class CodecName(StrEnum):
    """How arrays are encoded."""

    b2 = "b2"
    npy = "npy"


Aois = Annotated[list[str], typer.Option("--aoi", help="GeoJSON file, or west,south,east,north; may be given again.")]
Dates = Annotated[str | None, typer.Option(help="START/END of the S2 acquisition, both included; .. is open.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _request(  # noqa: PLR0913  one parameter is one flag
    *,
    aoi: Aois,
    catalog: Annotated[str, typer.Option(help="STAC API URL, catalog.json (or its folder), or items.parquet.")],
    dates: Dates = None,
    kind: Annotated[Kind, typer.Option(help="pair: S2 with S1. stack: several dates of S2.")] = Kind.pair,
    max_gap: Annotated[str, typer.Option(help="pair: longest time between S2 and S1: 3d, 12h.")] = "3d",
    frames: Annotated[int | None, typer.Option(help="stack: dates of each (3).")] = None,
    min_gap: Annotated[str | None, typer.Option(help="stack: shortest time between two dates, as 12h (20d).")] = None,
    bands: Annotated[str | None, typer.Option(help="stack: S2 bands to store, as B02,B03,B04 (all).")] = None,
    max_cloud: Annotated[float, typer.Option(help="Percent of a chip that may be cloud.")] = 20.0,
    max_nodata: Annotated[float, typer.Option(help="Percent of a chip that either sensor may lack.")] = 1.0,
    chip_px: Annotated[int, typer.Option(help="Side of a chip in pixels of 10 m.")] = 264,
    grid: Annotated[Grid, typer.Option(help="utm lattice, aoi: one cell an area, scene: S2's own pixels.")] = Grid.utm,
    s1: Annotated[str, typer.Option(help="Preferred first: rtc (gamma0), grd (geocoded, sigma0).")] = "rtc",
    labels: Annotated[str, typer.Option(help="STAC collections of labels to add, with commas between.")] = "",
    codec: Annotated[CodecName, typer.Option(help="b2: blosc2. npy: raw numpy.")] = CodecName.b2,
    val: Annotated[float, typer.Option(help="Percent of the ground kept for validation.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Decides which ground that is.")] = 0,
) -> "Request":
    """The flags that decide which bytes are written, as one value."""
    from ingest.aoi import parse_aoi, parse_dates
    from ingest.request import Request, check, parse_bands, parse_gap, parse_s1

    pairs = kind is Kind.pair
    if pairs and (frames, min_gap, bands) != (None, None, None):
        raise UsageError("--frames, --min-gap and --bands are for --kind stack. Leave them out, or make stacks.")
    return check(
        Request(
            kind=kind.value,
            areas=tuple(area for text in aoi for area in parse_aoi(text)),
            dates=parse_dates(dates),
            catalog=catalog,
            s1=parse_s1(s1) if pairs else (),
            max_gap_hours=parse_gap(max_gap, "--max-gap") if pairs else 0.0,
            frames=1 if pairs else 3 if frames is None else frames,
            min_gap_hours=0.0 if pairs else parse_gap(min_gap or "20d", "--min-gap"),
            s2_bands=parse_bands(bands or ""),
            max_cloud_percent=max_cloud,
            max_nodata_percent=max_nodata,
            chip_px=chip_px,
            grid=grid.value,
            codec=codec.value,
            labels=tuple(name.strip() for name in labels.split(",") if name.strip()),
            val_percent=val,
            seed=seed,
        )
    )


def _takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the flags of `_request` beside its own, and the request in their place."""
    shared = inspect.signature(_request).parameters
    own = {name: flag for name, flag in inspect.signature(command).parameters.items() if name != "request"}

    def run(**flags: Any) -> None:
        request = _request(**{name: flags[name] for name in shared})
        command(request, **{name: flags[name] for name in own})

    together = [flag.replace(kind=flag.KEYWORD_ONLY) for flag in (*shared.values(), *own.values())]
    run.__dict__["__signature__"] = inspect.Signature(together)
    run.__annotations__ = {flag.name: flag.annotation for flag in together}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


@app.command()
@_takes_request
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
@_takes_request
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
