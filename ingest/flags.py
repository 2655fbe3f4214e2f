"""The flags that say what a data set holds: one parameter each, and together one `Request`."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from ingest.areas.aoi import Aoi
    from ingest.request import Request


class Grid(StrEnum):
    """Where cells lie."""

    utm = "utm"
    aoi = "aoi"
    scene = "scene"
    blocks = "blocks"


class Sampler(StrEnum):
    """How cells are drawn."""

    grid = "grid"
    land = "land"
    classes = "classes"
    points = "points"
    blocks = "blocks"


class Kind(StrEnum):
    """What a sample is."""

    pair = "pair"
    stack = "stack"


class Orbit(StrEnum):
    """Pass direction of Sentinel-1."""

    any = "any"
    ascending = "ascending"
    descending = "descending"


class ProgressStyle(StrEnum):
    """How a command tells how far it is."""

    auto = "auto"
    plain = "plain"
    json = "json"


class CodecName(StrEnum):
    """How arrays are encoded."""

    b2 = "b2"
    npy = "npy"


Aois = Annotated[
    list[str],
    typer.Option(
        "--aoi",
        help="west,south,east,north; mgrs:33TWL,33TWM; GeoJSON, GeoParquet or .shp; .csv or .txt of lon,lat,name; "
        "FILE#NAME for one place of a file. May be given again.",
    ),
]
Around = Annotated[str | None, typer.Option(help="Points of --aoi become discs of this radius: 5km, 500m.")]
Dates = Annotated[str | None, typer.Option(help="START/END of the S2 acquisition, both included; .. is open.")]
Refresh = Annotated[bool, typer.Option("--refresh", help="Ask the catalog anew; for an --out that holds no chips yet.")]
Progress = Annotated[
    ProgressStyle, typer.Option(help="auto: a bar on a terminal, lines elsewhere. plain: lines. json: for machines.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _request(  # noqa: PLR0913  one parameter is one flag
    *,
    aoi: Aois,
    around: Around = None,
    catalog: Annotated[
        str,
        typer.Option(
            help="planetary-computer, earth-search, cdse, a STAC API's URL, catalog.json or its folder, items.parquet."
        ),
    ],
    dates: Dates = None,
    kind: Annotated[Kind, typer.Option(help="pair: S2 with S1. stack: several dates of S2.")] = Kind.pair,
    max_gap: Annotated[
        str | None, typer.Option(help="Longest time between S2 and S1 (3d), or between dates of a stack (any).")
    ] = None,
    orbit: Annotated[Orbit, typer.Option(help="Pass direction of S1.")] = Orbit.any,
    tracks: Annotated[str, typer.Option(help="Relative orbits of S1, as 44,117 (all).")] = "",
    one_to_one: Annotated[bool, typer.Option("--one-to-one", help="pair: use each S1 pass of a cell once.")] = False,
    frames: Annotated[int | None, typer.Option(help="stack: dates of each (3, or 4 with --seasons).")] = None,
    min_gap: Annotated[str | None, typer.Option(help="stack: shortest time between two dates, as 12h (20d).")] = None,
    seasons: Annotated[bool, typer.Option("--seasons", help="stack: each date in the season after the last.")] = False,
    bands: Annotated[str, typer.Option(help="S2 bands to store, as B02,B03,B04 (all: 12 of l2a, 13 of l1c).")] = "",
    max_cloud: Annotated[float, typer.Option(help="Percent of a chip that may be cloud.")] = 20.0,
    cloud_percent: Annotated[
        float | None,
        typer.Option(help="Probability from which a pixel is cloud, by the product or the model (off; 50)."),
    ] = None,
    cloud_model: Annotated[str, typer.Option(help="module:function of a cloud model of yours.")] = "",
    max_nodata: Annotated[float, typer.Option(help="Percent of a chip that either sensor may lack.")] = 1.0,
    chip_px: Annotated[int, typer.Option(help="Side of a chip in pixels of 10 m.")] = 264,
    grid: Annotated[
        Grid,
        typer.Option(
            help="utm lattice, aoi: one cell an area, scene: S2's own pixels, blocks: whole within S2's COG blocks."
        ),
    ] = Grid.utm,
    block_px: Annotated[int | None, typer.Option(help="blocks: side of a COG block, 512 or 1024 (1024).")] = None,
    sample: Annotated[int | None, typer.Option(help="Draw so many of the area's cells, by --seed (all).")] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            help="grid: any cell; land: by weight; classes: so many of each class; points: round places; "
            "blocks: whole COG blocks (grid)."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="land: polygons, or a raster of weights. classes: a raster of classes. points: a list of points."
        ),
    ] = None,
    shares: Annotated[str | None, typer.Option(help="classes: share of each, as 1=0.5,2=0.5 (equal).")] = None,
    spread: Annotated[str | None, typer.Option(help="points: standard deviation round each, as 50km.")] = None,
    s2: Annotated[str, typer.Option(help="l2a, l1c, or the id of a STAC collection.")] = "l2a",
    s1: Annotated[
        str | None, typer.Option(help="rtc (gamma0), grd (geocoded, sigma0), preferred first. pair: rtc; stack: none.")
    ] = None,
    s1_gap: Annotated[str | None, typer.Option(help="stack: longest time between a date and its S1 (3d).")] = None,
    labels: Annotated[str, typer.Option(help="STAC collections of labels to add, with commas between.")] = "",
    codec: Annotated[CodecName, typer.Option(help="b2: blosc2. npy: raw numpy.")] = CodecName.b2,
    val: Annotated[float, typer.Option(help="Percent of the ground kept for validation.")] = 10.0,
    guard: Annotated[str, typer.Option(help="Distance of training cells from validation ground: 0m, 5km.")] = "0m",
    seed: Annotated[int, typer.Option(help="Decides which ground that is, and which cells are drawn.")] = 0,
) -> "Request":
    """The flags that decide which bytes are written, as one value."""
    from ingest.areas.aoi import parse_dates
    from ingest.catalogs.profiles import profile_of
    from ingest.parsing import parse_bands, parse_distance, parse_gap, parse_s1, parse_s2, parse_sampling, parse_tracks
    from ingest.pixels.cloud import load
    from ingest.request import Request, check

    pairs = kind is Kind.pair
    _check_companions(
        kind,
        grid,
        block_px=block_px,
        s1=s1,
        of_stacks=(frames, min_gap, s1_gap, seasons),
        of_radar=(orbit, tracks, one_to_one),
    )
    radar_gap = (
        parse_gap("3d" if max_gap is None else max_gap, "--max-gap") if pairs else parse_gap(s1_gap or "3d", "--s1-gap")
    )
    collection = parse_s2(s2, profile_of(catalog))
    if cloud_model:
        load(cloud_model)
    return check(
        Request(
            kind=kind.value,
            areas=parse_areas(aoi, around, spots=grid is Grid.aoi),
            dates=parse_dates(dates),
            catalog=catalog,
            max_gap_hours=radar_gap if pairs or s1 else 0.0,
            orbit=orbit.value,
            tracks=parse_tracks(tracks),
            one_to_one=one_to_one,
            frames=1 if pairs else frames if frames is not None else 4 if seasons else 3,
            s2=collection,
            s1=parse_s1("rtc" if s1 is None else s1, profile_of(catalog)) if pairs or s1 else (),
            min_gap_hours=0.0 if pairs else parse_gap(min_gap or "20d", "--min-gap"),
            widest_gap_hours=None if pairs or max_gap is None else parse_gap(max_gap, "--max-gap"),
            seasons=seasons,
            s2_bands=parse_bands(bands, collection),
            max_cloud_percent=max_cloud,
            cloud_percent=50.0 if cloud_model and cloud_percent is None else cloud_percent,
            cloud_model=cloud_model,
            max_nodata_percent=max_nodata,
            chip_px=chip_px,
            grid=grid.value,
            block_px=(block_px or 1024) if grid is Grid.blocks else 0,
            sampling=parse_sampling(
                sample, sampler.value if sampler else None, weights=weights, shares=shares, spread=spread
            ),
            codec=codec.value,
            labels=tuple(name.strip() for name in labels.split(",") if name.strip()),
            val_percent=val,
            guard_km=parse_distance(guard, "--guard") / 1000,
            seed=seed,
        )
    )


def _check_companions(
    kind: Kind,
    grid: Grid,
    *,
    block_px: int | None,
    s1: str | None,
    of_stacks: tuple[int | None, str | None, str | None, bool],
    of_radar: tuple[Orbit, str, bool],
) -> None:
    """Refuse flags that would change nothing, because they belong to another kind or grid.

    Raises:
        UsageError: names them, and what they are for.
    """
    pairs, (frames, min_gap, s1_gap, seasons), (orbit, tracks, one_to_one) = kind is Kind.pair, of_stacks, of_radar
    if block_px is not None and grid is not Grid.blocks:
        raise UsageError("--block-px is for --grid blocks. Leave it out, or take that grid.")
    if pairs and (frames, min_gap, seasons) != (None, None, False):
        raise UsageError("--frames, --min-gap and --seasons are for --kind stack. Leave them out, or make stacks.")
    if pairs and s1_gap is not None:
        raise UsageError("--s1-gap is for --kind stack; the longest time between S2 and S1 of a pair is --max-gap.")
    if not pairs and one_to_one:
        raise UsageError("--one-to-one is for --kind pair. Leave it out, or make pairs.")
    if not (pairs or s1) and (orbit is not Orbit.any or tracks or s1_gap):
        raise UsageError("--orbit, --tracks and --s1-gap are about S1. Ask for it with --s1 rtc, or leave them out.")


def parse_areas(aoi: list[str], around: str | None, *, spots: bool = False) -> "tuple[Aoi, ...]":
    """The areas of all `--aoi`; a point without `--around` is one only where `spots` are enough."""
    from ingest.areas.aoi import SPOT_M, parse_aoi
    from ingest.parsing import parse_distance

    radius = SPOT_M if spots else None
    if around is not None and not (radius := parse_distance(around, "--around")):
        raise UsageError(f"--around {around}: a disc has a radius. Write metres or kilometres, as 500m or 5km.")
    return tuple(area for text in aoi for area in parse_aoi(text, around_m=radius))


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
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
