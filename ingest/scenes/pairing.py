"""Which Sentinel-2 scene goes with which Sentinel-1 scene on which cell. Pure: no catalog, no pixel.

In: cells, their outlines, scenes and rules. Out: pairs, and for every scene and cell that has none the reason. A pair
is an S2 acquisition with an S1 scene, each covering the cell alone or with others of its pass, at most `max_gap_hours`
apart. Why a maximum: nobody else bounds the gap, and a crop can be harvested between two passes.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.areas.grid import Cell
from ingest.scenes.coverage import SAME_PASS_S, candidates_by_cell, preference, radar_by_cell
from ingest.scenes.matching import match
from ingest.scenes.scene import Scene

REUSED = "its S1 goes with another S2"
"""Why an S2 scene is left alone where each S1 scene may be used once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRules:
    """What may be a pair."""

    max_gap_hours: float
    """Hours between the two acquisitions, at most."""
    direction: str | None = None
    """`ascending` or `descending`: the only S1 passes to use; None takes both."""
    tracks: tuple[int, ...] = ()
    """Relative orbits of S1 to use; empty takes all."""
    one_to_one: bool = False
    """Each S1 acquisition of a cell is used once, for the most pairs and then the least total gap."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An S2 and an S1 scene that both cover a cell, and whether they became a pair there."""

    s2: Scene
    """Optical scene."""
    s1: Scene | None
    """Radar scene; None where none covers the cell."""
    gap_hours: float | None
    """Hours. |S1 time - S2 time|."""
    reason: str
    """Why they are no pair; empty where they are."""


def pair(
    cells: Sequence[Cell],
    outlines: NDArray[np.object_],
    scenes: tuple[Sequence[Scene], Sequence[Scene]],
    *,
    rules: PairRules,
    own_grid: bool = False,
) -> Pairing:
    """Pair every S2 acquisition of every cell with its nearest S1 acquisition.

    Args:
        cells: C cells.
        outlines: (C,) their polygons in degrees, one pixel inside the edges: a scene may end where the cell ends.
        scenes: usable S2 and S1 scenes; of equally near S1 scenes the first wins.
        rules: what may be a pair.
        own_grid: only S2 scenes whose pixels are the cell's pixels.
    """
    s2, s1 = scenes
    barred = {scene.scene_id: reason for scene in s1 if (reason := barred_by(scene, rules))}
    allowed = [scene for scene in s1 if scene.scene_id not in barred]
    optical, radar = candidates_by_cell(cells, outlines, s2, own_grid=own_grid), radar_by_cell(cells, outlines, allowed)
    pairs: list[Pair] = []
    tried: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: dict[int, str] = {}
    for i, cell in enumerate(cells):
        chosen = _choose(optical[i], radar[i], cell, rules)
        pairs += [_pair(i, one) for one in chosen if not one.reason]
        for one in chosen:
            for part in one.s2.parts:
                tried[part.scene_id][one.reason] += 1
        if all(one.reason for one in chosen):
            left_out[i] = chosen[0].reason if chosen else "no S2 covers the cell"
    return Pairing(
        pairs=tuple(pairs),
        cells_left_out=left_out,
        scenes_left_out=_scenes_left_out(s2, allowed, pairs, tried) | barred,
    )


def candidates(optical: Sequence[Scene], radar: Sequence[Scene], cell: Cell, rules: PairRules) -> list[Candidate]:
    """Every S2 scene of a cell beside every S1 scene that covers it, each with its verdict, by time of S2 and of S1.

    Args:
        optical: its S2 scenes, one an overpass, by time.
        radar: all S1 scenes that cover it, in order of preference.
        cell: the cell.
        rules: what may be a pair.
    """
    allowed = [scene for scene in radar if not barred_by(scene, rules)]
    found: list[Candidate] = []
    for chosen in _choose(optical, allowed, cell, rules):
        others = sorted((s1 for s1 in radar if s1 is not chosen.s1), key=lambda scene: (scene.acquired, scene.scene_id))
        rejected = [_rejected(chosen, s1, rules) for s1 in others]
        found += sorted([chosen, *rejected], key=lambda one: (one.s1 is None, one.s1 and one.s1.acquired, one.reason))
    return found


def _choose(optical: Sequence[Scene], radar: Sequence[Scene], cell: Cell, rules: PairRules) -> list[Candidate]:
    """One verdict for each S2 scene: with its S1, or with the nearest one and the reason why they are no pair."""
    found = [nearest(scene, radar, cell, rules) for scene in optical]
    if not rules.one_to_one:
        return found
    passes = _passes(radar)
    table = [[nearest(scene, members, cell, rules) for members in passes] for scene in optical]
    columns = match([[None if one.reason else one.gap_hours for one in row] for row in table])
    return [
        table[i][j] if j is not None else replace(found[i], reason=found[i].reason or REUSED)
        for i, j in enumerate(columns)
    ]


def nearest(s2: Scene, radar: Sequence[Scene], cell: Cell, rules: PairRules) -> Candidate:
    """The S2 scene with its nearest S1 scene."""
    if not radar:
        return Candidate(s2=s2, s1=None, gap_hours=None, reason="no S1")
    gaps = [(_gap_hours(s2, s1), s1) for s1 in radar]
    # One acquisition is in several products, whose times differ by seconds: the asked order decides among them.
    least = min(gap for gap, _ in gaps)
    limit = min(least + SAME_PASS_S / 3600, max(least, rules.max_gap_hours))
    same = [found for found in gaps if found[0] <= limit]
    collection = same[0][1].collection
    gap, s1 = min(
        (found for found in same if found[1].collection == collection),
        key=lambda found: (found[0], preference(found[1], cell)[0]),
    )
    return Candidate(s2=s2, s1=s1, gap_hours=gap, reason=_too_far(gap, rules))


def _pair(cell: int, met: Candidate) -> Pair:
    if met.s1 is None or met.gap_hours is None:
        raise AssertionError  # without S1 there is a reason
    return Pair(cell=cell, s2=met.s2, s1=met.s1, gap_hours=met.gap_hours)


def _rejected(chosen: Candidate, s1: Scene, rules: PairRules) -> Candidate:
    gap = _gap_hours(chosen.s2, s1)
    other = "another S1 is nearer or preferred" if not chosen.reason else chosen.reason
    return Candidate(s2=chosen.s2, s1=s1, gap_hours=gap, reason=barred_by(s1, rules) or _too_far(gap, rules) or other)


def barred_by(s1: Scene, rules: PairRules) -> str:
    """Why an S1 scene may be in no pair at all; empty where it may."""
    if rules.direction and s1.orbit_state != rules.direction:
        return f"{s1.orbit_state or 'unknown'} pass, {rules.direction} wanted"
    if rules.tracks and s1.relative_orbit not in rules.tracks:
        track = "unknown" if s1.relative_orbit is None else s1.relative_orbit
        return f"track {track}, not one of {', '.join(str(track) for track in rules.tracks)}"
    return ""


def _passes(radar: Sequence[Scene]) -> list[list[Scene]]:
    """S1 scenes by acquisition, in order of time; within one in the given order."""
    passes: list[list[Scene]] = []
    for scene in sorted(radar, key=lambda scene: scene.acquired):
        if passes and (scene.acquired - passes[-1][0].acquired).total_seconds() < SAME_PASS_S:
            passes[-1].append(scene)
        else:
            passes.append([scene])
    order = {id(scene): i for i, scene in enumerate(radar)}
    return [sorted(members, key=lambda scene: order[id(scene)]) for members in passes]


def _gap_hours(s2: Scene, s1: Scene) -> float:
    return abs((s1.acquired - s2.acquired).total_seconds()) / 3600


def _too_far(gap_hours: float, rules: PairRules) -> str:
    return "" if gap_hours <= rules.max_gap_hours else f"gap {gap_hours:.1f} h"


def _scenes_left_out(
    s2: Sequence[Scene], s1: Sequence[Scene], pairs: Sequence[Pair], tried: Mapping[str, Counter[str]]
) -> dict[str, str]:
    used = {part.scene_id for pair in pairs for scene in (pair.s2, pair.s1) for part in scene.parts}
    reasons: dict[str, str] = {}
    for scene in s2:
        if scene.scene_id not in used:
            most = tried[scene.scene_id].most_common(1)
            reasons[scene.scene_id] = most[0][0] if most else "covers no whole cell, or its pass has a better scene"
    for scene in s1:
        if scene.scene_id not in used:
            reasons[scene.scene_id] = "nearest to no S2 scene within the gap"
    return reasons
