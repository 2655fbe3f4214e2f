"""The side of a place: the same in every data set, about the share that was asked for, and no overlap across it."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.grid import footprints, lattice_cells
from ingest.split import BLOCK_DEG, group_of, leaking, split_of

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
