"""Stacks: cut in order of time, each with enough dates, none shared; every cell and scene left out has a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.areas.grid import corner_cell, footprints
from ingest.scenes.scene import Scene
from ingest.scenes.spacing import Spacing, chain
from ingest.scenes.stacking import cut, spaced, stack

pytestmark = pytest.mark.ingest
START = datetime(2023, 1, 1, tzinfo=UTC)
CELLS = [corner_cell(32633, 500040.0 + 240 * i, 5300040.0, 24) for i in range(2)]
OUTLINES = footprints(CELLS, inset_m=10)
DAYS = st.lists(st.integers(0, 200), max_size=25).map(sorted)


def times(days: list[int]) -> list[datetime]:
    return [START + timedelta(days=day) for day in days]


@given(DAYS, st.integers(0, 60))
def test_spaced_dates_are_a_plain_loop(days: list[int], gap: int) -> None:
    wanted: list[int] = []
    for i, day in enumerate(days):
        if not wanted or day - days[wanted[-1]] >= gap:
            wanted.append(i)
    assert spaced(times(days), min_gap_hours=24.0 * gap) == wanted


@given(DAYS, st.integers(1, 6), st.integers(0, 60))
def test_stacks_are_a_partition_and_each_can_be_filled(days: list[int], frames: int, gap: int) -> None:
    groups = cut(tuple(times(days)), frames, Spacing(min_gap_hours=24.0 * gap))
    apart = spaced(times(days), min_gap_hours=24.0 * gap)
    assert len(groups) == len(apart) // frames
    if groups:
        assert [first for first, _ in groups] == [0, *(stop for _, stop in groups[:-1])]
        assert groups[-1][1] == len(days)
    for first, stop in groups:
        assert len(spaced(times(days)[first:stop], min_gap_hours=24.0 * gap)) >= frames


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 900), max_size=40).map(sorted),
    st.integers(2, 4),
    st.builds(
        Spacing,
        min_gap_hours=st.sampled_from([24.0 * 10, 24.0 * 40]),
        max_gap_hours=st.sampled_from([None, 24.0 * 60]),
        seasons=st.booleans(),
    ),
)
def test_stacks_with_a_maximum_gap_or_seasons_can_all_be_filled(days: list[int], frames: int, spacing: Spacing) -> None:
    dates = times(days)
    groups = cut(tuple(dates), frames, spacing)
    positions = [i for first, stop in groups for i in range(first, stop)]
    assert positions == sorted(set(positions)), "a date is in two stacks"
    assert all(chain(dates[first:stop], spacing, frames) for first, stop in groups)
    if spacing.seasons:
        assert all(len({spacing.season(when) for when in dates[a:b]}) == frames for a, b in groups)
    assert bool(groups) == (chain(dates, spacing, frames) is not None), "a stack is possible and none is made"


@settings(max_examples=40, deadline=None)
@given(DAYS, st.integers(1, 4))
def test_every_cell_and_scene_is_in_a_stack_or_has_a_reason(
    make_scene: Callable[..., Scene], days: list[int], frames: int
) -> None:
    west, south, east, north = shapely.total_bounds(OUTLINES[:1])
    over = [shapely.box(west - 1e-3, south - 1e-3, east + 1e-3, north + 1e-3).wkt, None]
    scenes = [
        make_scene(f"S{i}", hours=24.0 * day, **({"footprint_wkt": over[0]} if i % 2 else {}))
        for i, day in enumerate(days)
    ]
    made = stack(CELLS, OUTLINES, scenes, frames=frames, spacing=Spacing(min_gap_hours=48.0))
    assert {one.cell for one in made.stacks} | set(made.cells_left_out) == {0, 1}
    used = [scene.scene_id for one in made.stacks if one.cell == 0 for scene in one.candidates]
    assert len(used) == len(set(used))
    in_some = {scene.scene_id for one in made.stacks for scene in one.candidates}
    assert set(made.scenes_left_out) == {scene.scene_id for scene in scenes} - in_some
    assert all([*made.cells_left_out.values(), *made.scenes_left_out.values()])


def test_too_few_dates_are_told(make_scene: Callable[..., Scene]) -> None:
    scenes = [make_scene(f"S{i}", hours=240.0 * i) for i in range(3)]
    made = stack(CELLS, OUTLINES, scenes, frames=4, spacing=Spacing(min_gap_hours=24.0))
    assert set(made.cells_left_out.values()) == {"3 dates, 4 wanted"}
    assert (
        stack(CELLS, OUTLINES, [], frames=4, spacing=Spacing(min_gap_hours=24.0)).cells_left_out[0]
        == "no S2 covers the cell"
    )
