"""Names of Major-TOM cells: those of published images, and a grid laid out line by line."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.areas.majortom import cell_name

pytestmark = pytest.mark.ingest


def _lines(count: int, whole: float) -> np.ndarray:
    """Multiples of `whole / count` from minus half of `whole` up to half, zero among them."""
    step = whole / count
    return np.array([i * step for i in range(-count, count + 1) if -whole / 2 <= i * step < whole / 2])


def _plain(lon: float, lat: float) -> str:
    rows = _lines(2004, 180)
    south = rows[rows <= lat][-1]
    columns = _lines(math.ceil(2 * math.pi * 637.8137 * math.cos(math.radians(south))), 360)
    up = int((rows <= lat).sum() - (rows < 0).sum()) - 1
    right = int((columns <= lon).sum() - (columns < 0).sum()) - 1
    return (f"{up}U" if up >= 0 else f"{-up}D") + "_" + (f"{right}R" if right >= 0 else f"{-right}L")


@given(st.integers(-1_800_000, 1_799_999), st.integers(-800_000, 840_000))
def test_names_are_those_of_a_grid_laid_out_line_by_line(x: int, y: int) -> None:
    lon, lat = (x + 0.5) / 10_000, (y + 0.5) / 10_000
    assert cell_name(lon, lat) == _plain(lon, lat)


@pytest.mark.parametrize(
    ("lon", "lat", "name"),
    [(0, 0, "0U_0R"), (-1e-9, 0, "0U_1L"), (0, -1e-9, "1D_0R"), (180, 0, "0U_2004L"), (-180, 0, "0U_2004L")],
)
def test_counting_starts_at_zero(lon: float, lat: float, name: str) -> None:
    assert cell_name(lon, lat) == name


def test_names_are_those_of_published_images(real_catalog: Path) -> None:
    """TerraMesh's chips are parts of the Major-TOM cell in their name."""
    places = json.loads((real_catalog / ".." / "sentinel" / "places.json").read_text())
    chips = [place for place in places if place["id"].startswith("terramesh/")]
    assert len(chips) == 3
    for place in chips:
        west, south, east, north = place["bbox_lonlat"]
        want = re.fullmatch(r"terramesh/(\w+_\w+)_\d_\d", place["id"])
        assert want is not None
        assert cell_name((west + east) / 2, (south + north) / 2) == want[1]


def test_the_name_of_a_published_cell(real_catalog: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    (folder,) = (real_catalog / ".." / "sentinel" / "majortom" / "S2L2A").glob("*/*")
    with rasterio.open(next(folder.rglob("B02.tif"))) as image:
        lon, lat = image.lnglat()
    assert cell_name(lon, lat) == folder.name
