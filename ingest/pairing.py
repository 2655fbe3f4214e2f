"""Which Sentinel-2 scene goes with which Sentinel-1 scene on which cell. Pure: no catalog, no pixel.

In: cells, their outlines and scenes. Out: pairs, and for every scene and cell that has none the reason. A pair is an
S2 acquisition with the S1 scene nearest in time, both covering the whole cell, at most `max_gap_hours` apart. Why
nearest in time with a maximum: nobody else bounds the gap, and a crop can be harvested between two passes.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.coverage import SAME_PASS_S, candidates_by_cell, covering, preference
from ingest.grid import Cell
from ingest.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One S2 and one S1 scene on one cell."""

    cell: int
    """Position of the cell in the sequence that was given."""
    s2: Scene
    """Optical scene."""
    s1: Scene
    """Radar scene."""
    gap_hours: float
    """Hours. |S1 time - S2 time|."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Every decision: what was paired, and why the rest was not."""

    pairs: tuple[Pair, ...]
    """By cell, then S2 time."""
    cells_left_out: Mapping[int, str]
    """Reason by position, for cells without any pair."""
    scenes_left_out: Mapping[str, str]
    """Reason by scene id, for scenes in no pair."""


def pair(
    cells: Sequence[Cell],
    outlines: NDArray[np.object_],
    scenes: tuple[Sequence[Scene], Sequence[Scene]],
    *,
    max_gap_hours: float,
    own_grid: bool = False,
) -> Pairing:
    """Pair every S2 acquisition of every cell with its nearest S1 acquisition.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges: a scene may end where the cell ends.
        scenes: usable S2 and S1 scenes; of equally near S1 scenes the first wins.
        max_gap_hours: hours between the two acquisitions, at most.
        own_grid: only S2 scenes whose pixels are the cell's pixels.
    """
    s2, s1 = scenes
    optical, radar = candidates_by_cell(cells, outlines, s2, own_grid=own_grid), covering(outlines, s1)
    pairs: list[Pair] = []
    tried: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: dict[int, str] = {}
    for i, cell in enumerate(cells):
        outcomes = [_outcome(scene, radar[i], cell, max_gap_hours) for scene in optical[i]]
        pairs += [Pair(cell=i, s2=s2, s1=s1, gap_hours=gap) for s2, s1, gap, reason in outcomes if s1 and not reason]
        for scene, _, _, reason in outcomes:
            tried[scene.scene_id][reason] += 1
        if all(reason for *_, reason in outcomes):
            left_out[i] = outcomes[0][3] if outcomes else "no S2 covers the cell"
    return Pairing(pairs=tuple(pairs), cells_left_out=left_out, scenes_left_out=_scenes_left_out(scenes, pairs, tried))


def _outcome(
    s2: Scene, candidates: Sequence[Scene], cell: Cell, max_gap_hours: float
) -> tuple[Scene, Scene | None, float, str]:
    """The S2 scene, its nearest S1 scene, their gap in hours, and why they are no pair (empty where they are)."""
    if not candidates:
        return s2, None, 0.0, "no S1"
    gaps = [(abs((s1.acquired - s2.acquired).total_seconds()) / 3600, s1) for s1 in candidates]
    # One acquisition is in several products, whose times differ by seconds: the asked order decides among them.
    nearest = min(gap for gap, _ in gaps)
    limit = min(nearest + SAME_PASS_S / 3600, max(nearest, max_gap_hours))
    same = [found for found in gaps if found[0] <= limit]
    collection = same[0][1].collection
    gap, s1 = min(
        (found for found in same if found[1].collection == collection),
        key=lambda found: (found[0], preference(found[1], cell)[0]),
    )
    return s2, s1, gap, "" if gap <= max_gap_hours else f"gap {gap:.1f} h"


def _scenes_left_out(
    scenes: tuple[Sequence[Scene], Sequence[Scene]], pairs: Sequence[Pair], tried: Mapping[str, Counter[str]]
) -> dict[str, str]:
    s2, s1 = scenes
    used = {scene.scene_id for pair in pairs for scene in (pair.s2, pair.s1)}
    reasons: dict[str, str] = {}
    for scene in s2:
        if scene.scene_id not in used:
            most = tried[scene.scene_id].most_common(1)
            reasons[scene.scene_id] = most[0][0] if most else "covers no whole cell, or its pass has a better scene"
    for scene in s1:
        if scene.scene_id not in used:
            reasons[scene.scene_id] = "nearest to no S2 scene within the gap"
    return reasons
