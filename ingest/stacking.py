"""Which Sentinel-2 scenes make a time series on which cell. Pure: no catalog, no pixel.

In: cells, their outlines and scenes. Out: stacks of candidate scenes, and for every scene and cell that has none the
reason. A cell's overpasses are cut in order of time into as many stacks as can be filled, so that no scene is in two;
a stack keeps all candidates of its span, because clouds are only seen in the pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ingest.coverage import candidates_by_cell
from ingest.grid import Cell
from ingest.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Scenes of one cell, of which the frames are chosen."""

    cell: int
    """Position of the cell in the sequence that was given."""
    candidates: tuple[Scene, ...]
    """By time; enough of them are far enough apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacking:
    """Every decision: what was stacked, and why the rest was not."""

    stacks: tuple[Stack, ...]
    """By cell, then time."""
    cells_left_out: Mapping[int, str]
    """Reason by position, for cells without any stack."""
    scenes_left_out: Mapping[str, str]
    """Reason by scene id, for scenes in no stack."""


def stack(
    cells: Sequence[Cell],
    outlines: NDArray[np.object_],
    scenes: Sequence[Scene],
    *,
    frames: int,
    min_gap_hours: float,
    own_grid: bool = False,
) -> Stacking:
    """Cut every cell's overpasses into stacks.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges.
        scenes: usable S2 scenes.
        frames: of a stack.
        min_gap_hours: hours between two frames of a stack, at least.
        own_grid: only scenes whose pixels are the cell's pixels.
    """
    stacks: list[Stack] = []
    left_out: dict[int, str] = {}
    for i, candidates in enumerate(candidates_by_cell(cells, outlines, scenes, own_grid=own_grid)):
        times = [scene.acquired for scene in candidates]
        groups = cut(times, frames=frames, min_gap_hours=min_gap_hours)
        stacks += [Stack(cell=i, candidates=tuple(candidates[first:stop])) for first, stop in groups]
        if not groups:
            apart = len(spaced(times, min_gap_hours=min_gap_hours))
            left_out[i] = f"{apart} dates, {frames} wanted" if times else "no S2 covers the cell"
    used = {scene.scene_id for one in stacks for scene in one.candidates}
    reasons = {scene.scene_id: "in no stack of any cell" for scene in scenes if scene.scene_id not in used}
    return Stacking(stacks=tuple(stacks), cells_left_out=left_out, scenes_left_out=reasons)


def cut(times: Sequence[datetime], *, frames: int, min_gap_hours: float) -> list[tuple[int, int]]:
    """First position and the one behind the last of each stack; together all of `times`, if there is any.

    The dates that are far enough apart are shared out evenly, so that every stack has some to spare.
    """
    apart = spaced(times, min_gap_hours=min_gap_hours)
    count = len(apart) // frames
    starts = [apart[len(apart) * number // count] for number in range(count)]
    return list(zip(starts, [*starts[1:], len(times)], strict=True)) if count else []


def spaced(times: Sequence[datetime], *, min_gap_hours: float) -> list[int]:
    """Positions of the first time, of the first that is far enough from it, and so on."""
    chosen: list[int] = []
    for i, time in enumerate(times):
        if not chosen or (time - times[chosen[-1]]).total_seconds() >= min_gap_hours * 3600:
            chosen.append(i)
    return chosen
