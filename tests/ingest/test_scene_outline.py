"""Outlines of scenes: valid whatever a catalog writes, and cells on both sides of longitude 180 find their scene."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from ingest.areas.grid import Cell, corner_cell, footprints, transformer
from ingest.scenes.coverage import candidates_by_cell
from ingest.scenes.scene import Scene, outline, parse_scene
from pipeline.bands import S2_NAMES

pytestmark = pytest.mark.ingest


def test_a_crossed_outline_becomes_valid() -> None:
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)])
    assert not bow.is_valid
    assert outline(shapely.geometry.mapping(bow)).is_valid


def test_a_cell_across_is_two_small_parts(make_cell: Callable[..., Cell]) -> None:
    x, y = transformer(4326, 32601).transform(-180.0, 66.0)
    cells = [corner_cell(32601, round(x) - 1320.0 + 10, round(y) + 1320.0, 264), make_cell()]
    across, plain = footprints(cells)
    assert across.geom_type == "MultiPolygon"
    assert across.bounds[:3:2] == (-180, 180)
    assert across.area == pytest.approx(
        footprints([corner_cell(32601, round(x) + 9e4, round(y), 264)])[0].area, rel=0.05
    )
    assert plain.geom_type == "Polygon"


@pytest.mark.parametrize(("tile", "epsg"), [("T01KAB", 32701), ("T01WCP", 32601)])
def test_real_scenes_cover_cells_on_both_sides(tile: str, epsg: int, stac_records: Path) -> None:
    item = json.loads((stac_records / f"stactools_s2l2a_{tile}_antimeridian.json").read_text())
    bands = [name for name in S2_NAMES if name in {"B02", "B03", "B04"}]
    scene = parse_scene({"collection": "sentinel-2-l2a", **item}, s2_bands=bands)
    assert isinstance(scene, Scene), scene
    left, *_, top = scene.grid.transform[2], scene.grid.transform[5]
    cells = [
        corner_cell(epsg, left + 2640.0 * col, top - 2640.0 * row, 264) for row in (5, 20, 35) for col in range(41)
    ]
    outlines = footprints(cells, inset_m=10)
    found = candidates_by_cell(cells, outlines, [scene], own_grid=True)
    # the oracle never meets the antimeridian: everything in the scene's own zone, metres
    to_m = transformer(4326, epsg)
    unwrapped = shapely.union_all(
        [
            shapely.transform(part, lambda xy: np.column_stack(to_m.transform(*xy.T)))
            for part in shape(item["geometry"]).geoms
        ]
    ).buffer(20)
    wanted = [
        unwrapped.covers(shapely.box(c.left_m + 10, c.top_m - 2630, c.left_m + 2630, c.top_m - 10)) for c in cells
    ]
    assert [bool(one) for one in found] == wanted
    sides = {np.sign(cell.center_lonlat[0]) for cell, one in zip(cells, found, strict=True) if one}
    across = [outline for outline, one in zip(outlines, found, strict=True) if one and outline.geom_type != "Polygon"]
    assert sides == {-1, 1}
    assert across
