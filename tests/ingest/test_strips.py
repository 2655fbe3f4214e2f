"""Strips and slices of one pass: which are duplicates, which cells they cover together, and whose every pixel is."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rustac
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from tiny_earth import EPSG, LEFT, SIDE, T0, TOP, _item, _write_catalog

from ingest.areas.grid import Cell, corner_cell, footprints, lattice_cells, transformer
from ingest.assemble import assemble
from ingest.assemble_stack import assemble_stacks
from ingest.pixels.mosaic import UNCLASSIFIED, Block, Image, compose
from ingest.plan import IngestPlan, scene_ids
from ingest.planfile import from_parquet, to_parquet
from ingest.planner import make_plan
from ingest.scenes.coverage import candidates_by_cell, duplicates, radar_by_cell
from ingest.scenes.scene import Grid, Scene, parse_scene
from pipeline.bands import S1_NAMES, S2_BANDS, S2_NAMES
from pipeline.sample import MaskBit

pytestmark = pytest.mark.ingest


# --- which are duplicates ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousand(stac_records: Path) -> list[Scene]:
    """A thousand real records of one area and two months."""
    table = pq.read_table(stac_records / "pc_s2l2a_1000_items_co_2024.parquet")
    found = []
    for item in rustac.from_arrow(table)["features"]:
        properties = {key: value for key, value in item["properties"].items() if value is not None}
        assets = {key: asset for key, asset in item["assets"].items() if asset}
        found.append(parse_scene({**item, "properties": properties, "assets": assets}))
    return [scene for scene in found if isinstance(scene, Scene)]


def _split(scenes: list[Scene]) -> list[list[Scene]]:
    groups: dict[Any, list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[scene.tile, scene.acquired].append(scene)
    return [group for group in groups.values() if len(group) > 1]


def test_real_split_strips_are_kept(thousand: list[Scene]) -> None:
    assert len(_split(thousand)) == 13
    assert duplicates(thousand) == {}


def test_real_split_strips_give_every_cell_of_their_union(thousand: list[Scene]) -> None:
    """Keeping the newest would lose cells of all but two of the thirteen tiles, up to two thirds of them."""
    lost = []
    for group in _split(thousand):
        grid = group[0].grid
        assert grid is not None
        left, top = grid.transform[2], grid.transform[5]
        cells = [corner_cell(grid.epsg, left + 5400.0 * i, top - 5400.0 * j, 120)
                 for i in range(20) for j in range(20)]  # fmt: skip
        outlines = footprints(cells, inset_m=10)
        union = shapely.union_all([scene.footprint for scene in group])
        found = candidates_by_cell(cells, outlines, group, own_grid=True)
        assert [len(one) for one in found] == shapely.covers(union, outlines).astype(int).tolist()
        newest = max(group, key=lambda scene: scene.generated or T0)
        lost.append(int(shapely.covers(union, outlines).sum() - shapely.covers(newest.footprint, outlines).sum()))
    assert sum(one > 0 for one in lost) >= 11


def test_one_strip_processed_twice_is_dropped_by_rule(make_scene: Callable[..., Scene]) -> None:
    def scene(name: str, days: float, baseline: str | None, strip: str | None, **changes: Any) -> Scene:
        made = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days)
        fields = {"tile": "33UVP", "platform": "sentinel-2a", **changes}
        return make_scene(name, baseline=baseline, datastrip=strip, generated=made, **fields)

    whole, near = shapely.box(14, 47, 16, 49), shapely.box(14, 47, 16, 48.95)
    half = shapely.box(14, 47, 16, 48)
    old, new = scene("old", 0, "02.05", "a"), scene("new", 9, "05.00", "b")
    assert duplicates([old, new]) == duplicates([new, old]) == {"old": "duplicate of new"}
    # of one baseline the later, of one time the first id
    assert duplicates([scene("a", 0, "05.00", "x"), scene("b", 1, "05.00", "y")]) == {"a": "duplicate of b"}
    assert duplicates([scene("a", 0, "05.00", "x"), scene("b", 0, "05.00", "y")]) == {"b": "duplicate of a"}
    # an outline that is nearly the same is, another is not, unless the strip says so
    assert duplicates([new, scene("old", 0, "02.05", None, footprint_wkt=near.wkt)]) == {"old": "duplicate of new"}
    assert duplicates([new, scene("old", 0, "02.05", "a", footprint_wkt=half.wkt)]) == {}
    assert duplicates([new, scene("old", 0, "02.05", "b", footprint_wkt=half.wkt)]) == {"old": "duplicate of new"}
    # another tile, platform or pass is another image, and so is what the catalog says nothing about
    for changes in ({"tile": "33UVQ"}, {"platform": "sentinel-2b"}, {"tile": None}):
        assert duplicates([new, scene("old", 0, "02.05", "a", **changes)]) == {}
    assert duplicates([new, replace(old, acquired=old.acquired + timedelta(days=5))]) == {}
    assert old.footprint.equals(whole)


def test_radar_slices_are_no_duplicates_but_copies_are(stac_records: Path, make_scene: Callable[..., Scene]) -> None:
    slices = _slices(stac_records)
    assert duplicates(slices) == {}
    copy = replace(slices[0], scene_id="zz-copy")
    assert duplicates([*slices, copy]) == {"zz-copy": f"duplicate of {slices[0].scene_id}"}
    other = replace(copy, collection="sentinel-1-grd")
    assert duplicates([*slices, other]) == {}, "the asked order chooses among products"


# --- which cells they cover ----------------------------------------------------------------------------------------


def _slices(stac_records: Path) -> list[Scene]:
    items = json.loads((stac_records / "pc_s1rtc_datatake_4slices_32633.json").read_text())["features"]
    found = [parse_scene(item) for item in items]
    return [scene for scene in found if isinstance(scene, Scene)]


def test_real_slices_of_a_datatake_cover_the_cells_between_them(stac_records: Path) -> None:
    slices = _slices(stac_records)
    by_time = sorted(slices, key=lambda scene: scene.acquired)
    cells: list[Cell] = []
    for earlier, later in pairwise(by_time):
        line = shapely.shortest_line(earlier.footprint.centroid, later.footprint.centroid)
        seam = line.intersection(earlier.footprint.boundary).centroid
        x, y = transformer(4326, 32633).transform(seam.x, seam.y)
        cells += [
            corner_cell(32633, round(x, -1) + dx, round(y, -1) + dy, 120)
            for dx in range(-12000, 12000, 1200)
            for dy in range(-12000, 12000, 1200)
        ]
    outlines = footprints(cells, inset_m=10)
    found = radar_by_cell(cells, outlines, slices)
    touched = [sum(scene.footprint.intersects(outline) for scene in slices) for outline in outlines]
    lost = [count for count, here in zip(touched, found, strict=True) if not here]
    assert lost.count(1) == len(lost) <= 4, "only cells are lost that end in the slit between two outlines"
    joined = [scene for here in found for scene in here if scene.fills]
    assert 10 < len(joined) < len(cells)
    for scene in joined:
        assert len(scene.parts) == 2
        assert abs((scene.parts[0].acquired - scene.parts[1].acquired).total_seconds()) < 30
    for here, outline in zip(found, outlines, strict=True):
        assert not here or (not here[0].fills) == any(scene.footprint.covers(outline) for scene in slices)


def test_real_scenes_of_two_zones_at_81_north(stac_records: Path) -> None:
    """Zones overlap widely there: a cell takes a scene of its own zone where one covers it, and warps elsewhere."""
    items = json.loads((stac_records / "pc_s2l2a_46X_47X_81N_mixed_zone_N0510.json").read_text())["features"]
    scenes = [scene for scene in map(parse_scene, items) if isinstance(scene, Scene)]
    assert {scene.grid.epsg for scene in scenes if scene.grid} == {32646, 32647}
    assert duplicates(scenes) == {}
    cells = lattice_cells(shapely.union_all([scene.footprint for scene in scenes]), 1024)
    outlines = footprints(cells, inset_m=10)
    found = candidates_by_cell(cells, outlines, scenes, own_grid=False)
    warped = 0
    for cell, outline, here in zip(cells, outlines, found, strict=True):
        alone = [scene for scene in scenes if scene.footprint.covers(outline)]
        assert len(here) <= 1, "one pass is one candidate, whatever the zone"
        assert bool(here) >= bool(alone)
        for scene in here:
            own = [one for one in alone if one.grid and one.grid.epsg == cell.epsg]
            assert not own or scene in own
            warped += scene.grid is not None and scene.grid.epsg != cell.epsg
            assert all(part.grid and scene.grid and part.grid.epsg == scene.grid.epsg for part in scene.fills)
    assert sum(map(bool, found)) > 50
    assert warped, "the overlap of the zones is used"


WEST, EAST = shapely.box(14, 47, 15.0050, 49), shapely.box(15.0042, 47, 16, 49)
"""Two strips that overlap within the tiny Earth."""


def _cells() -> list[Cell]:
    return [corner_cell(EPSG, LEFT + 240.0 * i, float(TOP), 24) for i in range(6)]


def test_a_cell_takes_one_scene_where_one_is_enough(make_scene: Callable[..., Scene]) -> None:
    cells = _cells()
    outlines = footprints(cells, inset_m=10)
    west, east = (make_scene(n, footprint_wkt=box.wkt) for n, box in (("W", WEST), ("E", EAST)))
    found = candidates_by_cell(cells, outlines, [west, east], own_grid=False)
    for (scene,), outline in zip(found, outlines, strict=True):
        alone = [one for one in (west, east) if one.footprint.covers(outline)]
        assert (scene in alone) if alone else [part.scene_id for part in scene.parts] in (["W", "E"], ["E", "W"])
        if not alone:
            sizes = [part.footprint.intersection(outline).area for part in scene.parts]
            assert sizes == sorted(sizes, reverse=True), "the main scene has the most of the cell"
    assert sum(bool(scene.fills) for (scene,) in found) == 1
    assert candidates_by_cell(cells, outlines, [east, west], own_grid=False) == found


@pytest.mark.parametrize(
    ("change", "joins"),
    [
        ({}, True),
        ({"acquired": T0 + timedelta(seconds=599)}, True),
        ({"acquired": T0 + timedelta(seconds=600)}, False),
        ({"platform": "sentinel-2b"}, False),
        ({"relative_orbit": 23}, False),
        ({"grid": (32632, 0.0, 0.0)}, False),
        ({"grid": (EPSG, 4.0, 0.0)}, False),
        ({"grid": (EPSG, -99960.0, 60.0)}, True),
        ({"grid": None}, False),
        ({"grid": None, "tile": "33UVP"}, True),
        ({"footprint_wkt": shapely.box(15.0051, 47, 16, 49).wkt}, False),
    ],
)
def test_what_joins(change: dict[str, Any], joins: bool, make_scene: Callable[..., Scene]) -> None:
    """One pass, one satellite, one grid, and no gap between: anything else is another image."""
    same = {"platform": "sentinel-2a", "relative_orbit": 22, "tile": "33UVP"}
    west = make_scene("W", footprint_wkt=WEST.wkt, **same)
    if change.get("grid"):
        epsg, dx, dy = change["grid"]
        grid = Grid(epsg=epsg, transform=(10.0, 0.0, LEFT + dx, 0.0, -10.0, TOP + dy), height_px=9, width_px=9)
        change = {**change, "grid": grid}
    east = make_scene("E", **{**same, "footprint_wkt": EAST.wkt, "tile": "33UWP", **change})
    cells = _cells()
    outlines = footprints(cells, inset_m=10)
    found = candidates_by_cell(cells, outlines, [west, east], own_grid=False)
    assert any(scene.fills for here in found for scene in here) == joins


# --- whose every pixel is ------------------------------------------------------------------------------------------


@given(st.data())
def test_composing_is_a_plain_loop(make_scene: Callable[..., Scene], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    names = [f"S{i}" for i in range(count)]
    scenes = [make_scene(name) for name in names]
    main = replace(scenes[0], fills=tuple(scenes[1:]))
    flags = hnp.arrays(bool, (2, 4, 4))
    classes = st.one_of(st.none(), hnp.arrays(np.uint8, (2, 4, 4), elements=st.sampled_from([0, 4, 9])))
    blocks = {
        name: Block(
            data=np.full((2, 3, 4, 4), 10 * i + 1, np.uint16),
            valid=data.draw(flags),
            warped=np.full((2, 3), i == 1),
            scl=data.draw(classes),
        )
        for i, name in enumerate(names)
    }
    found = compose([main, main], lambda scene, at: blocks[scene.scene_id])
    for k, image in enumerate(found):
        assert isinstance(image, Image)
        used = {0}
        for y, x in np.ndindex(4, 4):

            def known(i: int) -> bool:
                block = blocks[names[i]]
                return bool(block.valid[k, y, x] and (block.scl is None or block.scl[k, y, x] != 0))  # noqa: B023

            source = next((i for i in range(count) if known(i)), 0)
            used.add(source)
            assert image.data[:, y, x].tolist() == [10 * source + 1] * 3
            assert image.valid[y, x] == (known(source) or blocks["S0"].valid[k, y, x])
            scl = blocks[names[source]].scl
            if image.scl is not None:
                assert image.scl[y, x] == (UNCLASSIFIED if scl is None else scl[k, y, x])
        assert [scene.scene_id for scene in image.scenes] == [names[i] for i in sorted(used)]
        assert image.warped.tolist() == [1 in used] * 3


def test_a_scene_is_read_once_for_all_cells(make_scene: Callable[..., Scene]) -> None:
    one, two, three = (make_scene(name) for name in "ABC")
    asked: list[tuple[str, list[int]]] = []

    def read(scene: Scene, at: Any) -> Block | str:
        asked.append((scene.scene_id, list(at)))
        if scene.scene_id == "C":
            return "no good"
        shape = (len(at), 4, 4)
        data = np.zeros((len(at), 1, 4, 4), np.uint16) + np.array(at, np.uint16)[:, None, None, None]
        return Block(data=data, valid=np.zeros(shape, bool), warped=np.zeros((len(at), 1), bool))

    found = compose([one, replace(two, fills=(one,)), two, replace(one, fills=(three,)), three], read)
    assert asked == [("A", [0, 1, 3]), ("B", [1, 2]), ("C", [3, 4])]
    assert [one if isinstance(one, str) else int(one.data[0, 0, 0]) for one in found] == [0, 1, 2, "no good", "no good"]


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A pass in two strips whose bands end at other columns, and a radar pass in two slices; and all their pixels."""
    root = tmp_path_factory.mktemp("strips")
    random = np.random.default_rng(5)
    items, truth = [], {}
    for strip, box, days in (("W", WEST, 0), ("E", EAST, 0), ("LATER", shapely.box(14, 47, 16, 49), 30)):
        pixels = {}
        for number, band in enumerate((*S2_BANDS, None)):
            name, gsd = (band.name, band.gsd_m) if band else ("SCL", 20)
            size = SIDE * 10 // gsd
            array = random.integers(200, 4000, (size, size)) if band else random.integers(4, 8, (size, size))
            column = np.arange(size)[None] * gsd + 3 * np.arange(size)[:, None] * gsd / 10  # a slanting edge
            limit = 500 + 10 * (number % 3)  # metres; bands look from other angles
            if strip == "W":
                array = np.where(column < limit, array, 0)
            elif strip == "E":
                array = np.where(column >= limit - 60, array, 0)
            pixels[name] = (array.astype("u2" if band else "u1"), gsd)
            truth[strip, name] = np.kron(array, np.ones((gsd // 10, gsd // 10), int))
        properties = {"datetime": (T0 + timedelta(days=days)).isoformat(), "s2:mgrs_tile": "33UVP",
                      "s2:datastrip_id": strip, "platform": "Sentinel-2A", "eo:cloud_cover": 1.0}  # fmt: skip
        items.append(_item(root, "sentinel-2-l2a", f"S2-{strip}", pixels, properties=properties))
        items[-1] |= {"geometry": shapely.geometry.mapping(box), "bbox": list(box.bounds)}
    for part, seconds in (("FIRST", 0), ("SECOND", 25)):
        pixels = {}
        for name in S1_NAMES:
            power = random.gamma(2, 0.05, (SIDE, SIDE)).astype("f4")
            rows = np.arange(SIDE)[:, None] + np.arange(SIDE)[None] // 4
            power[(rows >= 40) if part == "FIRST" else (rows < 40)] = -32768
            pixels[name.lower()] = (power, 10)
            truth[part, name] = power
        when = {"datetime": (T0 + timedelta(hours=6, seconds=seconds)).isoformat(), "platform": "SENTINEL-1A"}
        box = shapely.box(14, 47.8498, 16, 49) if part == "FIRST" else shapely.box(14, 47, 16, 47.8495)
        items.append(_item(root, "sentinel-1-rtc", f"S1-{part}", pixels, properties=when, nodata=-32768))
        items[-1] |= {"geometry": shapely.geometry.mapping(box), "bbox": list(box.bounds)}
    _write_catalog(root, items)
    return root, truth


@pytest.fixture(scope="module")
def plan(strips: Any, make_request: Callable[..., Any]) -> IngestPlan:
    request = make_request(
        catalog=str(strips[0]), grid="scene", chip_px=36, max_nodata_percent=100.0, aoi="14,47,16,49"
    )
    return make_plan(request)


def test_the_plan_joins_and_survives_its_file(plan: IngestPlan) -> None:
    joined = {name for task in plan.tasks for name in (task.s2, task.s1) if name.fills for name in scene_ids(task)}
    assert joined == {"S2-W", "S2-E", "S1-FIRST", "S1-SECOND"}
    again = from_parquet(to_parquet(plan))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    task = next(task for task in plan.tasks if task.s2.fills)
    bare = replace(task, s2=replace(task.s2, fills=()))
    units = tuple(replace(unit, tasks=tuple(bare if one is task else one for one in unit.tasks)) for unit in plan.units)
    assert replace(plan, units=units).fingerprint != plan.fingerprint
    assert not {"S2-W", "S2-E"} & set(plan.scenes_left_out)


def test_seams_are_exact(plan: IngestPlan, strips: Any) -> None:
    truth, both, radar = strips[1], 0, 0
    for made in (made for unit in plan.units for made in assemble(unit, plan.request, with_label=False)):
        sample, cell = made.sample, made.task.cell
        assert sample is not None
        col, row = round((cell.left_m - LEFT) / 10), round((TOP - cell.top_m) / 10)
        part = slice(row, row + 36), slice(col, col + 36)
        order = [one.scene_id.removeprefix("S2-") for one in made.task.s2.parts]
        stacks = {name: np.stack([truth[name, band][part] for band in (*S2_NAMES, "SCL")]) for name in order}
        want = stacks[order[0]].copy()
        for name in order[1:]:  # one at most
            takes = ~(want > 0).all(axis=0) & (stacks[name] > 0).all(axis=0)
            want[:, takes] = stacks[name][:, takes]
            both += int(takes.sum())
            order = [one for one in order if one != name or takes.any()]
        assert_array_equal(sample.s2, np.where((want[:-1] > 0), want[:-1], 0))
        assert_array_equal((sample.mask & MaskBit.S2_NODATA) > 0, ~(want > 0).all(axis=0))
        slices = [one.scene_id.removeprefix("S1-") for one in made.task.s1.parts]
        for i, name in enumerate(S1_NAMES):
            power = np.full((36, 36), -32768, "f4")
            for one in slices:
                power = np.where(power > 0, power, truth[one, name][part])
            found = sample.s1[i]
            assert_array_equal(np.isnan(found), power <= 0)
            np.testing.assert_allclose(found[power > 0], 10 * np.log10(np.maximum(power[power > 0], 1e-5)), rtol=1e-6)
            radar += int((truth[slices[0], name][part] <= 0).sum()) if len(slices) > 1 else 0
        assert sample.meta.scene_ids["s2"] == (f"S2-{order[0]}",)
        assert sample.meta.scene_ids.get("s2_fills", ("",))[0].split() == [f"S2-{name}" for name in order[1:]]
        assert sample.meta.resampled == ()
    assert both > 100
    assert radar > 50


def test_frames_of_stacks_are_joined_too(strips: Any, make_request: Callable[..., Any]) -> None:
    request = make_request(
        catalog=str(strips[0]), grid="scene", chip_px=36, max_nodata_percent=100.0, aoi="14,47,16,49",
        kind="stack", s1=(), max_gap_hours=0.0, frames=2, min_gap_hours=24.0, s2_bands=("B02", "B8A"),
    )  # fmt: skip
    filled = 0
    for unit in make_plan(request).units:
        for made in assemble_stacks(unit, request, with_label=False):
            assert made.sample is not None
            names = made.sample.meta.scene_ids
            assert len(names["s2"]) == 2
            assert names["s2"][1] == "S2-LATER"
            if "s2_fills" in names:
                filled += 1
                assert names["s2_fills"] in {("S2-E", ""), ("S2-W", "")}
                assert (made.sample.s2[0] > 0).all()
    assert filled
