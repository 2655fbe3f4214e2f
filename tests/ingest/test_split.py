"""The side of a place: the same in every data set, about the share that was asked for, and no overlap across it."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from ingest.areas import antimeridian
from ingest.areas.grid import Cell, corner_cell, footprints, lattice_cells, transformer
from ingest.areas.split import BLOCK_DEG, Leakage, gaps_m, group_of, guarded, leakage, leaking, split_of

pytestmark = pytest.mark.ingest

_LON, _LAT = st.floats(-180, 180), st.floats(-80, 84)


@given(_LON, _LAT)
def test_groups_are_blocks_of_about_five_kilometres(lon: float, lat: float) -> None:
    row, column = (int(part[1:]) for part in group_of(lon, lat).split("-"))
    south = row * BLOCK_DEG - 90
    assert south - 1e-9 <= lat <= south + BLOCK_DEG + 1e-9
    middle = np.cos(np.radians(south + BLOCK_DEG / 2))
    columns = max(1, int(360 / BLOCK_DEG * middle))
    width_km = 360 / columns * 111.32 * middle
    assert 5.5 <= width_km < 5.8
    west = column * 360 / columns - 180
    assert west - 1e-9 <= lon <= west + 360 / columns + 1e-9 or lon > 180 - 1e-9


def test_the_antimeridian_is_one_line() -> None:
    assert group_of(180, 10) == group_of(-180, 10)


@given(_LON, _LAT, st.integers(0, 5))
def test_a_place_has_one_side_and_a_larger_share_only_adds(lon: float, lat: float, seed: int) -> None:
    group = group_of(lon, lat)
    sides = [split_of(group, val_percent=percent, seed=seed) for percent in (0, 5, 10, 50, 99, 100)]
    assert sides[0] == "train"
    assert sides[-1] == "val"
    assert sides == sorted(sides)  # train before val, once


def test_share_and_seed() -> None:
    groups = [f"b{row:04d}-c{column:04d}" for row in range(40) for column in range(50)]
    sides = {
        seed: np.array([split_of(group, val_percent=10, seed=seed) == "val" for group in groups]) for seed in (0, 1)
    }
    for side in sides.values():
        assert abs(side.mean() - 0.1) < 0.02
    assert abs((sides[0] & sides[1]).mean() - 0.01) < 0.01  # independent


def test_sides_do_not_depend_on_the_area() -> None:
    small = lattice_cells(shapely.box(12.02, 48.02, 12.05, 48.05), 60)
    large = lattice_cells(shapely.box(11.9, 47.95, 12.2, 48.1), 60)

    def sides(cells: list) -> dict[str, str]:
        return {c.cell_id: split_of(group_of(*c.center_lonlat), val_percent=30, seed=3) for c in cells}

    everything = sides(large)
    assert {everything[cell_id] for cell_id in everything} == {"train", "val"}
    assert sides(small).items() <= everything.items()


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from(["train", "val"])), max_size=12),
)
def test_leaking_is_a_plain_loop(drawn: list[tuple[int, int, str]]) -> None:
    outlines = np.array([shapely.box(x, y, x + 2, y + 2) for x, y, _ in drawn], dtype=object)
    splits = [side for *_, side in drawn]
    want = {
        i
        for i, one in enumerate(outlines)
        if splits[i] == "train"
        and any(splits[j] == "val" and one.intersection(other).area > 0 for j, other in enumerate(outlines))
    }
    assert leaking(outlines, splits) == want  # type: ignore[arg-type]


def test_neighbours_on_the_lattice_do_not_leak() -> None:
    cells = lattice_cells(shapely.box(15.0, 48.0, 15.02, 48.02), 30)
    sides = ["val" if i % 2 else "train" for i in range(len(cells))]
    assert leaking(footprints(cells), sides) == set()  # type: ignore[arg-type]


def test_cells_of_two_zones_that_overlap_leak() -> None:
    cells = lattice_cells(shapely.box(11.99, 48.0, 12.01, 48.02), 30)
    sides = ["val" if cell.epsg == 32633 else "train" for cell in cells]
    found = leaking(footprints(cells), sides)  # type: ignore[arg-type]
    assert found
    assert all(sides[i] == "train" for i in found)


PLACES = {
    "two zones": shapely.box(11.93, 47.95, 12.07, 48.03),
    "the equator": shapely.box(14.95, -0.05, 15.05, 0.05),
    "the antimeridian": shapely.box(179.94, 10, 180.06, 10.06),
    "Svalbard": shapely.box(8.7, 77.97, 9.3, 78.03),
}


def _plain_gaps(cells: list[Cell], sides: list[str]) -> list[float]:
    """From points along every pair of outlines, on the ellipsoid."""
    geod = Geod(ellps="WGS84")

    def ring(cell: Cell) -> np.ndarray:
        side = cell.size_px * 10
        box = shapely.box(cell.left_m, cell.top_m - side, cell.left_m + side, cell.top_m)
        xy = shapely.get_coordinates(shapely.segmentize(box, side / 8))
        return np.column_stack(Transformer.from_crs(cell.epsg, 4326, always_xy=True).transform(*xy.T))

    rings = [ring(cell) for cell in cells]
    found = []
    for i, one in enumerate(rings):
        best = np.inf
        for j, other in enumerate(rings):
            if sides[i] == "train" and sides[j] == "val":
                a, b = (axis.ravel() for axis in np.meshgrid(np.arange(len(one)), np.arange(len(other))))
                best = min(best, geod.inv(*one[a].T, *other[b].T)[2].min())
        found.append(best)
    return found


@pytest.mark.parametrize("name", PLACES)
def test_gaps_are_a_plain_loop_on_the_ellipsoid(name: str) -> None:
    cells = lattice_cells(antimeridian.cut(PLACES[name]), 90)
    random = np.random.default_rng(3)
    chosen = [cells[i] for i in random.choice(len(cells), 16, replace=False)]
    sides: list[Any] = ["val" if i % 4 == 0 else "train" for i in range(16)]
    assert len({cell.epsg for cell in chosen}) > 1
    want = np.array(_plain_gaps(chosen, sides))
    found = gaps_m(chosen, sides, reach_m=1e5)
    assert np.isinf(found).tolist() == np.isinf(want).tolist()
    trained = np.isfinite(want)
    overlapping = found == 0
    assert (want[overlapping & trained] < 130).all()  # cells that overlap have outlines that cross
    clear = trained & ~overlapping
    assert found[clear] == pytest.approx(want[clear], rel=2e-3, abs=60)  # between points an eighth of a side apart


@pytest.mark.parametrize("guard_km", [0.5, 2.0, 5.0])
def test_guarded_cells_are_those_in_reach_and_what_stays_keeps_the_distance(guard_km: float) -> None:
    cells = lattice_cells(shapely.box(11.93, 47.93, 12.07, 48.03), 150)
    sides: list[Any] = [split_of(group_of(*cell.center_lonlat), val_percent=20, seed=5) for cell in cells]
    assert set(sides) == {"train", "val"}
    out = guarded(cells, sides, guard_km)
    boxes = footprints(cells)
    for i, cell in enumerate(cells):
        if sides[i] == "train":
            near = min(_flat_km(cell, other) for other, side in zip(cells, sides, strict=True) if side == "val")
            if abs(near - guard_km) > 0.01:
                assert (i in out) == (near < guard_km)
    assert all(sides[i] == "train" for i in out)
    assert leaking(boxes, sides) <= out
    kept = [i for i in range(len(cells)) if i not in out]
    told = leakage([cells[i] for i in kept], [sides[i] for i in kept], [{"s"}] * len(kept), guard_km)
    assert (told.overlapping, told.within_guard) == (0, 0)
    assert told.nearest_km is None or told.nearest_km >= guard_km


def _flat_km(one: Cell, other: Cell) -> float:
    plane = transformer(other.epsg, one.epsg)
    boxes = [shapely.box(c.left_m, c.top_m - c.size_px * 10, c.left_m + c.size_px * 10, c.top_m) for c in (one, other)]
    moved = shapely.transform(boxes[1], lambda xy: np.column_stack(plane.transform(xy[:, 0], xy[:, 1])))
    return float(boxes[0].distance(moved)) / 1000


def test_without_a_guard_neighbours_stay() -> None:
    cells = lattice_cells(shapely.box(15.0, 48.0, 15.02, 48.02), 30)
    sides: list[Any] = ["val" if i % 2 else "train" for i in range(len(cells))]
    assert guarded(cells, sides, 0.0) == set()
    assert guarded(cells, ["train"] * len(cells), 5.0) == set()
    assert guarded([], [], 5.0) == set()


def test_leakage_counts_cells_once_and_chips_by_their_scenes() -> None:
    a, b, c, d = (corner_cell(32633, 500_000.0 + x, 5_300_000.0, 100) for x in (0, 500, 3000, 90_000))
    cells = [a, a, b, c, d]
    sides: list[Any] = ["val", "val", "train", "train", "train"]
    found = leakage(cells, sides, [{"x"}, {"y"}, {"y", "z"}, {"z"}, {"x"}], 2.5)
    assert found == Leakage(overlapping=1, within_guard=2, nearest_km=0.0, same_scene_percent=pytest.approx(200 / 3))
    far = leakage([a, d], ["val", "train"], [{"x"}, {"y"}], 0.0)
    assert far == Leakage(overlapping=0, within_guard=0, nearest_km=None, same_scene_percent=0.0)
    assert leakage([], [], [], 1.0).same_scene_percent == 0.0
