"""Keys, units, rows and the fingerprint of a plan."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.areas.grid import Cell, corner_cell
from ingest.plan import (
    CUTS_PX,
    ROWS_PER_SHARD,
    UNIT_BYTES,
    IngestPlan,
    LeftOut,
    PairTask,
    Unit,
    cut,
    make_task,
    make_units,
    memory_bytes,
    scene_ids,
    task_key,
)
from ingest.request import Request
from ingest.scenes.pairing import Pair
from ingest.scenes.scene import Grid, Scene
from pipeline import record

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
    ),
    st.sampled_from([1, 4, 10**6]),
)
def test_units_are_a_partition_in_whole_zarr_shards(
    make_scene: Any, make_request: Any, drawn: list[tuple[int, int, int]], most: int
) -> None:
    grid = Grid(epsg=32633, transform=(10.0, 0.0, 399960.0, 0.0, -10.0, 5400000.0), height_px=10980, width_px=10980)
    scenes = [make_scene(f"S{i}", hours=100.0 * i, grid=grid) for i in range(3)]
    s1, request = make_scene("R", sensor="s1"), make_request()
    tasks = [
        _task(scenes[i], s1, corner_cell(32633, 399960.0 + 300 * col, 5400000.0 - 300 * row, 24))
        for i, row, col in drawn
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.plan.UNIT_BYTES", memory_bytes(most, request))
        units, again = make_units(tasks, request), make_units(tasks[::-1], request)
    assert again == units
    assert sorted(task.key for unit in units for task in unit.tasks) == sorted(task.key for task in tasks)
    assert [unit.unit_id for unit in units] == [f"u{i:05d}" for i in range(len(units))]
    row = 0
    for unit in units:
        assert unit.first_row == row
        assert unit.rows % ROWS_PER_SHARD == 0
        assert len(unit.tasks) <= unit.rows < len(unit.tasks) + ROWS_PER_SHARD
        assert len(unit.tasks) <= most
        assert len({task.s2.scene_id for task in unit.tasks}) == 1
        assert [task.key for task in unit.tasks] == sorted(task.key for task in unit.tasks)
        row += unit.rows
    if most >= len(tasks):
        assert len(units) == len({i for i, _, _ in drawn})


@pytest.mark.parametrize("chip_px", [120, 264])
@pytest.mark.parametrize(
    "asked", [{}, {"kind": "stack", "s1": (), "frames": 4}, {"kind": "stack", "s1": (), "frames": 24}]
)
def test_no_unit_of_a_full_tile_is_too_large_or_needlessly_small(chip_px: int, asked: Any, make_request: Any) -> None:
    request = make_request(**asked, chip_px=chip_px)
    steps = np.arange(0, 10980 - chip_px, chip_px)
    corners = np.stack([each.ravel() for each in np.meshgrid(steps, steps)], axis=1).astype(float)
    most = max(n for n in range(1, 20_000) if memory_bytes(n, request) <= UNIT_BYTES)
    parts = cut(corners, most)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(corners)))
    assert all(len(part) <= most for part in parts)
    assert len(parts) <= 4 * len(corners) / most + 1


@pytest.mark.parametrize("block", [512, 1024])
@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_parts_share_only_the_blocks_that_a_chip_straddles(block: int, gsd: int) -> None:
    """Cells that keep to the blocks of 20 m bands give parts that share no block, but for 60 m bands."""
    side, span = CUTS_PX[0] // 8, block * gsd // 10
    steps = np.arange(0, 8192, side)
    corners = np.stack([each.ravel() for each in np.meshgrid(steps, steps)], axis=1).astype(float)
    parts = cut(corners, 70)
    assert len(parts) == 16
    blocks = [{(row, col) for row, col in (corners[part] // span).astype(int).tolist()} for part in parts]
    shared = sum(len(each) for each in blocks) - len(set.union(*blocks))
    assert (shared == 0) == (gsd < 60)


def test_cuts_lie_where_blocks_end() -> None:
    random = np.random.default_rng(0)
    for step in CUTS_PX:
        corners = random.uniform(0, 3 * step, (200, 2))
        first, second = cut(corners, 150)
        (axis,) = (i for i in (0, 1) if corners[first, i].max() < corners[second, i].min())
        line = corners[second, axis].min() // step * step
        assert corners[first, axis].max() < line <= corners[second, axis].min()


def test_chips_of_one_place_are_cut_in_order() -> None:
    assert [part.tolist() for part in cut(np.zeros((5, 2)), 2)] == [[0, 1], [2], [3, 4]]


def test_units_of_scenes_without_grid_or_in_another_zone(make_scene: Any, make_cell: Any, make_request: Any) -> None:
    s1, request = make_scene("R", sensor="s1"), make_request()
    near, far = make_cell(0, 0), make_cell(3000, 0)
    bare = make_scene("bare", grid=None)
    other = make_scene(
        "other", hours=1, grid=Grid(epsg=32632, transform=(10, 0, 9e5, 0, -10, 5.4e6), height_px=9, width_px=9)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.plan.UNIT_BYTES", memory_bytes(1, request))
        units = make_units([_task(scene, s1, cell) for scene in (bare, other) for cell in (far, near)], request)
    held = [(unit.tasks[0].s2.scene_id, [task.cell.cell_id for task in unit.tasks]) for unit in units]
    assert sorted(held) == [(name, [cell.cell_id]) for name in ("bare", "other") for cell in (near, far)]


@pytest.fixture
def plan(make_scene: Any, make_cell: Any, make_request: Callable[..., Request]) -> IngestPlan:
    s1 = make_scene("R", sensor="s1")
    tasks = [_task(make_scene(f"S{i}", hours=24.0 * i), s1, make_cell(24 * i)) for i in range(2)]
    return IngestPlan(
        request=make_request(),
        units=make_units(tasks, make_request()),
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


def test_the_fingerprint_is_that_of_the_plain_records(plan: IngestPlan) -> None:
    digest = hashlib.sha256(record.dumps(plan.request))
    for unit in plan.units:
        for i, task in enumerate(unit.tasks):
            ids = (*scene_ids(task), *(scene.scene_id for scene in task.labels))
            digest.update(record.dumps((unit.unit_id, unit.first_row + i, task.key, task.cell, task.split, ids)))
    assert plan.fingerprint == digest.hexdigest()


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


@pytest.mark.parametrize(("most", "side_px"), [(256, 2048), (64, 1024), (16, 512)])
def test_units_are_cut_where_blocks_end(most: int, side_px: int) -> None:
    """Chips of 128 px fill 4096 x 4096 px: parts are squares of whole blocks, and each block is in one part."""
    at = np.stack(np.meshgrid(np.arange(0, 4096, 128), np.arange(0, 4096, 128), indexing="ij"), axis=-1).reshape(-1, 2)
    parts = cut(at.astype(float), most)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(at)))
    squares = [{tuple(corner) for corner in (at[part] // side_px).tolist()} for part in parts]
    assert all(len(square) == 1 for square in squares)
    assert len(parts) == len({next(iter(square)) for square in squares}) == (4096 // side_px) ** 2
