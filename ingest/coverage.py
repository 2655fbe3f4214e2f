"""Which scenes a cell can be made of: they cover it, and each overpass counts once. Pure: no catalog, no pixel."""

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.grid import PIXEL_M, Cell
from ingest.scene import Scene, baseline_rank

SAME_PASS_S = 600
"""Seconds. S2 scenes of one cell closer than this are one overpass cut into tiles or processed twice."""


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
    found = zip(cells, covering(outlines, scenes), strict=True)
    return [
        one_per_pass((scene for scene in here if not own_grid or is_own_grid(scene, cell)), cell)
        for cell, here in found
    ]


def is_own_grid(scene: Scene, cell: Cell) -> bool:
    """Whether the scene's 10 m pixels are the cell's pixels."""
    if scene.grid is None or scene.grid.epsg != cell.epsg:
        return False
    a, b, c, d, e, f = scene.grid.transform
    steps = ((cell.left_m - c) / PIXEL_M, (cell.top_m - f) / PIXEL_M)
    return (a, b, d, e) == (PIXEL_M, 0, 0, -PIXEL_M) and all(abs(step - round(step)) < 1e-3 for step in steps)


def covering(outlines: NDArray[np.object_], scenes: Sequence[Scene]) -> list[list[Scene]]:
    """For each outline the scenes whose footprint covers it, in the scenes' order."""
    found: list[list[Scene]] = [[] for _ in outlines]
    tree = shapely.STRtree(outlines)
    for scene in scenes:
        for i in tree.query(scene.footprint, predicate="covers").tolist():
            found[i].append(scene)
    return found


def one_per_pass(scenes: Iterable[Scene], cell: Cell) -> list[Scene]:
    """Of scenes of one overpass the best: no warp needed, then the highest baseline, then the id."""
    passes: list[list[Scene]] = []
    for scene in sorted(scenes, key=lambda scene: (scene.acquired, scene.scene_id)):
        if passes and (scene.acquired - passes[-1][0].acquired).total_seconds() < SAME_PASS_S:
            passes[-1].append(scene)
        else:
            passes.append([scene])
    return [min(group, key=lambda scene: preference(scene, cell)) for group in passes]


def preference(scene: Scene, cell: Cell) -> tuple[bool, int, int, str]:
    """Sorts scenes of one overpass, the best first."""
    warped = scene.grid is None or scene.grid.epsg != cell.epsg
    major, minor = baseline_rank(scene.baseline)
    return warped, -major, -minor, scene.scene_id
