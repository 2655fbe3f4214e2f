"""The `ingest` command. Parses, calls one function, prints; heavy imports stand inside the commands."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.flags import (
    Aois,
    Around,
    CodecName,
    Dates,
    Json,
    Progress,
    ProgressStyle,
    Refresh,
    parse_areas,
    takes_request,
)
from pipeline.errors import CatalogError, PretrainError, SourceError, UsageError, redact

if TYPE_CHECKING:
    from ingest.request import Request

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
@takes_request
def build_shards(
    request: "Request",
    *,
    out: Annotated[str, typer.Option(help="Where the data set goes: a folder or any fsspec URL.")],
    workers: Annotated[int, typer.Option(min=0, help="Local worker processes; 0 works in this one.")] = 2,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler to use instead.")] = None,
    refresh: Refresh = False,
    progress: Progress = ProgressStyle.auto,
    as_json: Json = False,
) -> None:
    """Make co-registered chips of an area: a Zarr cube and WebDataset shards. Run again to go on."""
    from ingest import facts
    from ingest.build import build
    from ingest.progress import BuildProgress

    with BuildProgress(progress.value) as told:
        built = build(request, out, workers=workers, scheduler=scheduler, progress=told, refresh=refresh)
    _report(facts.of_data_set(built, out), as_json=as_json)


@app.command()
@takes_request
def plan(  # noqa: PLR0913  one parameter is one flag
    request: "Request",
    *,
    out: Annotated[str | None, typer.Option(help="Keep the plan there, and a page of words about it.")] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="CELL", help="Only say what became of every scene on one cell.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="For the estimate: units at a time.")] = 2,
    gbit: Annotated[float, typer.Option(min=1e-3, max=1e6, help="For the estimate: Gbit/s of them all.")] = 1.0,
    usd_per_gb: Annotated[
        float, typer.Option(min=0, max=1e6, help="For the estimate: price of a GB read, about 0.09 afar.")
    ] = 0.0,
    refresh: Refresh = False,
    as_json: Json = False,
) -> None:
    """Say what build-shards would make, what it would cost, and why the rest is left out. Reads no pixel."""
    from ingest import facts, plan_page
    from ingest.care import explain as explaining
    from ingest.cost import Assumptions, estimate
    from ingest.planner import make_plan, survey
    from pipeline.store import Store

    if explain is not None:
        found, cells = survey(request)
        cell = explaining.find_cell(cells, explain)
        verdicts = explaining.explain(request, cell, found)
        told = facts.of_cell(cell, verdicts)
        typer.echo(json.dumps(told) if as_json else "\n".join(explaining.lines(cell, verdicts)))
        return
    given = Assumptions(workers=workers, gbit_s=gbit, usd_per_gb_out=usd_per_gb)
    made = plan_page.keep(Store.at(out), request, given, refresh=refresh) if out is not None else make_plan(request)
    _report(facts.of_plan(made, estimate(made, given)), as_json=as_json)


@app.command()
@takes_request
def doctor(
    request: "Request",
    *,
    out: Annotated[str, typer.Option(help="Where the data set would go: an object is written there and removed.")],
    workers: Annotated[int, typer.Option(min=0, help="That build-shards would use.")] = 2,
    as_json: Json = False,
) -> None:
    """Try everything a build needs: catalog, one file of each collection, credentials, clock, room, target."""
    from ingest.care.doctor import examine
    from pipeline import record

    checks = examine(request, out, workers=workers)
    text = json.dumps(record.to_json(checks)) if as_json else "\n".join(map(str, checks))
    typer.echo(text)
    raise typer.Exit(int(any(check.status == "fail" for check in checks)))


@app.command()
def make_earth(
    aoi: Aois,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the new catalog.")],
    around: Around = None,
    dates: Dates = None,
    seed: Annotated[int, typer.Option(help="Which Earth.")] = 0,
    noise: Annotated[
        bool, typer.Option(help="Clouds, speckle and sensor noise; without, every pixel is the truth.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write a synthetic Earth: real COGs and a real STAC catalog, offline. Every pixel's true value is known."""
    import shapely

    from ingest.areas.aoi import parse_dates
    from ingest.synthetic import make_earth as make

    area = shapely.union_all([one.geometry for one in parse_areas(aoi, around)])
    span = parse_dates(dates)
    if (span.start is None) != (span.end is None):
        raise UsageError(f"--dates {dates}: an Earth has a first and a last day. Give both, or leave --dates out.")
    chosen = (span.start, span.end) if span.start and span.end else None
    made = make(out, aoi=area, dates=chosen, seed=seed, noise=noise, progress=lambda line: typer.echo(line, err=True))
    counts = {"S2 scenes": len(made.s2_ids), "S1 scenes": len(made.s1_ids), "bytes": made.n_bytes}
    _report({**counts, "catalog": str(made.catalog)}, as_json=as_json)


@app.command()
def verify(
    out: Annotated[str, typer.Argument(help="A finished data set.")],
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every sample, compare it with the cube, measure again.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Units checked at a time.")] = 4,
    as_json: Json = False,
) -> None:
    """Check a finished data set against its manifest. Exit code 1 and a list if anything is wrong."""
    from ingest import facts
    from ingest.care.verify import verify as check
    from pipeline.store import Store

    verdict = check(Store.at(out), deep=deep, threads=threads)
    told = facts.of_verdict(verdict)
    if as_json:
        _report(told, as_json=True)
    else:
        _report({**told, "wrong": len(verdict.findings)}, as_json=False)
        for finding in verdict.findings:
            typer.echo(f"ingest: {finding}", err=True)
    raise typer.Exit(1 if verdict.findings else 0)


@app.command()
def report(
    out: Annotated[str, typer.Argument(help="A finished data set.")],
    *,
    page: Annotated[str, typer.Option(help="The page to write, HTML: a path or any fsspec URL.")],
    sheets: Annotated[int, typer.Option(min=0, help="Shards with pictures.")] = 8,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each of them.")] = 12,
) -> None:
    """Write one self-contained page: map, reasons, distributions, statistics, S2 beside S1."""
    from ingest.care.report import write
    from pipeline.store import Store

    typer.echo(write(Store.at(out), page, sheets=sheets, samples=samples))


@app.command()
def stats(
    out: Annotated[str, typer.Argument(help="A finished data set.")],
    *,
    by: Annotated[
        str, typer.Option(help="Tell apart by split, season, orbit, backscatter, zone, year; with commas between.")
    ] = "",
    threads: Annotated[int, typer.Option(min=1, help="Samples read at a time.")] = 4,
    as_json: Json = False,
) -> None:
    """Measure the statistics of a finished data set again: of the training samples, or of groups."""
    from ingest.care import restats
    from ingest.care.samples import open_set
    from pipeline.store import Store

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    found = restats.measure(open_set(Store.at(out)), groups, threads=threads)
    typer.echo(json.dumps(restats.as_json(found)) if as_json else "\n".join(restats.lines(found)))


@app.command()
def shards(
    *,
    from_cube: Annotated[str, typer.Option(help="A finished data set with its plan and cube.")],
    out: Annotated[str, typer.Option(help="Where the new data set goes.")],
    chip_px: Annotated[int | None, typer.Option(help="Cut chips into pieces of so many pixels of 10 m.")] = None,
    codec: Annotated[CodecName | None, typer.Option(help="b2: blosc2. npy: raw numpy.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Units at a time.")] = 4,
    progress: Progress = ProgressStyle.auto,
    as_json: Json = False,
) -> None:
    """Make another data set out of a finished one, without downloading: smaller chips, or another codec."""
    from ingest import facts
    from ingest.care.recut import recut
    from ingest.progress import BuildProgress
    from pipeline.codec import Codec

    chosen: Codec | None = None
    if codec is not None:
        chosen = codec.value
    with BuildProgress(progress.value) as told:
        built = recut(from_cube, out, chip_px=chip_px, codec=chosen, threads=threads, progress=told)
    _report(facts.of_data_set(built, out), as_json=as_json)


def main() -> None:
    """Run the command; an error of ours is one message and exit code 2, without a traceback."""
    try:
        app()
    except PretrainError as error:
        typer.echo(f"ingest: {error}{_to_go_on(error)}", err=True)
        sys.exit(error.exit_code)


def _to_go_on(error: PretrainError) -> str:
    """The command itself, where it can simply be run again."""
    if not isinstance(error, SourceError) or isinstance(error, CatalogError):
        return ""
    return f"\n  {redact(shlex.join(['ingest', *sys.argv[1:]]))}"


def _report(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print facts for a person, or as JSON."""
    from ingest.facts import lines

    typer.echo(json.dumps(facts) if as_json else "\n".join(lines(facts)))


if __name__ == "__main__":
    main()
