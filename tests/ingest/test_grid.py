"""Cells against a plain loop over the lattice, and what every cell must hold."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from ingest.areas import antimeridian, grid
from ingest.areas.grid import (
    Cell,
    centered_cell,
    check_chip_px,
    check_count,
    corner_cell,
    footprints,
    ground_m2,
    lattice_cells,
    pitch_m,
    utm_epsg,
)
from ingest.scenes.scene import Scene, parse_scene
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

_CHIPS = st.sampled_from([16, 30, 60, 100])
_ZONE_PLACES = st.tuples(st.floats(-179.8, 179.6), st.floats(-79.5, 83.4))


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (15, 48, 32633),
        (11.9999, 48, 32632),
        (12, 48, 32633),
        (-180, 10, 32601),
        (180, 10, 32660),
        (179.99, -10, 32760),
        (15, -0.001, 32733),
        (15, 0, 32633),
        (5, 60, 32632),  # Bergen: 32V reaches west to 3 degrees
        (3, 60, 32632),
        (11.99, 60, 32632),
        (12, 60, 32633),
        (5, 56, 32632),
        (5, 55.99, 32631),
        (5, 64.1, 32631),
        (2.9, 60, 32631),
        (8, 75, 32631),
        (10, 78, 32633),  # Svalbard: 33X is 9 to 21
        (20, 78, 32633),
        (22, 78, 32635),
        (32, 78, 32635),
        (34, 78, 32637),
        (41.9, 78, 32637),
        (43, 78, 32638),
        (10, 71.9, 32632),
    ],
)
def test_zones_are_those_of_mgrs(lon: float, lat: float, epsg: int) -> None:
    assert utm_epsg(lon, lat) == epsg


@given(st.floats(-180, 179.99), st.floats(-80, 55.9))
def test_without_exceptions_a_zone_is_six_degrees(lon: float, lat: float) -> None:
    zone = utm_epsg(lon, lat) % 100
    assert (zone - 1) * 6 - 180 <= lon + 1e-9
    assert lon - 1e-9 <= zone * 6 - 180


@given(st.integers(8, 2048))
def test_pitch_is_the_side_rounded_up_to_sixty_metres(chip_px: int) -> None:
    pitch = pitch_m(chip_px)
    assert pitch % 60 == 0
    assert chip_px * 10 <= pitch < chip_px * 10 + 60


def _plain(area: Any, chip_px: int) -> set[str]:
    """Every (row, column) of every zone around the area, one point at a time."""
    pitch, half = math.ceil(chip_px / 6) * 60, chip_px * 5
    found = set()
    for epsg in [hemi + zone for hemi in (32600, 32700) for zone in range(1, 61)]:
        origin = 40 if epsg > 32700 else 0
        forward = Transformer.from_crs(4326, epsg, always_xy=True)
        corners = [forward.transform(x, y, errcheck=False) for x, y in shapely.segmentize(area, 0.01).exterior.coords]
        if abs((area.centroid.x - ((epsg % 100) * 6 - 183) + 180) % 360 - 180) > 12:
            continue
        rows = [math.floor((y - origin) / pitch) for _, y in corners]
        cols = [math.floor(x / pitch) for x, _ in corners]
        back = Transformer.from_crs(epsg, 4326, always_xy=True)
        for row in range(min(rows) - 2, max(rows) + 3):
            for col in range(min(cols) - 2, max(cols) + 3):
                lon, lat = back.transform(col * pitch + half, origin + row * pitch + half)
                if area.contains(shapely.Point(lon, lat)) and utm_epsg(lon, lat) == epsg:
                    found.add(f"{epsg}-r{row:05d}-c{col:05d}")
    return found


@pytest.mark.parametrize(
    ("west", "south", "chip_px"),
    [
        (14.99, 48.0, 24),
        (11.985, 48.0, 30),  # two zones
        (14.99, -0.01, 100),  # two hemispheres
        (8.95, 75.0, 30),  # 31X and 33X
        (2.97, 60.0, 30),  # 31V and 32V
        (-179.99, 20.0, 40),
        (30.0, 83.9, 16),
    ],
)
def test_cells_are_a_plain_loop(west: float, south: float, chip_px: int) -> None:
    area = shapely.Polygon([(west, south), (west + 0.03, south + 0.004), (west + 0.02, south + 0.02)])
    cells = lattice_cells(area, chip_px)
    assert [cell.cell_id for cell in cells] == sorted(_plain(area, chip_px))
    assert cells


@settings(max_examples=12, deadline=None)
@given(_ZONE_PLACES, _CHIPS)
def test_cells_lie_on_the_lattice_of_the_zone_of_their_centre(place: tuple[float, float], chip_px: int) -> None:
    area = shapely.box(place[0], place[1], place[0] + 0.05, place[1] + 0.03)
    cells = lattice_cells(area, chip_px)
    assert len({cell.cell_id for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.left_m % 60 == 0
        assert (cell.top_m - chip_px * 10) % 60 == (40 if cell.epsg > 32700 else 0)
        assert cell.left_m % pitch_m(chip_px) == 0
        assert utm_epsg(*cell.center_lonlat) == cell.epsg
        assert shapely.contains_xy(area, *cell.center_lonlat)
        x, y = Transformer.from_crs(4326, cell.epsg, always_xy=True).transform(*cell.center_lonlat)
        assert (x, y) == pytest.approx(cell.center_m, abs=1e-3)
        assert cell.transform == (10, 0, cell.left_m, 0, -10, cell.top_m)
        epsg, row, col = cell.cell_id.split("-")
        assert int(epsg) == cell.epsg
        assert int(row[1:]) * pitch_m(chip_px) == cell.top_m - chip_px * 10 - (40 if cell.epsg > 32700 else 0)
        assert int(col[1:]) * pitch_m(chip_px) == cell.left_m


@settings(max_examples=40, deadline=None)
@given(
    zone=st.integers(1, 60),
    lon=st.floats(-2.5, 2.4),
    lat=st.floats(-79, 55) | st.floats(64.5, 71.5),
    points=st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=1, max_size=8),
    chip_px=st.sampled_from([30, 60]),
)
def test_every_point_is_in_exactly_one_cell(
    *, zone: int, lon: float, lat: float, points: list[tuple[float, float]], chip_px: int
) -> None:
    """Where the pitch is the side and no zone's border is near, the cells are a partition."""
    west, south = (zone * 6 - 183) + lon, lat
    area = shapely.box(west, south, west + 0.06, south + 0.03)
    cells = lattice_cells(area, chip_px)
    epsg = utm_epsg(west, south)
    for u, v in points:
        if (south < 0) != (south + 0.03 < 0):
            continue
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(west + 0.06 * u, south + 0.03 * v)
        if min(abs(x % (chip_px * 10)), abs(y % (chip_px * 10))) < 1e-6:
            continue
        side = chip_px * 10
        near_edge = (
            0.06 * 111320 * math.cos(math.radians(south + 0.03)) * 0.2 < side * 1.5 or side * 1.5 > 0.03 * 111000 * 0.2
        )
        holding = [
            c for c in cells if c.epsg == epsg and c.left_m < x < c.left_m + side and c.top_m - side < y < c.top_m
        ]
        assert len(holding) == 1 or (near_edge and not holding)


def test_cells_fit_the_pixels_of_real_tiles_in_both_hemispheres(stac_records: Path) -> None:
    """Pixels of 60 m begin where cells do: every lattice cell lies a multiple of 60 m from the tile's corner."""
    hemispheres = set()
    for path in sorted(stac_records.glob("*s2*.json")):
        for item in _items(path):
            scene = parse_scene({"collection": "sentinel-2-l2a", **item})
            grid = scene.grid if isinstance(scene, Scene) else None
            if grid is None or grid.transform[0] != 10:
                continue
            x, y = grid.transform[2] + 54_900, grid.transform[5] - 54_900
            lon, lat = Transformer.from_crs(grid.epsg, 4326, always_xy=True).transform(x, y)
            for cell in lattice_cells(shapely.box(lon - 0.03, lat - 0.03, lon + 0.03, lat + 0.03), 120):
                if cell.epsg == grid.epsg:
                    assert ((cell.left_m - grid.transform[2]) % 60, (grid.transform[5] - cell.top_m) % 60) == (0, 0)
                    hemispheres.add(cell.epsg // 100)
    assert hemispheres == {326, 327}


def _items(path: Path) -> list[dict[str, Any]]:
    document = json.loads(path.read_text())
    return document if isinstance(document, list) else document.get("features", [document])


@pytest.mark.parametrize(
    "corners",
    [
        [(11.93, 47.95), (12.08, 47.97), (12.02, 48.06)],  # two zones
        [(5.96, -0.05), (6.06, -0.02), (6.01, 0.06)],  # two zones of two hemispheres: four corners meet
        [(179.95, 60.0), (-179.93, 60.01), (-179.99, 60.04)],  # the antimeridian
        [(179.96, -16.02), (180.05, -16.0), (180.02, -15.95)],  # the antimeridian, longitudes above 180
    ],
)
def test_no_cell_of_a_border_is_missing_and_none_is_there_twice(corners: list[tuple[float, float]]) -> None:
    area = antimeridian.cut(shapely.Polygon(corners))
    cells = lattice_cells(area, 60)
    want = set().union(*(_plain(part, 60) for part in shapely.get_parts(area)))
    assert [cell.cell_id for cell in cells] == sorted(want)
    assert len({cell.epsg for cell in cells}) in (2, 4)


def test_holes_and_parts_are_those_of_the_area() -> None:
    outer, hole, island = (shapely.box(15, 48, 15.1, 48.1), shapely.box(15.02, 48.02, 15.07, 48.07), (15.2, 48, 15.25))
    area = shapely.union_all([outer - hole, shapely.box(*island, 48.05)])
    ids = {cell.cell_id for cell in lattice_cells(area, 60)}
    whole, inside, beside = (
        {cell.cell_id for cell in lattice_cells(part, 60)} for part in (outer, hole, shapely.box(*island, 48.05))
    )
    assert ids == (whole - inside) | beside
    assert inside
    assert beside


def test_a_mesh_in_bands_is_the_mesh_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    area = shapely.box(15, -0.1, 15.2, 0.1)
    whole = lattice_cells(area, 60)
    monkeypatch.setattr(grid, "_MESH", 500)
    assert lattice_cells(area, 60) == whole


def test_more_cells_than_a_driver_holds_are_refused_before_they_are_made() -> None:
    with pytest.raises(UsageError, match=r"about 72,\d+,\d+ cells of 264 pixels.*--sample"):
        check_count([shapely.box(-180, -80, 180, 84)], 264)
    check_count([shapely.box(10, 40, 20, 50)], 264)


@pytest.mark.parametrize("lat", [0.0, 30.0, -60.0])
def test_ground_is_that_of_the_ellipsoid(lat: float) -> None:
    area = shapely.box(10, lat - 1, 12, lat + 1)
    dense = shapely.segmentize(area, 0.01)
    exact, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(dense))
    assert ground_m2(area) == pytest.approx(exact, rel=0.006)


def test_cells_do_not_depend_on_the_area() -> None:
    small = lattice_cells(shapely.box(11.99, 48, 12.01, 48.01), 30)
    large = {cell.cell_id: cell for cell in lattice_cells(shapely.box(11.95, 47.98, 12.05, 48.03), 30)}
    assert small
    for cell in small:
        other = large[cell.cell_id]
        assert (other.left_m, other.top_m, other.epsg) == (cell.left_m, cell.top_m, cell.epsg)
        assert other.center_lonlat == pytest.approx(cell.center_lonlat, abs=1e-9)


def test_an_area_smaller_than_a_cell_may_have_none() -> None:
    assert lattice_cells(shapely.box(15.0001, 48.0001, 15.0002, 48.0002), 264) == []


def test_centered_cell_is_snapped_to_ten_metres() -> None:
    to_utm = Transformer.from_crs(4326, 32633, always_xy=True)
    area = shapely.box(13.70, 48.21, 13.73, 48.23)
    cell = centered_cell(area, 32633, 120)
    assert (cell.left_m % 10, cell.top_m % 10) == (0, 0)
    xs, ys = zip(*(to_utm.transform(*point) for point in area.exterior.coords), strict=True)
    middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    assert np.abs(np.subtract(cell.center_m, middle)).max() <= 5 + 1e-6
    assert cell.cell_id == f"32633-x{int(cell.left_m):07d}-y{int(cell.top_m):07d}"


def test_corner_cell_keeps_an_origin_off_the_lattice() -> None:
    cell = corner_cell(32722, 790236.04, 7198039.25, 100)
    assert cell.transform == (10, 0, 790236.04, 0, -10, 7198039.25)
    assert cell.cell_id == "32722-x0790236-y7198039"
    assert cell.center_m == (790736.04, 7197539.25)


def test_footprints(make_cell: Callable[..., Cell]) -> None:
    cells = [make_cell(0, 0), corner_cell(32733, 500000, 9000000, 10), make_cell(24, 5)]
    for inset in (0.0, 10.0):
        for cell, outline in zip(cells, footprints(cells, inset_m=inset), strict=True):
            back = Transformer.from_crs(4326, cell.epsg, always_xy=True)
            xs, ys = zip(*(back.transform(*point) for point in outline.exterior.coords), strict=True)
            side = cell.size_px * 10
            want = (cell.left_m + inset, cell.top_m - side + inset, cell.left_m + side - inset, cell.top_m - inset)
            assert (min(xs), min(ys), max(xs), max(ys)) == pytest.approx(want, abs=1e-3)
            assert outline.is_valid
    assert len(footprints([])) == 0


@pytest.mark.parametrize("chip_px", [0, -1, 7, 2049, 10**9])
def test_a_chip_has_a_sensible_size(chip_px: int) -> None:
    with pytest.raises(UsageError, match=f"--chip-px {chip_px}"):
        check_chip_px(chip_px)
    check_chip_px(8)
    check_chip_px(2048)


def test_outlines_across_the_antimeridian_have_two_sides() -> None:
    cells = lattice_cells(antimeridian.cut(shapely.box(179.98, 10, 180.02, 10.04)), 60)
    outlines = footprints(cells)
    crossing = [outline for outline in outlines if outline.geom_type == "MultiPolygon"]
    assert crossing
    for cell, outline in zip(cells, outlines, strict=True):
        assert outline.is_valid
        assert ground_m2(outline) == pytest.approx(600**2, rel=0.01)
        assert outline.covers(shapely.Point(cell.center_lonlat))


def test_transformers_are_made_once() -> None:
    assert grid.transformer(4326, 32633) is grid.transformer(4326, 32633)
