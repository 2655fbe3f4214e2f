"""Which scenes a cell can be made of: they cover it, and each overpass counts once. Pure: no catalog, no pixel.

Two S2 items of one tile and one pass are rarely one strip processed twice: all thirteen such pairs of a thousand real
records are two data strips with other pixels each. So the same strip twice is dropped by rule, and different strips are
joined: where no scene of a pass covers a cell alone, those that cover it together become one candidate.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ingest.areas.grid import PIXEL_M, Cell
from ingest.scenes.offset import baseline_rank
from ingest.scenes.scene import Scene

SAME_PASS_S = 600
"""Seconds. Scenes of one cell closer than this are one overpass cut into tiles or slices, or processed twice."""
DUPLICATE_IOU = 0.95
"""Intersection over union of two outlines of one tile and pass, above which they are the same strip."""
_SLIT_DEG = {"s1": 5e-4, "s2": 0.0}
"""Degrees. Outlines of S1 slices are generalised: slits up to twice this may have pixels; those decide. Seen: 55 m.
Data strips of S2 overlap."""


def candidates_by_cell(
    cells: Sequence[Cell], outlines: NDArray[np.object_], scenes: Sequence[Scene], *, own_grid: bool
) -> list[list[Scene]]:
    """For each cell its S2 scenes in order of time, one an overpass.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges: a scene may end where the cell ends.
        scenes: usable S2 scenes.
        own_grid: only scenes whose pixels are the cell's pixels.
    """
    found: list[list[Scene]] = []
    for cell, outline, here in zip(cells, outlines, _touching(outlines, scenes), strict=True):
        whole, part = ([one for one in some if not own_grid or is_own_grid(one, cell)] for some in here)
        best = [min(group, key=lambda scene: preference(scene, cell)) for group in _passes(whole)]
        joined = [join(group, cell, outline) for group in _passes(_of_other_passes(part, whole))]
        both = best + [scene for scene in joined if scene]
        found.append(sorted(both, key=lambda scene: (scene.acquired, scene.scene_id)))
    return found


def radar_by_cell(cells: Sequence[Cell], outlines: NDArray[np.object_], scenes: Sequence[Scene]) -> list[list[Scene]]:
    """For each cell its S1 scenes in the scenes' order; slices of one datatake that cover it together are one."""
    order = {scene.scene_id: i for i, scene in enumerate(scenes)}
    found: list[list[Scene]] = []
    for cell, outline, (whole, part) in zip(cells, outlines, _touching(outlines, scenes), strict=True):
        joined: list[Scene | None] = []
        for track in {_track(scene): None for scene in part}:
            slices, alone = ([scene for scene in some if _track(scene) == track] for some in (part, whole))
            joined += [join(group, cell, outline) for group in _passes(_of_other_passes(slices, alone))]
        both = whole + [scene for scene in joined if scene]
        found.append(sorted(both, key=lambda scene: order[scene.scene_id]))
    return found


def is_own_grid(scene: Scene, cell: Cell) -> bool:
    """Whether the scene's 10 m pixels are the cell's pixels."""
    if scene.grid is None or scene.grid.epsg != cell.epsg:
        return False
    a, b, c, d, e, f = scene.grid.transform
    steps = ((cell.left_m - c) / PIXEL_M, (cell.top_m - f) / PIXEL_M)
    return (a, b, d, e) == (PIXEL_M, 0, 0, -PIXEL_M) and all(abs(step - round(step)) < 1e-3 for step in steps)


def duplicates(scenes: Sequence[Scene]) -> Mapping[str, str]:
    """Scenes that another of the same tile (S2) or datatake (S1) and pass replaces: by id, the reason.

    The highest baseline stays, then the one made last, then the first id. Scenes whose tile or platform the catalog
    does not say are never duplicates.
    """
    groups: dict[object, list[Scene]] = defaultdict(list)
    for scene in scenes:
        if scene.tile if scene.sensor == "s2" else scene.platform:
            tile = scene.tile if scene.sensor == "s2" else scene.collection
            groups[scene.sensor, tile, scene.platform].append(scene)
    dropped: dict[str, str] = {}
    for members in groups.values():
        kept: list[Scene] = []
        for scene in sorted(members, key=_newest_first):
            same = next((other for other in kept if _is_same_strip(scene, other)), None)
            if same is None:
                kept.append(scene)
            else:
                dropped[scene.scene_id] = f"duplicate of {same.scene_id}"
    return dropped


def join(scenes: Sequence[Scene], cell: Cell, outline: BaseGeometry) -> Scene | None:
    """The scene with the most of a cell, and those of its grid that fill the rest; None where they leave a gap."""
    sizes = {scene.scene_id: shapely.intersection(_ground(scene), outline).area for scene in scenes}
    first, *others = sorted(scenes, key=lambda scene: (is_warped(scene, cell), -sizes[scene.scene_id], scene.scene_id))
    fills: list[Scene] = []
    union = _ground(first)
    for scene in others:
        wider = shapely.union(union, _ground(scene))
        if _is_same_grid(first, scene) and shapely.intersection(wider, outline).area > union.intersection(outline).area:
            fills.append(scene)
            union = wider
    slit = _SLIT_DEG.get(first.sensor, 0.0)
    closed = union.buffer(slit, join_style="mitre").buffer(-slit, join_style="mitre") if slit else union
    return replace(first, fills=tuple(fills)) if fills and closed.covers(outline) else None


def is_warped(scene: Scene, cell: Cell) -> bool:
    """Whether the scene lies in another zone than the cell, as far as the catalog says."""
    return scene.grid is None or scene.grid.epsg != cell.epsg


def preference(scene: Scene, cell: Cell) -> tuple[bool, int, int, str]:
    """Sorts scenes of one overpass, the best first: no warp needed, then the highest baseline, then the id."""
    major, minor = baseline_rank(scene.baseline)
    return is_warped(scene, cell), -major, -minor, scene.scene_id


def _ground(scene: Scene) -> BaseGeometry:
    """The scene's footprint, read from its text once for all cells."""
    return _parsed(scene.footprint_wkt)


@lru_cache(maxsize=4096)
def _parsed(wkt: str) -> BaseGeometry:
    return shapely.from_wkt(wkt)


def _touching(outlines: NDArray[np.object_], scenes: Sequence[Scene]) -> list[tuple[list[Scene], list[Scene]]]:
    """For each outline the scenes that cover it, and those that cover a part of it, both in the scenes' order."""
    found: list[tuple[list[Scene], list[Scene]]] = [([], []) for _ in outlines]
    tree = shapely.STRtree(outlines)
    for scene in scenes:
        whole = set(tree.query(_ground(scene), predicate="covers").tolist())
        for i in sorted(whole):
            found[i][0].append(scene)
        for i in set(tree.query(_ground(scene), predicate="intersects").tolist()) - whole:
            found[i][1].append(scene)
    return found


def _passes(scenes: Iterable[Scene]) -> list[list[Scene]]:
    passes: list[list[Scene]] = []
    for scene in sorted(scenes, key=lambda scene: (scene.acquired, scene.scene_id)):
        if passes and (scene.acquired - passes[-1][0].acquired).total_seconds() < SAME_PASS_S:
            passes[-1].append(scene)
        else:
            passes.append([scene])
    return passes


def _of_other_passes(part: Sequence[Scene], whole: Sequence[Scene]) -> list[Scene]:
    """Scenes of passes in which no scene covers the cell alone."""
    return [scene for scene in part if not any(_is_same_pass(scene, other) for other in whole)]


def _is_same_pass(one: Scene, other: Scene) -> bool:
    return abs((one.acquired - other.acquired).total_seconds()) < SAME_PASS_S


def _track(scene: Scene) -> tuple[str, str | None, int | None]:
    return scene.collection, scene.platform, scene.relative_orbit


def _newest_first(scene: Scene) -> tuple[int, int, float, str]:
    major, minor = baseline_rank(scene.baseline)
    return -major, -minor, -scene.generated.timestamp() if scene.generated else 0.0, scene.scene_id


def _is_same_strip(one: Scene, other: Scene) -> bool:
    if not _is_same_pass(one, other):
        return False
    if one.datastrip and one.datastrip == other.datastrip:
        return True
    both = shapely.union(_ground(one), _ground(other)).area
    return bool(both) and shapely.intersection(_ground(one), _ground(other)).area / both > DUPLICATE_IOU


def _is_same_grid(one: Scene, other: Scene) -> bool:
    """Whether pixels of one lie on pixels of the other: one satellite, and one tile or grids that say so."""
    for a, b in ((one.platform, other.platform), (one.relative_orbit, other.relative_orbit)):
        if None not in (a, b) and a != b:
            return False
    if one.grid is None or other.grid is None:
        return one.tile is not None and one.tile == other.tile
    return one.grid.is_aligned(other.grid)
