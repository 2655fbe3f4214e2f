"""Keys, units, rows and the fingerprint of a plan."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.grid import Cell, corner_cell
from ingest.pairing import Pair
from ingest.plan import PART_PX, ROWS_PER_SHARD, IngestPlan, LeftOut, PairTask, Unit, make_task, make_units, task_key
from ingest.request import Request
from ingest.scene import Grid, Scene

pytestmark = pytest.mark.ingest


def _task(s2: Scene, s1: Scene, cell: Cell, **labels: list[Scene]) -> PairTask:
    made = make_task(Pair(cell=0, s2=s2, s1=s1, gap_hours=6.0), cell, labels=labels, side=("b1-c1", "train"))
    assert isinstance(made, PairTask)
    return made


def test_key(make_scene: Callable[..., Scene], make_cell: Callable[..., Cell]) -> None:
    cell, s2, s1 = make_cell(), make_scene("S2.X"), make_scene("S1/Y", sensor="s1")
    key = task_key(cell, (s2, s1))
    assert key.startswith(f"{cell.cell_id}-20230610t101031-")
    assert "." not in key
    assert "/" not in key
    others = {
        task_key(cell, (s2, make_scene("S1Z"))),
        task_key(cell, (make_scene("S2Y"), s1)),
        task_key(cell, (s1, s2)),
    }
    assert len(others | {key}) == 4
    assert len(key) + len(".label.npy") <= 100


def test_labels_are_the_nearest_in_time_of_each_collection(make_scene: Any, make_cell: Any) -> None:
    near, far = make_scene("near", sensor="label", hours=-5), make_scene("far", sensor="label", hours=6)
    tied = make_scene("a-tied", sensor="label", hours=5)
    task = _task(make_scene(), make_scene("R", sensor="s1"), make_cell(), b=[far, near], a=[far], c=[near, tied])
    assert [scene.scene_id for scene in task.labels] == ["far", "near", "a-tied"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=60, unique=True
    )
)
def test_units_are_a_partition_in_whole_zarr_shards(make_scene: Any, drawn: list[tuple[int, int, int]]) -> None:
    grid = Grid(epsg=32633, transform=(10.0, 0.0, 399960.0, 0.0, -10.0, 5400000.0), height_px=10980, width_px=10980)
    scenes = [make_scene(f"S{i}", hours=100.0 * i, grid=grid) for i in range(3)]
    s1 = make_scene("R", sensor="s1")
    tasks = [
        _task(scenes[i], s1, corner_cell(32633, 399960.0 + 300 * col, 5400000.0 - 300 * row, 24))
        for i, row, col in drawn
    ]
    units = make_units(tasks)
    assert sorted(task.key for unit in units for task in unit.tasks) == sorted(task.key for task in tasks)
    assert [unit.unit_id for unit in units] == [f"u{i:05d}" for i in range(len(units))]
    row = 0
    for unit in units:
        assert unit.first_row == row
        assert unit.rows % ROWS_PER_SHARD == 0
        assert len(unit.tasks) <= unit.rows < len(unit.tasks) + ROWS_PER_SHARD
        assert len({task.s2.scene_id for task in unit.tasks}) == 1
        assert [task.key for task in unit.tasks] == sorted(task.key for task in unit.tasks)
        parts = {
            (
                int((5400000 - task.cell.center_m[1]) // 10 // PART_PX),
                int((task.cell.center_m[0] - 399960) // 10 // PART_PX),
            )
            for task in unit.tasks
        }
        assert len(parts) == 1
        row += unit.rows
    assert make_units(tasks[::-1]) == units


def test_units_of_scenes_without_grid_or_in_another_zone(make_scene: Any, make_cell: Any) -> None:
    s1 = make_scene("R", sensor="s1")
    near, far = make_cell(0, 0), make_cell(PART_PX, 0)
    bare = make_scene("bare", grid=None)
    other = make_scene(
        "other", hours=1, grid=Grid(epsg=32632, transform=(10, 0, 9e5, 0, -10, 5.4e6), height_px=9, width_px=9)
    )
    units = make_units([_task(scene, s1, cell) for scene in (bare, other) for cell in (near, far)])
    held = [(unit.tasks[0].s2.scene_id, [task.cell.cell_id for task in unit.tasks]) for unit in units]
    assert sorted(held) == [(name, [cell.cell_id]) for name in ("bare", "other") for cell in (near, far)]


@pytest.fixture
def plan(make_scene: Any, make_cell: Any, make_request: Callable[..., Request]) -> IngestPlan:
    s1 = make_scene("R", sensor="s1")
    tasks = [_task(make_scene(f"S{i}", hours=24.0 * i), s1, make_cell(24 * i)) for i in range(2)]
    return IngestPlan(
        request=make_request(),
        units=make_units(tasks),
        left_out=(LeftOut(cell=make_cell(99), reason="gap 80.0 h"),),
        scenes_left_out={"X": "no date"},
    )


def test_plan_counts(plan: IngestPlan, make_scene: Any) -> None:
    assert [task.s2.scene_id for task in plan.tasks] == ["S0", "S1"]
    assert plan.rows == 2 * ROWS_PER_SHARD
    assert not plan.has_label
    for assets, has_label in (({}, False), (None, True)):
        scene = make_scene("L", sensor="label", **({} if assets is None else {"assets": assets}))
        labelled = replace(plan.units[0], tasks=(replace(plan.tasks[0], labels=(scene,)),))
        assert replace(plan, units=(labelled,)).has_label == has_label


def test_fingerprint_knows_every_decision(plan: IngestPlan, make_request: Any, make_scene: Any, make_cell: Any) -> None:
    assert plan.fingerprint == replace(plan).fingerprint
    unit, task = plan.units[0], plan.tasks[0]
    changed = [
        replace(plan, request=make_request(seed=1)),
        replace(plan, units=plan.units[:1]),
        replace(plan, units=plan.units[::-1]),
        *(
            replace(plan, units=(new, plan.units[1]))
            for new in (
                replace(unit, first_row=16),
                replace(unit, unit_id="u9"),
                *(
                    replace(unit, tasks=(replace(task, **change),))
                    for change in (
                        {"key": "k"},
                        {"split": "val"},
                        {"cell": make_cell(5)},
                        {"labels": (make_scene("L", sensor="label"),)},
                        {"s2": make_scene("T")},
                        {"s1": make_scene("T", sensor="s1")},
                    )
                ),
            )
        ),
    ]
    assert len({one.fingerprint for one in [plan, *changed]}) == len(changed) + 1


def test_memory_grows_with_the_chips(plan: IngestPlan) -> None:
    task = plan.tasks[0]
    small, large = (Unit(unit_id="u", first_row=0, tasks=(task,) * n) for n in (1, 50))
    chip = 24 * 24 * (12 * 2 + 2 * 4 + 1)
    wide = replace(plan.request, chip_px=264)
    assert large.memory_bytes(plan.request) - small.memory_bytes(plan.request) >= 49 * chip
    assert small.memory_bytes(wide) > small.memory_bytes(plan.request)
