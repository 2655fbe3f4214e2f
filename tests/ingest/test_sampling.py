"""Cells drawn from an area: fair, the same for the same seed, and never a list of the globe."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import from_bounds

from ingest import planner, sampling
from ingest.areas.aoi import parse_aoi
from ingest.areas.block_grid import block_cells, blocks_at
from ingest.areas.grid import Cell, lattice_cells
from ingest.planner import make_plan
from ingest.request import Request, Sampling
from ingest.sampling import draw, quotas, search_boxes
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest
Ask = Callable[..., tuple[Request, Sampling]]
GLOBE = "-180,-80,180,84"


@pytest.fixture(scope="session")
def ask(make_request: Callable[..., Request]) -> Ask:
    """A request and how to draw; any field of either can be given."""

    def make(count: int, aoi: str = "14.9,47.9,15.3,48.1", **changes: Any) -> tuple[Request, Sampling]:
        how = {"sampler": "grid", "weights": "", "shares": {}, "spread_m": 0.0}
        how |= {key: changes.pop(key) for key in list(how) if key in changes}
        return make_request(aoi=aoi, **{"chip_px": 60, **changes}), Sampling(count=count, **how)  # type: ignore[arg-type]

    return make


@pytest.fixture(params=["listed", "drawn"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small areas are listed, large ones drawn; a test that takes this goes both ways on a small one."""
    if request.param == "drawn":
        monkeypatch.setattr(sampling, "LISTED", 0)
        monkeypatch.setattr(sampling, "BATCH", 1024)
        monkeypatch.setattr(sampling, "MOST_BATCHES", 16)
    return str(request.param)


def _raster(path: Path, values: Any, bounds: tuple[float, ...], *, crs: Any = 4326, nodata: float = 255) -> str:
    array = np.asarray(values)
    profile = {"driver": "GTiff", "count": 1, "dtype": array.dtype, "crs": crs, "nodata": nodata}
    profile |= {"height": array.shape[0], "width": array.shape[1]}
    with rasterio.open(path, "w", transform=from_bounds(*bounds, *array.shape[::-1]), **profile) as file:
        file.write(array, 1)
    return str(path)


@pytest.mark.parametrize("grid", ["utm", "blocks"])
def test_what_is_drawn_are_cells_of_the_grid(way: str, grid: str, ask: Ask) -> None:
    block = 512 if grid == "blocks" else 0
    request, how = ask(60, "11.9,-0.1,12.1,0.1", grid=grid, block_px=block)
    area = request.areas[0].geometry
    every = {cell.cell_id: cell for cell in (block_cells(area, 60, 512) if block else lattice_cells(area, 60))}
    found = draw(request, how)
    assert len({cell.cell_id for cell in found}) == 60
    assert len({cell.epsg for cell in found}) > 1
    for cell in found:
        same = every[cell.cell_id]
        assert replace(cell, center_lonlat=same.center_lonlat) == same
        assert cell.center_lonlat == pytest.approx(same.center_lonlat, abs=1e-9)


def test_seed_order_and_number(way: str, ask: Ask) -> None:
    boxes = ["14.9,47.9,15.1,48.1", "15.05,47.95,15.3,48.1", "15.2,47.9,15.3,48.0"]
    areas = tuple(area for box in boxes for area in parse_aoi(box))
    request, how = ask(40)
    one = draw(replace(request, areas=areas), how)
    assert draw(replace(request, areas=areas[::-1]), how) == one
    assert set(draw(replace(request, areas=areas), replace(how, count=25))) <= set(one)
    assert draw(replace(request, areas=areas, seed=1), how) != one
    assert draw(replace(request, areas=areas, seed=-7), how) != one


def test_every_cell_has_the_same_chance(way: str, ask: Ask) -> None:
    """Parts with boxes that overlap, and a strip: 12 of the cells, 150 times."""
    request, how = ask(12)
    slope = [(15, 48), (15.12, 48), (15.12, 48.09)]
    above = [(15, 48.01), (15.1, 48.085), (15, 48.1)]
    strip = shapely.box(15.2, 48, 15.212, 48.35)  # a cell wide, so that parts of all its cells lie outside
    parts = shapely.MultiPolygon([shapely.Polygon(slope), shapely.Polygon(above), strip])
    areas = (replace(request.areas[0], wkt=parts.wkt),)
    count = len(lattice_cells(parts, 100))
    assert 100 < count < 160
    seen = Counter[str]()
    for seed in range(150):
        seen.update(cell.cell_id for cell in draw(replace(request, areas=areas, seed=seed, chip_px=100), how))
    expected = 150 * 12 / count
    drawn = np.array([*seen.values(), *[0] * (count - len(seen))])
    chi2 = ((drawn - expected) ** 2 / (expected * (1 - 12 / count))).sum()
    assert len(drawn) == count
    assert abs(chi2 - count) < 4 * np.sqrt(2 * count)


def test_the_globe_is_drawn_evenly_without_listing_it(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand of its 72 million cells: two batches of positions at most, and their memory."""
    monkeypatch.delattr(sampling, "lattice_cells")
    batches = []
    real = sampling.snapped
    monkeypatch.setattr(sampling, "snapped", lambda *a, **k: batches.append(1) or real(*a, **k))
    request, how = ask(10_000, GLOBE, chip_px=264)
    tracemalloc.start()
    cells = draw(request, how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(batches) == 1
    assert peak < 60e6
    assert len({cell.cell_id for cell in cells}) == 10_000
    lat = np.array([cell.center_lonlat[1] for cell in cells])
    whole = np.sin(np.radians(84)) + np.sin(np.radians(80))
    for south, north in ((-80, -60), (-60, -30), (-30, 0), (0, 30), (30, 60), (60, 84)):
        share = (np.sin(np.radians(north)) - np.sin(np.radians(south))) / whole
        assert ((lat >= south) & (lat < north)).mean() == pytest.approx(share, abs=4 * np.sqrt(share / 10_000))
    assert len({cell.epsg for cell in cells}) == 120


def test_land_in_polygons(way: str, ask: Ask, tmp_path: Path) -> None:
    land = shapely.Polygon([(14.8, 47.8), (15.2, 47.8), (15.0, 48.2)], [[(15, 47.95), (15.05, 47.95), (15.02, 48)]])
    (tmp_path / "land.geojson").write_text(json.dumps(shapely.geometry.mapping(land)))
    request, how = ask(80, sampler="land", weights=str(tmp_path / "land.geojson"))
    found = draw(request, how)
    assert all(shapely.contains_xy(land, *cell.center_lonlat) for cell in found)


def test_land_in_a_raster(way: str, ask: Ask, tmp_path: Path) -> None:
    """Three times the weight in the east: three quarters of the cells; none where there is nothing."""
    path = _raster(tmp_path / "land.tif", [[1, 3, 0, 255]], (14.9, 47.8, 15.3, 48.2), nodata=255)
    lons = []
    for seed in range(12):
        request, how = ask(30, sampler="land", weights=path, seed=seed)
        lons += [cell.center_lonlat[0] for cell in draw(request, how)]
    assert max(lons) < 15.1
    assert np.mean([lon > 15.0 for lon in lons]) == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("epsg", [4326, 3035, 32633])
def test_classes_in_any_crs(way: str, epsg: int, ask: Ask, tmp_path: Path) -> None:
    """Half of the ground is class 7, a third 2, a tenth 0, the rest nothing: each class gives its share."""
    convert = Transformer.from_crs(4326, epsg, always_xy=True)
    west, south, east, north = convert.transform_bounds(14.85, 47.85, 15.35, 48.15)
    classes = np.repeat(np.array([7] * 50 + [2] * 33 + [0] * 10 + [255] * 7, "u1")[None], 40, axis=0)
    path = _raster(tmp_path / "classes.tif", classes, (west, south, east, north), crs=epsg)
    want = {"equal": {7: 20, 2: 20, 0: 20}, "given": {7: 12, 2: 48}}
    for name, shares in (("equal", {}), ("given", {"7": 1.0, "2": 4.0})):
        request, how = ask(60, sampler="classes", weights=path, shares=shares)
        found = draw(request, how)
        with rasterio.open(path) as file:
            xy = [convert.transform(*cell.center_lonlat) for cell in found]
            assert Counter(int(value[0]) for value in file.sample(xy)) == want[name]


def test_cells_gather_round_points(ask: Ask, tmp_path: Path) -> None:
    """East and north of their point they spread with the deviation asked for; an area may cut them."""
    (tmp_path / "points.csv").write_text("178.9,-17.5,Suva\n15,48,Lunz\n")
    request, how = ask(3000, GLOBE, sampler="points", weights=str(tmp_path / "points.csv"), spread_m=40_000.0)
    cells = draw(request, how)
    near = {(178.9, -17.5): [], (15.0, 48.0): []}  # type: ignore[var-annotated]
    for cell in cells:
        place = min(near, key=lambda p: Geod(ellps="WGS84").inv(*p, *cell.center_lonlat)[2])
        azimuth, _, metres = Geod(ellps="WGS84").inv(*place, *cell.center_lonlat)
        near[place].append((metres * np.sin(np.radians(azimuth)), metres * np.cos(np.radians(azimuth))))
    for offsets in near.values():
        assert len(offsets) == pytest.approx(1500, abs=150)
        assert np.std(offsets, axis=0) == pytest.approx(40_000, rel=0.06)
        assert np.mean(offsets, axis=0) == pytest.approx(0, abs=4_000)
    assert {cell.epsg for cell in cells} >= {32760, 32701}
    request, how = ask(50, "15,47,16,49", sampler="points", weights=str(tmp_path / "points.csv"), spread_m=40_000.0)
    assert all(cell.center_lonlat[0] > 15 for cell in draw(request, how))


def _blocks(cells: list[Cell], block_px: int) -> Counter[Any]:
    epsg = np.array([cell.epsg for cell in cells])
    x, y = np.array([cell.center_m for cell in cells]).T
    return Counter(blocks_at(epsg, x, y, block_px))


def test_blocks_are_filled_one_after_the_other(way: str, ask: Ask) -> None:
    """Twenty chips of 264 px lie in three blocks of 1024: nine, nine and two; by cells they lie in nearly twenty."""
    aoi = "14.6,45.3,15.0,45.7"
    drawn = [
        draw(*ask(20, aoi, sampler=name, grid="blocks", block_px=1024, chip_px=264)) for name in ("blocks", "grid")
    ]
    many = draw(*ask(104, aoi, sampler="blocks", grid="blocks", block_px=1024, chip_px=264))
    assert len({cell.cell_id for cell in many}) == 104
    blocks, cells = (_blocks(found, 1024) for found in drawn)
    assert len(cells) > 10
    assert sum(blocks.values()) == 20
    assert len(blocks) <= 6  # some lie on the area's edge
    assert max(blocks.values()) == 9


@given(st.integers(1, 10_000), st.dictionaries(st.integers(0, 99), st.floats(0.01, 100), min_size=1, max_size=9))
def test_quotas_are_whole_and_within_one_of_exact(count: int, shares: dict[int, float]) -> None:
    found = quotas(count, shares)
    assert sum(found.values()) == count
    for name, share in shares.items():
        assert abs(found[name] - count * share / sum(shares.values())) < 1


def test_the_catalog_is_asked_where_cells_are(ask: Ask) -> None:
    cells = draw(*ask(60, "178,-5,-178,5"))
    boxes = search_boxes(cells)
    assert all(box.bounds[2] - box.bounds[0] < 1.2 for box in boxes)
    for cell in cells:
        assert any(box.buffer(1e-9).covers(shapely.Point(cell.center_lonlat)) for box in boxes)
    assert search_boxes([]) == []


def test_a_plan_of_drawn_cells(make_request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_plan(make_request())
    asked = []
    real = planner.catalog.search
    monkeypatch.setattr(
        planner.catalog, "search", lambda *a, areas, **k: asked.append(areas) or real(*a, areas=areas, **k)
    )
    how = Sampling(count=2, sampler="grid", weights="", shares={}, spread_m=0.0)
    plan = make_plan(make_request(sampling=how))
    cells = {task.cell for task in plan.tasks}
    assert len(cells) == 2
    assert {task.cell.cell_id for task in plan.tasks} < {task.cell.cell_id for task in whole.tasks}
    assert len(plan.tasks) == 6
    assert all(
        shapely.equals_exact(areas[0], search_boxes(sorted(cells, key=lambda c: c.cell_id))[0]) for areas in asked
    )


def test_too_few_cells_are_told(way: str, ask: Ask, tmp_path: Path) -> None:
    request, how = ask(10_000)
    with pytest.raises(UsageError, match=r"--sample 10000: only \d+ cells of 60 pixels"):
        draw(request, how)
    path = _raster(tmp_path / "c.tif", np.array([[1, 2]], "u1"), (14.9, 47.8, 15.3, 48.2))
    request, how = ask(40, sampler="classes", weights=path, shares={"1": 1.0, "5": 1.0})
    with pytest.raises(UsageError, match=r"class 5: 0 of 20"):
        draw(request, how)


@pytest.mark.parametrize(
    ("kind", "sampler", "match"),
    [
        ("not there", "land", "is not there"),
        ("not there", "classes", "cannot be read as a raster"),
        ("text", "classes", "cannot be read as a raster"),
        ("no crs", "classes", "has no CRS"),
        ("elsewhere", "classes", "cannot be read as a raster in the area"),
        ("fractions", "classes", "whole numbers"),
        ("negative", "land", "no weight above 0"),
        ("nothing", "land", "no weight above 0"),
        ("points", "land", "land is polygons"),
        ("polygons", "points", "needs points"),
        ("nothing", "classes", "no pixel has a class"),
    ],
)
def test_files_that_a_sampler_cannot_use(*, kind: str, sampler: str, match: str, ask: Ask, tmp_path: Path) -> None:
    bounds, path = (14.8, 47.8, 15.4, 48.2), tmp_path / "file.tif"
    if kind == "text":
        path.write_text("no raster")
    elif kind == "no crs":
        _raster(path, np.ones((2, 2), "u1"), bounds, crs=None)
    elif kind == "elsewhere":
        _raster(path, np.ones((2, 2), "u1"), (100, 10, 101, 11))
    elif kind in {"fractions", "negative", "nothing"}:
        value = {"fractions": 0.5, "negative": -1.0, "nothing": 255.0}[kind]
        _raster(path, np.full((2, 2), value, "f4"), bounds)
    elif kind in {"points", "polygons"}:
        path = tmp_path / "file.geojson"
        geometry = shapely.Point(15, 48) if kind == "points" else shapely.box(*bounds)
        path.write_text(json.dumps(shapely.geometry.mapping(geometry)))
    elif kind == "not there" and sampler == "land":
        path = tmp_path / "nowhere.geojson"
    request, how = ask(5, sampler=sampler, weights=str(path), spread_m=1000.0)
    with pytest.raises(UsageError, match=match):
        draw(request, how)
