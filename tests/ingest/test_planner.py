"""Requests → plans, on the tiny Earth and on real scenes."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import shapely

from ingest import planner
from ingest.areas.aoi import SPOT_M, DateRange, parse_aoi
from ingest.areas.grid import corner_cell, footprints, transformer
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


def _scene_pairs(plan: IngestPlan) -> set[tuple[str, str]]:
    return {(task.s2.scene_id, task.s1.scene_id) for task in plan.tasks}


def test_tiny(make_request: Ask) -> None:
    plan = make_plan(make_request())
    assert _scene_pairs(plan) == {("S2-0", "S1-0"), ("S2-1", "S1-1"), ("S2-2", "S1-2")}
    assert [len(unit.tasks) for unit in plan.units] == [6, 6, 6]
    assert {task.gap_hours for task in plan.tasks} == {6.0, 12.0, 48.0}
    assert {task.split for task in plan.tasks} == {"train"}
    assert (plan.left_out, plan.scenes_left_out) == ((), {})


@pytest.mark.parametrize(
    ("changes", "pairs"),
    [
        ({"max_gap_hours": 12.0}, {("S2-0", "S1-0"), ("S2-1", "S1-1")}),
        ({"max_gap_hours": 1.0}, set()),
        ({"dates": DateRange(start=date(2023, 6, 11), end=date(2023, 6, 20))}, {("S2-1", "S1-1")}),
        ({"dates": DateRange(start=None, end=date(2023, 6, 10))}, {("S2-0", "S1-0")}),
    ],
)
def test_gap_and_dates(changes: dict[str, Any], pairs: set[tuple[str, str]], make_request: Ask) -> None:
    plan = make_plan(make_request(**changes))
    assert _scene_pairs(plan) == pairs
    named = {scene for pair in pairs for scene in pair}
    assert not named & set(plan.scenes_left_out)
    if not pairs:
        assert Counter(item.reason for item in plan.left_out) == {"gap 6.0 h": 6}


def test_an_unknown_place_or_time_is_a_usage_error(make_request: Ask) -> None:
    for changes in ({"aoi": "1,1,2,2"}, {"dates": DateRange(start=date(2030, 1, 1), end=None)}):
        with pytest.raises(UsageError, match=r"no sentinel-2-l2a scene .* touches the area"):
            make_plan(make_request(**changes))


def test_an_area_too_small_for_a_cell_is_a_usage_error(make_request: Ask) -> None:
    with pytest.raises(UsageError, match="no cell of 264 pixels"):
        make_plan(make_request(aoi="15.005,47.846,15.0051,47.8461", chip_px=264))


def test_secrets_of_the_catalog_stay_out_of_messages(make_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner.catalog, "search", lambda *_, **__: [])
    with pytest.raises(UsageError) as caught:
        make_plan(make_request(catalog="https://u:hunter2@host/stac?key=hunter2"))
    assert "hunter2" not in str(caught.value)


def test_overlapping_areas_give_each_cell_once(make_request: Ask) -> None:
    request = make_request()
    twice = make_plan(make_request(areas=request.areas * 2))
    assert twice.units == make_plan(request).units


def test_validation_ground_is_not_overlapped_by_training(make_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two areas whose centred cells overlap and fall on different sides: the training one is left out."""
    west, south, east, north = make_request().areas[0].geometry.bounds
    areas = tuple(make_request(aoi=f"{west + d},{south},{east + d},{north}").areas[0] for d in (0.0, 0.001))
    sides = {True: ("b0-c0", "train"), False: ("b0-c1", "val")}
    first = []
    monkeypatch.setattr(
        planner, "_side", lambda cell, _: sides[(first.append(cell.left_m) or cell.left_m) == min(first)]
    )
    plan = make_plan(make_request(areas=areas, grid="aoi"))
    assert {task.split for task in plan.tasks} == {"val"}
    assert [item.reason for item in plan.left_out] == ["overlaps validation ground"]


def test_a_guard_keeps_training_away(make_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three columns of 240 m, the west one for validation: the next one touches it, the last is 240 m away."""
    west = min(task.cell.left_m for task in make_plan(make_request()).tasks)
    monkeypatch.setattr(
        planner, "_side", lambda cell, _: ("b0-c0", "val") if cell.left_m == west else ("b0-c1", "train")
    )
    for guard_km, kept in ((0.0, 2), (0.2, 1), (0.24, 1), (0.25, 0)):
        plan = make_plan(make_request(guard_km=guard_km))
        assert {task.cell.left_m for task in plan.tasks} == {west + 240.0 * i for i in range(3) if not 0 < i < 3 - kept}
        assert len(plan.left_out) == 2 * (2 - kept)
        assert {item.reason for item in plan.left_out} <= {f"within {guard_km:g} km of validation ground"}


def test_block_cells_of_a_plan_share_blocks(make_request: Ask) -> None:
    """The tiny Earth's tile is 33TWN: its corner and 10,240 m further lie on block edges."""
    plan = make_plan(make_request(grid="blocks", block_px=512))
    assert plan.tasks
    for task in plan.tasks:
        col, row = (task.cell.left_m - 499_980) / 10, (5_300_040 - task.cell.top_m) / 10
        assert (col % 6, row % 6) == (0, 0)
        assert int(col) // 512 == int(col + 23) // 512
        assert int(row) // 512 == int(row + 23) // 512


def test_a_chip_on_each_point(make_request: Ask, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("lon,lat,name\n15.008,47.848,a\n15.0075,47.8478,b\n", encoding="utf-8")
    areas = parse_aoi(str(tmp_path / "points.csv"), around_m=SPOT_M)
    plan = make_plan(make_request(areas=areas, grid="aoi"))
    want = {transformer(4326, 32633).transform(*point) for point in ((15.008, 47.848), (15.0075, 47.8478))}
    for x, y in {task.cell.center_m for task in plan.tasks}:
        (near,) = [point for point in want if max(abs(point[0] - x), abs(point[1] - y)) <= 5.1]
        want.discard(near)
    assert not want


def test_an_area_on_the_antimeridian_has_its_own_zone(make_request: Ask) -> None:
    (area,) = parse_aoi("179.9,10,-179.95,10.1")
    assert planner._area_epsg(area.geometry, []) == 32660
    (area,) = parse_aoi("179.95,10,-179.9,10.1")
    assert planner._area_epsg(area.geometry, []) == 32601


def test_real_pairs_are_the_eight_that_are_known(ask_real: Ask, real_catalog: Path) -> None:
    plan = make_plan(ask_real())
    known = json.loads((real_catalog / "pairs.json").read_text())["pairs"]
    want = {(pair["s2"], pair["s1"]): pair for pair in known if pair["expected_in_default_pairs"]}
    assert len(want) == 8
    assert _scene_pairs(plan) == set(want)
    for task in plan.tasks:
        assert task.gap_hours == pytest.approx(want[task.s2.scene_id, task.s1.scene_id]["gap_hours"], abs=0.01)
        assert task.s1.backscatter == ("gamma0" if "RTC" in task.s1.scene_id else "sigma0")


def test_every_other_real_scene_has_its_reason(ask_real: Ask, real_catalog: Path) -> None:
    plan = make_plan(ask_real())
    used = {scene for pair in _scene_pairs(plan) for scene in pair}
    items = {p.parent.name for c in ("2-l2a", "1-rtc", "1-grd") for p in real_catalog.glob(f"sentinel-{c}/*/*.json")}
    assert set(plan.scenes_left_out) == items - used
    for scene_id, reason in plan.scenes_left_out.items():
        if scene_id.startswith("worldcereal_belgium_S2"):
            assert reason == "bands missing: B01 B8A B09"
        elif "33TW" in scene_id:
            assert reason == "bands missing: B01 B05 B06 B07 B8A B09 B11 B12"
        elif scene_id.startswith("sen12mscr"):
            assert reason == "no date"
        elif scene_id.startswith("S2B_MSIL2A_20200813"):
            assert reason == "gap 511.4 h"
        else:
            assert reason == "nearest to no S2 scene within the gap", scene_id


def test_real_offsets_are_those_that_the_source_states(ask_real: Ask, real_catalog: Path) -> None:
    for task in make_plan(ask_real()).tasks:
        properties = json.loads(next(real_catalog.rglob(f"{task.s2.scene_id}.json")).read_text())["properties"]
        assert {task.s2.assets[name].dn_offset for name in task.s2.assets} == {properties["src:dn_offset"]}


@pytest.mark.parametrize(("s1", "count"), [(("sentinel-1-rtc",), 3), (("sentinel-1-grd",), 5)])
def test_real_pairs_of_one_product(s1: tuple[str, ...], count: int, ask_real: Ask) -> None:
    plan = make_plan(ask_real(s1=s1))
    assert len(_scene_pairs(plan)) == count
    assert {task.s1.collection for task in plan.tasks} == set(s1)


def test_scene_grid_on_terramesh(ask_real: Ask) -> None:
    plan = make_plan(ask_real("terramesh_38D_378R_2_3", grid="scene", chip_px=56))
    assert len(plan.tasks) == 16  # 224 px are four times 56
    for task in plan.tasks:
        assert task.s2.grid is not None
        left, top = task.s2.grid.transform[2], task.s2.grid.transform[5]
        assert (task.cell.left_m - left) % 560 == pytest.approx(0, abs=1e-6)
        assert (top - task.cell.top_m) % 560 == pytest.approx(0, abs=1e-6)
        assert task.cell.epsg == task.s2.grid.epsg


def test_scene_grid_leaves_out_scenes_in_degrees(ask_real: Ask) -> None:
    with pytest.raises(UsageError, match="on grid 'scene'"):
        make_plan(ask_real("ssl4eo_0000200", grid="scene"))


@pytest.mark.parametrize("place", ["33UUP_87_48", "29UPU_36_85", "35VPK_57_38"])
def test_aoi_grid_on_bigearthnet_is_the_patch_itself(place: str, ask_real: Ask) -> None:
    """The AOI lies 20 m inside the patch, so the centred cell of 120 px is the patch; 35VPK beyond its zone's edge."""
    (task,) = make_plan(ask_real(f"bigearthnet_{place}", grid="aoi", chip_px=120)).tasks
    assert task.s2.grid is not None
    assert (task.cell.epsg, task.cell.transform) == (task.s2.grid.epsg, task.s2.grid.transform)


def test_labels_ride_along(ask_real: Ask) -> None:
    plan = make_plan(ask_real("terramesh_38D_378R_2_3", grid="scene", labels=("labels",)))
    assert plan.has_label
    assert {label.scene_id for task in plan.tasks for label in task.labels} == {"terramesh_38D_378R_2_3_LULC"}
    words = make_plan(ask_real("bigearthnet_33UUP_87_48", grid="aoi", labels=("sentinel-2-l2a",)))
    assert not words.has_label
    assert words.tasks[0].labels[0].classes[0].startswith("Land principally occupied")


def test_footprints_cover_their_cells(ask_real: Ask) -> None:
    for task in make_plan(ask_real()).tasks:
        (inside,) = footprints([task.cell], inset_m=10)
        assert task.s2.footprint.covers(inside)
        assert task.s1.footprint.covers(inside)


def test_scene_cells_are_whole_and_inside_the_area(make_scene: Any) -> None:
    cells = planner._scene_cells(make_scene(), [shapely.box(14, 47, 16, 49)], 50)
    assert [(cell.left_m, cell.top_m) for cell in cells] == [
        (500040.0 + x, 5300040.0 - y) for y in (0, 500) for x in (0, 500)
    ]
    assert planner._scene_cells(make_scene(), [shapely.box(0, 0, 1, 1)], 50) == []
    assert corner_cell(32633, 500040.0, 5300040.0, 50) in cells
