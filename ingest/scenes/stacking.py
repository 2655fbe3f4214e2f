"""Which Sentinel-2 scenes make a time series on which cell. Pure: no catalog, no pixel.

In: cells, their outlines and scenes. Out: stacks of candidate scenes, and for every scene and cell that has none the
reason. A cell's overpasses are cut in order of time into as many stacks as can be filled, so that no scene is in two;
a stack keeps all candidates of its span, because clouds are only seen in the pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import Cell
from ingest.scenes.coverage import candidates_by_cell, radar_by_cell
from ingest.scenes.pairing import Candidate, PairRules, barred_by, nearest
from ingest.scenes.scene import Scene
from ingest.scenes.spacing import Spacing, chain, lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Scenes of one cell, of which the frames are chosen."""

    cell: int
    """Position of the cell in the sequence that was given."""
    candidates: tuple[Scene, ...]
    """By time; enough of them may follow each other."""
    radar: tuple[Scene, ...] = ()
    """The S1 scene of each candidate, all of one track; empty without S1."""


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
    radar: tuple[Sequence[Scene], PairRules] | None = None,
    own_grid: bool = False,
) -> Stacking:
    """Cut every cell's overpasses into stacks.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges.
        scenes: usable S2 scenes.
        frames: of a stack.
        spacing: what the frames of a stack must keep to.
        radar: usable S1 scenes and what may go with an S2 scene, where each frame needs one; all those of a stack are
            of one track, the one that serves the most dates.
        own_grid: only scenes whose pixels are the cell's pixels.
    """
    stacks: list[Stack] = []
    left_out: dict[int, str] = {}
    partners = radar_by_cell(cells, outlines, radar[0]) if radar else [[] for _ in cells]
    for i, optical in enumerate(candidates_by_cell(cells, outlines, scenes, own_grid=own_grid)):
        candidates, s1 = _with_radar(optical, partners[i], cells[i], radar[1]) if radar else (optical, [])
        times = tuple(scene.acquired for scene in candidates)
        groups = cut(times, frames, spacing)
        stacks += [Stack(cell=i, candidates=tuple(candidates[a:b]), radar=tuple(s1[a:b])) for a, b in groups]
        if not groups:
            longest, with_s1 = max(lengths(times, spacing), default=0), " with S1 of one track" if radar else ""
            left_out[i] = f"{longest} dates{with_s1}, {frames} wanted" if optical else "no S2 covers the cell"
    used = {part.scene_id for one in stacks for scene in (*one.candidates, *one.radar) for part in scene.parts}
    offered = (*scenes, *(radar[0] if radar else ()))
    reasons = {scene.scene_id: "in no stack of any cell" for scene in offered if scene.scene_id not in used}
    return Stacking(stacks=tuple(stacks), cells_left_out=left_out, scenes_left_out=reasons)


def _with_radar(
    optical: Sequence[Scene], radar: Sequence[Scene], cell: Cell, rules: PairRules
) -> tuple[list[Scene], list[Scene]]:
    """The S2 scenes that have an S1 scene of the track that serves the most of them, and those S1 scenes."""
    tracks: dict[tuple[str, int], list[Scene]] = defaultdict(list)
    for scene in radar:
        if not barred_by(scene, rules):
            tracks[scene.orbit_state or "", scene.relative_orbit or 0].append(scene)
    best: list[Candidate] = []
    for _, members in sorted(tracks.items()):
        met = [nearest(scene, members, cell, rules) for scene in optical]
        best = max(best, [one for one in met if not one.reason], key=len)
    return [one.s2 for one in best], [one.s1 for one in best if one.s1]


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
