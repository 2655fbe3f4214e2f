"""Pairing against ten lines that try everything."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.areas.grid import Cell, corner_cell, footprints
from ingest.scenes.coverage import SAME_PASS_S, is_own_grid
from ingest.scenes.pairing import REUSED, PairRules, candidates, pair
from ingest.scenes.scene import Grid, Scene

pytestmark = pytest.mark.ingest

CELLS = [corner_cell(32633, 500040.0 + 240 * i, 5300040.0, 24) for i in range(3)]
OUTLINES = footprints(CELLS, inset_m=10)
_BOUNDS = shapely.total_bounds(OUTLINES)
Drawn = tuple[list[tuple[float, int, int]], list[tuple[float, int, int]]]


def _over(first: int, last: int) -> str:
    """A footprint that covers cells `first` to `last` wholly and its neighbours by half."""
    step = (_BOUNDS[2] - _BOUNDS[0]) / len(CELLS)
    west, east = _BOUNDS[0] + step * (first - 0.4), _BOUNDS[0] + step * (last + 1.4)
    return shapely.box(west, _BOUNDS[1] - 0.01, east, _BOUNDS[3] + 0.01).wkt


_DRAWN = st.lists(
    st.tuples(st.floats(0, 400).map(lambda hours: round(hours, 1)), st.integers(0, 2), st.integers(0, 2)), max_size=6
)


@settings(max_examples=120, deadline=None)
@given(st.tuples(_DRAWN, _DRAWN), st.sampled_from([6.0, 72.0, 1000.0]))
def test_pairs_are_brute_force(make_scene: Callable[..., Scene], drawn: Drawn, max_gap_hours: float) -> None:
    s2, s1 = (
        [
            make_scene(f"{sensor}-{i}", sensor=sensor, hours=hours, footprint_wkt=_over(min(a, b), max(a, b)))
            for i, (hours, a, b) in enumerate(scenes)
        ]
        for sensor, scenes in zip(("s2", "s1"), drawn, strict=True)
    )
    made = pair(CELLS, OUTLINES, (s2, s1), rules=PairRules(max_gap_hours=max_gap_hours))
    want = []
    for i, outline in enumerate(OUTLINES):
        covering = sorted((s for s in s2 if s.footprint.covers(outline)), key=lambda s: (s.acquired, s.scene_id))
        passes: list[list[Scene]] = []
        for scene in covering:
            if not passes or (scene.acquired - passes[-1][0].acquired).total_seconds() >= SAME_PASS_S:
                passes.append([])
            passes[-1].append(scene)
        for scene in (min(group, key=lambda s: s.scene_id) for group in passes):
            gaps = [(abs(s.acquired - scene.acquired), n, s) for n, s in enumerate(s1) if s.footprint.covers(outline)]
            if gaps and min(gaps)[0] <= timedelta(hours=max_gap_hours):
                want.append((i, scene.scene_id, min(gaps)[2].scene_id))
    assert [(one.cell, one.s2.scene_id, one.s1.scene_id) for one in made.pairs] == want
    for one in made.pairs:
        assert one.gap_hours == pytest.approx(abs((one.s1.acquired - one.s2.acquired).total_seconds()) / 3600)
        assert one.gap_hours <= max_gap_hours
    # every cell and every scene is either in a pair or has a reason, never both
    paired = {one.cell for one in made.pairs}
    assert set(made.cells_left_out) == set(range(len(CELLS))) - paired
    used = {scene.scene_id for one in made.pairs for scene in (one.s2, one.s1)}
    assert set(made.scenes_left_out) == {scene.scene_id for scene in (*s2, *s1)} - used
    assert all([*made.cells_left_out.values(), *made.scenes_left_out.values()])


@settings(max_examples=40, deadline=None)
@given(_DRAWN, st.permutations(range(3)))
def test_order_of_scenes_does_not_matter(make_scene: Callable[..., Scene], drawn: list, order: list[int]) -> None:
    s2 = [make_scene(f"s2-{i}", hours=50.0 * i, footprint_wkt=_over(0, 2)) for i in range(3)]
    s1 = [make_scene("s1-0", sensor="s1", hours=hours, footprint_wkt=_over(0, 2)) for hours, *_ in drawn[:1]]
    one = pair(CELLS, OUTLINES, (s2, s1), rules=PairRules(max_gap_hours=100))
    other = pair(CELLS, OUTLINES, ([s2[i] for i in order], s1), rules=PairRules(max_gap_hours=100))
    assert one == other


def _pairs(scenes: tuple[list[Scene], list[Scene]], **options: Any) -> list[tuple[str, str]]:
    made = pair(CELLS[:1], OUTLINES[:1], scenes, rules=PairRules(**{"max_gap_hours": 72, **options}))
    return [(one.s2.scene_id, one.s1.scene_id) for one in made.pairs]


def test_of_one_pass_the_scene_without_warp_then_the_newest_baseline_wins(make_scene: Callable[..., Scene]) -> None:
    s1 = [make_scene("R", sensor="s1")]
    own = make_scene("own", baseline="02.05")
    assert own.grid is not None
    warped = make_scene("a-warped", baseline="05.11", grid=replace(own.grid, epsg=32632))
    newer = make_scene("newer", baseline="05.00", hours=599 / 3600)
    later = make_scene("later", hours=601 / 3600)
    unknown = make_scene("a-unknown", baseline="05.11", grid=None)
    assert _pairs(([own, warped], s1)) == [("own", "R")]
    assert _pairs(([own, newer, warped, unknown], s1)) == [("newer", "R")]
    assert _pairs(([own, later], s1)) == [("own", "R"), ("later", "R")]


def test_of_equally_near_radar_the_preferred_collection_wins(make_scene: Callable[..., Scene]) -> None:
    s2 = [make_scene("S")]
    first, second = make_scene("z", sensor="s1", hours=6), make_scene("a", sensor="s1", hours=-6)
    assert _pairs((s2, [first, second])) == [("S", "z")]
    assert _pairs((s2, [second, first])) == [("S", "a")]


@pytest.mark.parametrize("baseline", ["003.61", "5", "", None, "N0510", "3.4.1"])
def test_a_baseline_of_any_form_is_survived(baseline: str | None, make_scene: Callable[..., Scene]) -> None:
    """CDSE's `processing:version` of radar is not a decimal number everywhere."""
    scenes = ([make_scene("S", baseline=baseline)], [make_scene("R", sensor="s1", baseline=baseline)])
    assert _pairs(scenes) == [("S", "R")]


@pytest.mark.parametrize(("hours", "count"), [(72.0, 1), (72.001, 0), (-72.0, 1), (-72.001, 0)])
def test_the_gap_is_inclusive_and_has_no_direction(hours: float, count: int, make_scene: Callable[..., Scene]) -> None:
    made = pair(
        CELLS[:1],
        OUTLINES[:1],
        ([make_scene("S")], [make_scene("R", sensor="s1", hours=hours)]),
        rules=PairRules(max_gap_hours=72),
    )
    assert len(made.pairs) == count
    if not count:
        assert made.cells_left_out == {0: "gap 72.0 h"}
        assert made.scenes_left_out == {"S": "gap 72.0 h", "R": "nearest to no S2 scene within the gap"}


def test_reasons(make_scene: Callable[..., Scene]) -> None:
    aside = shapely.box(0, 0, 1, 1).wkt
    made = pair(
        CELLS[:1], OUTLINES[:1], ([make_scene("S", footprint_wkt=aside)], []), rules=PairRules(max_gap_hours=72)
    )
    assert made.cells_left_out == {0: "no S2 covers the cell"}
    assert made.scenes_left_out == {"S": "covers no whole cell, or its pass has a better scene"}
    made = pair(CELLS[:1], OUTLINES[:1], ([make_scene("S")], []), rules=PairRules(max_gap_hours=72))
    assert (made.cells_left_out, made.scenes_left_out) == ({0: "no S1"}, {"S": "no S1"})
    assert pair([], footprints([]), ([], []), rules=PairRules(max_gap_hours=72)).pairs == ()


@pytest.mark.parametrize(
    ("change", "own"),
    [
        ({}, True),
        ({"transform": (10.0, 0.0, 500040.0 - 10 * 37, 0.0, -10.0, 5300040.0 + 10 * 4)}, True),
        ({"transform": (10.0, 0.0, 500040.0 + 5, 0.0, -10.0, 5300040.0)}, False),
        ({"transform": (20.0, 0.0, 500040.0, 0.0, -20.0, 5300040.0)}, False),
        ({"transform": (10.0, 0.1, 500040.0, 0.0, -10.0, 5300040.0)}, False),
        ({"epsg": 32632}, False),
    ],
)
def test_own_grid(change: dict, own: bool, make_scene: Callable[..., Scene]) -> None:
    grid = Grid(epsg=32633, transform=(10.0, 0.0, 500040.0, 0.0, -10.0, 5300040.0), height_px=9, width_px=9)
    scene = make_scene(grid=replace(grid, **change))
    assert is_own_grid(scene, CELLS[0]) == own
    made = pair(
        CELLS[:1],
        OUTLINES[:1],
        ([scene], [make_scene("R", sensor="s1")]),
        rules=PairRules(max_gap_hours=72),
        own_grid=True,
    )
    assert len(made.pairs) == own
    assert not is_own_grid(make_scene(grid=None), CELLS[0])


def test_split_datastrips_are_not_duplicates(make_scene: Callable[..., Scene]) -> None:
    """Two strips of one pass cover different cells: each cell takes the one that covers it."""
    strips = [make_scene("a", footprint_wkt=_over(0, 0)), make_scene("b", footprint_wkt=_over(2, 2))]
    made = pair(CELLS, OUTLINES, (strips, [make_scene("R", sensor="s1")]), rules=PairRules(max_gap_hours=72))
    assert [(one.cell, one.s2.scene_id) for one in made.pairs] == [(0, "a"), (2, "b")]
    assert made.cells_left_out == {1: "no S2 covers the cell"}


def test_a_scene_may_end_where_the_cell_ends(make_scene: Callable[..., Scene], make_cell: Callable[..., Cell]) -> None:
    cell = make_cell()
    exact = footprints([cell])[0].wkt
    scenes = ([make_scene("S", footprint_wkt=exact)], [make_scene("R", sensor="s1", footprint_wkt=exact)])
    assert len(pair([cell], footprints([cell], inset_m=10), scenes, rules=PairRules(max_gap_hours=1)).pairs) == 1
    assert np.array_equal(footprints([cell])[0].bounds, shapely.from_wkt(exact).bounds)


def test_of_one_pass_the_product_that_was_asked_for_first_wins(make_scene: Callable, make_cell: Callable) -> None:
    s2 = make_scene("S2")
    rtc = make_scene("RTC", sensor="s1", hours=1.001, collection="sentinel-1-rtc")
    grd = make_scene("GRD", sensor="s1", hours=1.0, collection="sentinel-1-grd")
    later = make_scene("LATER", sensor="s1", hours=5.0, collection="sentinel-1-rtc")
    cell = make_cell()
    for radar, hours, winner in (
        ([rtc, later, grd], 72.0, rtc),
        ([grd, rtc], 72.0, grd),
        ([rtc, grd], 1.0, grd),  # the preferred one is beyond the gap
        ([later, grd], 72.0, grd),  # another pass is not the same acquisition
    ):
        for one_to_one in (False, True):
            rules = PairRules(max_gap_hours=hours, one_to_one=one_to_one)
            assert [one.s1 for one in candidates([s2], radar, cell, rules) if not one.reason] == [winner]


def test_one_to_one_uses_each_acquisition_once(make_scene: Callable[..., Scene]) -> None:
    """Three S2 dates beside two S1 passes, one of which is in two products."""
    s2 = [make_scene(f"S{hours}", hours=hours) for hours in (0, 10, 20)]
    s1 = [make_scene(name, sensor="s1", hours=hours) for name, hours in (("A", 9.0), ("A2", 9.001), ("B", 30.0))]
    assert _pairs((s2, s1)) == [("S0", "A"), ("S10", "A2"), ("S20", "B")]
    assert _pairs((s2, s1), one_to_one=True) == [("S10", "A2"), ("S20", "B")]
    assert _pairs((s2[:2], s1), one_to_one=True) == [("S0", "A"), ("S10", "B")], "two pairs rather than a nearer one"
    made = pair(CELLS[:1], OUTLINES[:1], (s2, s1), rules=PairRules(max_gap_hours=72, one_to_one=True))
    assert made.scenes_left_out["S0"] == REUSED


@pytest.mark.parametrize(
    ("rules", "used", "reason"),
    [
        ({"direction": "ascending"}, ["S", "A"], "descending pass, ascending wanted"),
        ({"direction": "descending"}, ["S", "D"], "ascending pass, descending wanted"),
        ({"tracks": (44, 51)}, ["S", "A"], "track 117, not one of 44, 51"),
        ({"tracks": (117,)}, ["S", "D"], "track 44, not one of 117"),
    ],
)
def test_pass_direction_and_track(rules: dict, used: list[str], reason: str, make_scene: Callable[..., Scene]) -> None:
    up = make_scene("A", sensor="s1", hours=3, orbit_state="ascending", relative_orbit=44)
    down = make_scene("D", sensor="s1", hours=2, orbit_state="descending", relative_orbit=117)
    silent = make_scene("N", sensor="s1", hours=1, orbit_state=None, relative_orbit=None)
    scenes = ([make_scene("S")], [up, down, silent])
    made = pair(CELLS[:1], OUTLINES[:1], scenes, rules=PairRules(max_gap_hours=72, **rules))
    assert [(one.s2.scene_id, one.s1.scene_id) for one in made.pairs] == [tuple(used)]
    assert made.scenes_left_out["AD".replace(used[1], "")] == reason
    assert made.scenes_left_out["N"].startswith(("unknown pass", "track unknown"))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(_DRAWN, _DRAWN),
    st.builds(
        PairRules,
        max_gap_hours=st.sampled_from([6.0, 72.0]),
        direction=st.sampled_from([None, "ascending"]),
        one_to_one=st.booleans(),
    ),
)
def test_every_candidate_has_one_verdict_and_the_pairs_have_none(
    make_scene: Callable[..., Scene], drawn: Drawn, rules: PairRules
) -> None:
    whole = _over(0, 2)
    s2 = [make_scene(f"s2-{i}", hours=100.0 * i, footprint_wkt=whole) for i, _ in enumerate(drawn[0])]
    ways = ("ascending", "descending", None)
    s1 = [
        make_scene(f"s1-{i}", sensor="s1", hours=hours, footprint_wkt=whole, orbit_state=ways[way])
        for i, (hours, way, _) in enumerate(drawn[1])
    ]
    told = candidates(s2, s1, CELLS[0], rules)
    expected = [(a.scene_id, b.scene_id) for a in s2 for b in s1] or [(a.scene_id, None) for a in s2]
    none_allowed = rules.direction is not None and not any(one.orbit_state == rules.direction for one in s1)
    met = [(one.s2.scene_id, one.s1 and one.s1.scene_id) for one in told]
    assert sorted(pair for pair in met if pair[1]) == sorted(pair for pair in expected if pair[1])
    assert sum(pair[1] is None for pair in met) == (len(s2) if not s1 or none_allowed else 0)
    made = pair(CELLS[:1], OUTLINES[:1], (s2, s1), rules=rules).pairs
    chosen = [(one.s2.scene_id, one.s1.scene_id) for one in told if one.s1 and not one.reason]
    assert [(one.s2.scene_id, one.s1.scene_id) for one in made] == chosen
