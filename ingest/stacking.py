"""Which Sentinel-2 scenes make a time series on which cell. Pure: no catalog, no pixel.

In: cells, their outlines and scenes. Out: stacks of candidate scenes, and for every scene and cell that has none the
reason. A cell's overpasses are cut in order of time into as many stacks as can be filled, so that no scene is in two;
a stack keeps all candidates of its span, because clouds are only seen in the pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.coverage import candidates_by_cell
from ingest.grid import Cell
from ingest.scene import Scene
from ingest.spacing import Spacing, chain, lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Scenes of one cell, of which the frames are chosen."""

    cell: int
    """Position of the cell in the sequence that was given."""
    candidates: tuple[Scene, ...]
    """By time; enough of them may follow each other."""


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
    spacing: Spacing,
    own_grid: bool = False,
) -> Stacking:
    """Cut every cell's overpasses into stacks.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges.
        scenes: usable S2 scenes.
        frames: of a stack.
        spacing: what the frames of a stack must keep to.
        own_grid: only scenes whose pixels are the cell's pixels.
    """
    stacks: list[Stack] = []
    left_out: dict[int, str] = {}
    for i, candidates in enumerate(candidates_by_cell(cells, outlines, scenes, own_grid=own_grid)):
        times = tuple(scene.acquired for scene in candidates)
        groups = cut(times, frames, spacing)
        stacks += [Stack(cell=i, candidates=tuple(candidates[first:stop])) for first, stop in groups]
        if not groups:
            longest = max(lengths(times, spacing), default=0)
            left_out[i] = f"{longest} dates, {frames} wanted" if times else "no S2 covers the cell"
    used = {part.scene_id for one in stacks for scene in one.candidates for part in scene.parts}
    reasons = {scene.scene_id: "in no stack of any cell" for scene in scenes if scene.scene_id not in used}
    return Stacking(stacks=tuple(stacks), cells_left_out=left_out, scenes_left_out=reasons)


@cache  # the cells of a tile mostly have the same dates
def cut(times: tuple[datetime, ...], frames: int, spacing: Spacing) -> tuple[tuple[int, int], ...]:
    """First position and the one behind the last of each stack: as many stacks as can be filled, none sharing a date.

    Dates that no stack can bridge part them; between such borders they are shared out evenly, so that every stack has
    some to spare.
    """
    found: list[tuple[int, int]] = []
    for start, stop in _runs(times, frames, spacing):
        found += [(start + first, start + last) for first, last in _shared(times[start:stop], frames, spacing)]
    return tuple(found)


def _runs(times: Sequence[datetime], frames: int, spacing: Spacing) -> Iterator[tuple[int, int]]:
    """Spans of positions of which no stack needs more than one."""
    if spacing.seasons:
        yield from _season_runs(times, frames, spacing)
        return
    limit = spacing.max_gap_hours
    breaks = [
        i + 1
        for i, (one, other) in enumerate(pairwise(times))
        if limit is not None and (other - one).total_seconds() / 3600 > limit
    ]
    yield from pairwise([0, *breaks, len(times)])


def _season_runs(times: Sequence[datetime], frames: int, spacing: Spacing) -> Iterator[tuple[int, int]]:
    """The dates of so many seasons in a row that a stack can be made of them, then those of the next ones."""
    spans = [(season, [*places]) for season, places in groupby(range(len(times)), lambda i: spacing.season(times[i]))]
    first = 0
    while first + frames <= len(spans):
        start, stop = spans[first][1][0], spans[first + frames - 1][1][-1] + 1
        whole = chain(times[start:stop], spacing, frames) is not None
        if whole:
            yield start, stop
        first += frames if whole else 1


def _shared(times: Sequence[datetime], frames: int, spacing: Spacing) -> list[tuple[int, int]]:
    """`times` shared out among as many stacks as can all be filled."""
    apart = spaced(times, min_gap_hours=spacing.min_gap_hours)
    for count in range(1 if spacing.seasons else len(apart) // frames, 0, -1):
        starts = [apart[len(apart) * number // count] for number in range(count)]
        groups = list(pairwise([*starts, len(times)]))
        if all(chain(times[first:stop], spacing, frames) for first, stop in groups):
            return groups
    return []


def spaced(times: Sequence[datetime], *, min_gap_hours: float) -> list[int]:
    """Positions of the first time, of the first that is far enough from it, and so on."""
    chosen: list[int] = []
    for i, time in enumerate(times):
        if not chosen or (time - times[chosen[-1]]).total_seconds() >= min_gap_hours * 3600:
            chosen.append(i)
    return chosen
