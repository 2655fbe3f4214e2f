"""Request → plan: the only planning step that asks the catalog. Reads no pixel."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from ingest.areas import antimeridian
from ingest.areas.aoi import DateRange
from ingest.areas.block_grid import block_cells
from ingest.areas.grid import (
    PIXEL_M,
    Cell,
    centered_cell,
    check_count,
    corner_cell,
    footprints,
    lattice_cells,
    transformer,
    utm_epsg,
)
from ingest.areas.split import Split, group_of, guarded, leaking, split_of
from ingest.catalogs import catalog
from ingest.plan import IngestPlan, LeftOut, make_task, make_units
from ingest.request import Request, s1_dates, spacing
from ingest.sampling import draw, search_boxes
from ingest.scenes.coverage import duplicates
from ingest.scenes.pairing import Pairing, PairRules, pair
from ingest.scenes.scene import Item, Scene, Unusable, parse_scene
from ingest.scenes.stacking import Stacking, stack
from pipeline.errors import UsageError, redact
from pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the catalog has."""

    s2: list[Scene]
    """Usable optical scenes."""
    s1: list[Scene]
    """Usable radar scenes, the preferred product first."""
    labels: list[Scene]
    """Usable label scenes."""
    unusable: dict[str, str]
    """Reason by scene id."""


def make_plan(request: Request, *, kept_in: Store | None = None) -> IngestPlan:
    """Search, pair or stack, split and cut into units. An API's answers are kept in the run folder `kept_in`.

    Raises:
        CatalogError: the catalog does not answer.
        UsageError: there is no scene, or no cell, for the request.
    """
    found, cells = survey(request, kept_in)
    inside = footprints(cells, inset_m=PIXEL_M)
    chosen = choose(request, cells, inside, found)
    sides = [_side(cell, request) for cell in cells]
    splits = [side[1] for side in sides]
    leaks = {
        **dict.fromkeys(
            guarded(cells, splits, request.guard_km), f"within {request.guard_km:g} km of validation ground"
        ),
        **dict.fromkeys(leaking(footprints(cells), splits), "overlaps validation ground"),
    }
    labels = _labels_by_cell(inside, found.labels)
    tasks = [
        make_task(one, cells[one.cell], labels=labels[one.cell], side=sides[one.cell])
        for one in (chosen.stacks if isinstance(chosen, Stacking) else chosen.pairs)
        if one.cell not in leaks
    ]
    return IngestPlan(
        request=request,
        units=make_units(tasks, request),
        left_out=_left_out(cells, chosen, leaks),
        scenes_left_out=dict(sorted({**found.unusable, **chosen.scenes_left_out}.items())),
    )


def choose(request: Request, cells: Sequence[Cell], outlines: NDArray[np.object_], found: Found) -> Pairing | Stacking:
    """Pairs or stacks of `cells`, whose `outlines` are drawn one pixel inside their edges."""
    own_grid = request.grid == "scene"
    if request.kind == "pair":
        scenes = found.s2, found.s1
        return pair(cells, outlines, scenes, rules=pair_rules(request), own_grid=own_grid)
    return stack(
        cells,
        outlines,
        found.s2,
        frames=request.frames,
        spacing=spacing(request),
        radar=(found.s1, pair_rules(request)) if request.s1 else None,
        own_grid=own_grid,
    )


def pair_rules(request: Request) -> PairRules:
    """What S1 may go with an S2 scene of `request`."""
    return PairRules(
        max_gap_hours=request.max_gap_hours,
        direction=None if request.orbit == "any" else request.orbit,
        tracks=request.tracks,
        one_to_one=request.one_to_one,
    )


def survey(request: Request, kept_in: Store | None = None) -> tuple[Found, list[Cell]]:
    """What the catalog has for the request, and the request's cells. An API's answers are kept in `kept_in`.

    Raises:
        CatalogError: it does not answer.
        UsageError: it has nothing, or there is no cell.
    """
    drawn = draw(request, request.sampling) if request.sampling else []
    found = _find_scenes(request, drawn, kept_in)
    return found, drawn or find_cells(request, found.s2)


def _find_scenes(request: Request, drawn: Sequence[Cell], kept_in: Store | None) -> Found:
    areas = search_boxes(drawn) or [side for area in request.areas for side in antimeridian.sides(area.geometry)]
    scenes = partial(_scenes, request, areas, kept_in=kept_in)
    s2, unusable = scenes((request.s2,), dates=request.dates)
    s1, more = scenes(request.s1, dates=s1_dates(request)) if request.s1 else ([], {})
    if not s2 and not unusable:
        raise UsageError(
            f"no {request.s2} scene in {redact(request.catalog)} touches the area within "
            f"{request.dates.stac() or 'all time'}. Check --aoi (longitude first), --dates, --catalog and --s2."
        )
    everything = DateRange(start=None, end=None)
    labels = scenes(request.labels, dates=everything, label=True)[0] if request.labels else []
    lacking = sorted({*request.labels} - {scene.collection for scene in labels})
    if lacking:
        raise UsageError(
            f"no item with labels of {', '.join(lacking)} in {redact(request.catalog)} touches the area. "
            "Check --labels, or leave it out."
        )
    order = {name: i for i, name in enumerate(request.s1)}
    return Found(
        s2=s2, s1=sorted(s1, key=lambda scene: order[scene.collection]), labels=labels, unusable={**unusable, **more}
    )


def _scenes(
    request: Request,
    areas: Sequence[BaseGeometry],
    collections: Sequence[str],
    *,
    dates: DateRange,
    kept_in: Store | None,
    label: bool = False,
) -> tuple[list[Scene], dict[str, str]]:
    parse = partial(_parsed, label=label, s2_bands=request.s2_bands)
    parsed = catalog.search(request.catalog, collections, areas=areas, dates=dates, kept_in=kept_in, parse=parse)
    usable = [scene for scene in parsed if isinstance(scene, Scene)]
    reasons = {scene.scene_id: scene.reason for scene in parsed if isinstance(scene, Unusable)}
    again = {} if label else duplicates(usable)
    return [scene for scene in usable if scene.scene_id not in again], {**reasons, **again}


def _parsed(item: Item, *, label: bool, s2_bands: Sequence[str]) -> Scene | Unusable:
    """The scene of an item; one that is not as STAC has it is left out, as others are."""
    try:
        scene = parse_scene(item, label=label, s2_bands=s2_bands)
        if isinstance(scene, Scene) and scene.grid is not None:
            transformer(scene.grid.epsg, 4326)
        return replace(scene, scene_id=str(scene.scene_id))
    except (AttributeError, LookupError, TypeError, ValueError, ShapelyError, ProjError) as error:
        return Unusable(scene_id=str(item.get("id")), reason=f"damaged item: {type(error).__name__}: {error}")


def find_cells(request: Request, s2: Sequence[Scene]) -> list[Cell]:
    """The cells of the request, by id.

    Raises:
        UsageError: there is none.
    """
    areas = [area.geometry for area in request.areas]
    if request.grid == "utm":
        check_count(areas, request.chip_px)
        found = [cell for area in areas for cell in lattice_cells(area, request.chip_px)]
    elif request.grid == "blocks":
        check_count(areas, request.chip_px)
        found = [cell for area in areas for cell in block_cells(area, request.chip_px, request.block_px)]
    elif request.grid == "aoi":
        found = [centered_cell(area, _area_epsg(area, s2), request.chip_px) for area in areas]
    else:
        found = [cell for scene in s2 for cell in _scene_cells(scene, areas, request.chip_px)]
    cells = {cell.cell_id: cell for cell in found}
    if not cells:
        raise UsageError(
            f"no cell of {request.chip_px} pixels has its centre in the area on grid {request.grid!r}. "
            "Use a smaller --chip-px, another --grid, or a larger area."
        )
    return [cells[cell_id] for cell_id in sorted(cells)]


def _area_epsg(area: BaseGeometry, s2: Sequence[Scene]) -> int:
    """The UTM zone in which the area's own S2 scenes lie, so that they need no warp; its natural zone otherwise."""
    zones = [scene.grid.epsg for scene in s2 if scene.grid and scene.footprint.covers(area)]
    utm = sorted(epsg for epsg in zones if 32601 <= epsg <= 32760)
    lon, lat = antimeridian.joined(area).centroid.coords[0]
    natural = utm_epsg((lon + 180) % 360 - 180, lat)
    return natural if natural in utm or not utm else max(utm, key=utm.count)


def _scene_cells(scene: Scene, areas: Sequence[BaseGeometry], chip_px: int) -> list[Cell]:
    """Whole cells on the scene's own pixels whose centre lies in an area; none where its pixels are not 10 m."""
    grid = scene.grid
    if grid is None or (grid.transform[0], grid.transform[4]) != (PIXEL_M, -PIXEL_M):
        return []
    left, top, step = grid.transform[2], grid.transform[5], chip_px * PIXEL_M
    corners = [
        corner_cell(grid.epsg, left + col * step, top - row * step, chip_px)
        for row in range(grid.height_px // chip_px)
        for col in range(grid.width_px // chip_px)
    ]
    return [cell for cell in corners if any(shapely.contains_xy(area, *cell.center_lonlat) for area in areas)]


def _side(cell: Cell, request: Request) -> tuple[str, Split]:
    group = group_of(*cell.center_lonlat)
    return group, split_of(group, val_percent=request.val_percent, seed=request.seed)


def _labels_by_cell(outlines: NDArray[np.object_], labels: Sequence[Scene]) -> dict[int, Mapping[str, list[Scene]]]:
    found: dict[int, dict[str, list[Scene]]] = {i: defaultdict(list) for i in range(len(outlines))}
    tree = shapely.STRtree(outlines)
    for scene in labels:
        for i in tree.query(scene.footprint, predicate="covers").tolist():
            found[i][scene.collection].append(scene)
    return {i: dict(scenes) for i, scenes in found.items()}


def _left_out(cells: Sequence[Cell], chosen: Pairing | Stacking, leaks: Mapping[int, str]) -> tuple[LeftOut, ...]:
    reasons = {**chosen.cells_left_out, **leaks}
    return tuple(LeftOut(cell=cells[i], reason=reasons[i]) for i in sorted(reasons))
