"""Why is this cell as it is? Every scene near it, with what became of it. Pure: no pixel, and no catalog of its own.

In: the request, one cell, and the scenes that the catalog has. Out: one verdict a scene, from the same functions that
make the plan, so that it cannot say anything else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import shapely
from shapely.geometry.base import BaseGeometry

from ingest.areas.grid import PIXEL_M, Cell, footprints
from ingest.planner import Found, choose, pair_rules
from ingest.request import Request
from ingest.scenes.coverage import candidates_by_cell, is_own_grid, radar_by_cell
from ingest.scenes.pairing import candidates
from ingest.scenes.scene import Scene
from ingest.scenes.stacking import Stacking
from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one scene on one cell."""

    sensor: str
    """`s2`, `s1`; empty where the catalog's record cannot be used."""
    scene_id: str
    """The STAC item's id."""
    acquired: datetime | None
    """UTC."""
    cloud_percent: float | None
    """Percent of the whole scene."""
    used: bool
    """Whether a chip is made of it, or a stack may be."""
    verdict: str
    """In words."""


def find_cell(cells: Sequence[Cell], where: str) -> Cell:
    """The cell that `where` names: its id, the key of one of its samples, or a point `lon,lat` in it.

    Raises:
        UsageError: there is none.
    """
    by_id = {cell.cell_id: cell for cell in cells}
    for name in (where, where.rsplit("-", 2)[0]):
        if name in by_id:
            return by_id[name]
    try:
        lon, lat = (float(part) for part in where.split(","))
    except ValueError:
        raise UsageError(
            f"--explain {where!r}: no cell of this request has that id. "
            f"Give a cell as {min(by_id)}, the key of a sample, or lon,lat."
        ) from None
    point = shapely.Point(lon, lat)
    hits = [cell for cell, outline in zip(cells, footprints(cells), strict=True) if outline.covers(point)]
    if not hits:
        raise UsageError(f"--explain {where!r}: no cell of this request holds that point. Longitude comes first.")
    return min(hits, key=lambda cell: (point.distance(shapely.Point(cell.center_lonlat)), cell.cell_id))


def explain(request: Request, cell: Cell, found: Found) -> list[Verdict]:
    """Every scene that the catalog has for the request, with what became of it on `cell`: S2, S1, then the unusable."""
    outline = footprints([cell], inset_m=PIXEL_M)
    chosen = choose(request, [cell], outline, found)
    if isinstance(chosen, Stacking):
        used = _stacked(chosen)
    else:
        optical = candidates_by_cell([cell], outline, found.s2, own_grid=request.grid == "scene")[0]
        radar = radar_by_cell([cell], outline, found.s1)[0]
        used = _paired(request, cell, optical, radar)
    reasons = dict(chosen.scenes_left_out)
    if isinstance(chosen, Stacking) and not chosen.stacks:
        reasons = dict.fromkeys(reasons, chosen.cells_left_out[0])
    verdicts = []
    for scene in (*found.s2, *found.s1):
        because = used.get(scene.scene_id) or _uncovered(scene, cell, outline[0], request)
        verdicts.append(
            Verdict(
                sensor=scene.sensor,
                scene_id=scene.scene_id,
                acquired=scene.acquired,
                cloud_percent=scene.cloud_percent,
                used=scene.scene_id not in reasons,
                verdict=because or reasons.get(scene.scene_id, "not used"),
            )
        )
    order = {"s2": 0, "s1": 1}
    verdicts.sort(key=lambda one: (order[one.sensor], one.acquired, one.scene_id))
    return [*verdicts, *_unusable(found.unusable)]


def _paired(request: Request, cell: Cell, optical: Sequence[Scene], radar: Sequence[Scene]) -> dict[str, str]:
    """Verdict by scene: the partner and the gap; else the reason with the nearest partner."""
    said: dict[str, str] = {}
    tried = candidates(optical, radar, cell, pair_rules(request))
    for one in sorted(tried, key=lambda one: (bool(one.reason), one.gap_hours if one.gap_hours is not None else 1e9)):
        for scene, other in ((one.s2, one.s1), (one.s1, one.s2)):
            partner = f" ({other.scene_id}, {one.gap_hours:.1f} h)" if other and one.gap_hours is not None else ""
            text = f"{one.reason}{partner}" if one.reason else f"paired{partner}"
            for part in scene.parts if scene is not None else ():
                if not one.reason or part.scene_id not in said:
                    said[part.scene_id] = f"{said[part.scene_id]}; {text}" if part.scene_id in said else text
    return said


def _stacked(chosen: Stacking) -> dict[str, str]:
    of = f"of {len(chosen.stacks)}"
    return {
        part.scene_id: f"candidate of stack {number} {of}"
        for number, stack in enumerate(chosen.stacks, 1)
        for scene in (*stack.candidates, *stack.radar)
        for part in scene.parts
    }


def _uncovered(scene: Scene, cell: Cell, outline: BaseGeometry, request: Request) -> str:
    """Why a scene cannot hold the cell at all; empty where it can."""
    footprint = scene.footprint
    if not footprint.covers(outline):
        share = footprint.intersection(outline).area / outline.area
        return f"covers {share:.0%} of the cell" if share else "does not touch the cell"
    if scene.sensor == "s2" and request.grid == "scene" and not is_own_grid(scene, cell):
        return "its pixels are not the cell's"
    return ""


def _unusable(reasons: Mapping[str, str]) -> Iterator[Verdict]:
    for scene_id, reason in sorted(reasons.items()):
        yield Verdict(
            sensor="", scene_id=scene_id, acquired=None, cloud_percent=None, used=False, verdict=f"unusable: {reason}"
        )


def lines(cell: Cell, verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts as a table for a person."""
    lon, lat = cell.center_lonlat
    used = sum(one.used for one in verdicts)
    head = f"cell {cell.cell_id} at {lon:.5f},{lat:.5f}: {used} of {len(verdicts)} scenes used"
    width = max((len(one.scene_id) for one in verdicts), default=0)
    return [head, *(_line(one, width) for one in verdicts)]


def _line(one: Verdict, width: int) -> str:
    time = f"{one.acquired:%Y-%m-%d %H:%M}" if one.acquired else "-"
    cloud = "" if one.cloud_percent is None else f"{one.cloud_percent:.0f} %"
    return f"{'+' if one.used else '-'} {one.sensor:<2} {time:<16} {cloud:>5}  {one.scene_id:<{width}}  {one.verdict}"
