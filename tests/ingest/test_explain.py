"""Every scene's verdict on one cell says what the plan does."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import shapely

from ingest.areas.grid import Cell, footprints
from ingest.care.explain import Verdict, explain, find_cell, lines
from ingest.plan import scene_ids
from ingest.planner import Found, find_cells, make_plan, survey
from ingest.request import Request
from ingest.scenes.scene import Scene
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


def _explain(request: Request, found: Found | None = None) -> tuple[Cell, dict[str, Verdict]]:
    found = found or survey(request)[0]
    cell = find_cells(request, found.s2)[0]
    return cell, {one.scene_id: one for one in explain(request, cell, found)}


def test_what_is_used_is_what_the_plan_uses(make_request: Ask) -> None:
    request = make_request(max_gap_hours=24.0)
    cell, verdicts = _explain(request)
    planned = {name for task in make_plan(request).tasks if task.cell == cell for name in scene_ids(task)}
    assert {name for name, one in verdicts.items() if one.used} == planned == {"S2-0", "S1-0", "S2-1", "S1-1"}
    assert verdicts["S2-0"].verdict == "paired (S1-0, 6.0 h)"
    assert verdicts["S1-1"].verdict == "paired (S2-1, 12.0 h)"
    assert "48.0 h" in verdicts["S2-2"].verdict
    assert [one.sensor for one in verdicts.values()] == ["s2"] * 3 + ["s1"] * 3


def test_every_reason(make_request: Ask, make_scene: Callable[..., Scene]) -> None:
    request = make_request()
    _, outline = find_cells(request, [])[0], footprints(find_cells(request, [])[:1])[0]
    west, south, east, north = outline.bounds
    half = shapely.box(west - 1, south - 1, (west + east) / 2, north + 1).wkt
    found = Found(
        s2=[
            make_scene("whole"),
            make_scene("half", hours=240, footprint_wkt=half),
            make_scene("away", hours=480, footprint_wkt=shapely.box(0, 0, 1, 1).wkt),
        ],
        s1=[make_scene("late", sensor="s1", hours=99), make_scene("near", sensor="s1", hours=5)],
        labels=[],
        unusable={"broken": "no date"},
    )
    _, verdicts = _explain(request, found)
    assert {name: one.used for name, one in verdicts.items()} == {
        "whole": True, "half": False, "away": False, "late": False, "near": True, "broken": False,
    }  # fmt: skip
    assert verdicts["half"].verdict.startswith(("covers 49 %", "covers 49%", "covers 50%"))
    assert verdicts["away"].verdict == "does not touch the cell"
    assert "99.0 h" in verdicts["late"].verdict
    assert verdicts["broken"].verdict == "unusable: no date"


def test_stacks(make_request: Ask) -> None:
    request = make_request(kind="stack", s1=(), max_gap_hours=0.0, frames=3, min_gap_hours=24.0)
    _, verdicts = _explain(request)
    assert {one.verdict for one in verdicts.values()} == {"candidate of stack 1 of 1"}
    _, verdicts = _explain(replace(request, frames=4))
    assert {(one.used, one.verdict) for one in verdicts.values()} == {(False, "3 dates, 4 wanted")}


def test_own_grid(make_request: Ask, make_scene: Callable[..., Scene]) -> None:
    request = make_request(grid="scene")
    good, other = make_scene("good"), make_scene("other", hours=240)
    assert other.grid is not None
    moved = replace(other, grid=replace(other.grid, transform=(10.0, 0.0, 500043.0, 0.0, -10.0, 5300040.0)))
    found = Found(s2=[good, moved], s1=[make_scene("radar", sensor="s1")], labels=[], unusable={})
    cell = find_cells(request, [good])[0]
    assert {one.scene_id: one.verdict for one in explain(request, cell, found)}[
        "other"
    ] == "its pixels are not the cell's"


def test_a_cell_is_found_by_id_key_and_point(make_request: Ask) -> None:
    plan = make_plan(make_request())
    cells = sorted({task.cell for task in plan.tasks}, key=lambda cell: cell.cell_id)
    for cell in cells:
        key = next(task.key for task in plan.tasks if task.cell == cell)
        point = ",".join(map(str, cell.center_lonlat))
        assert [find_cell(cells, where) for where in (cell.cell_id, key, point)] == [cell] * 3
    for wrong, said in (("32633-r1-c1", "no cell of this request has that id"), ("1,1", "Longitude comes first")):
        with pytest.raises(UsageError, match=said):
            find_cell(cells, wrong)


def test_the_table_has_a_line_for_every_scene(make_request: Ask) -> None:
    request = make_request()
    cell, verdicts = _explain(request)
    table = lines(cell, list(verdicts.values()))
    assert "6 of 6 scenes used" in table[0]
    assert len(table) == 7
    assert all(line.startswith("+ ") for line in table[1:])
