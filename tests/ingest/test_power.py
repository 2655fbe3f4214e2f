"""The unit of a radar image: three codings of the same pixels, the real ones among them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from ingest.assemble import assemble
from ingest.pixels.power import NotPowerError, check_power
from ingest.pixels.raster import read_band
from ingest.planner import make_plan
from ingest.scenes.header import SceneRefused
from ingest.scenes.scene import Asset, Scene

pytestmark = pytest.mark.ingest
DB, DN = "values are dB where", "values are digital numbers where"


@given(
    st.floats(-32, 3), st.integers(0, 2**32 - 1), st.sampled_from([np.nan, -32768.0, 0.0, -9999.0]), st.floats(0, 0.9)
)
def test_three_codings_of_speckle(level_db: float, seed: int, nodata: float, missing: float) -> None:
    """From calm water to a bright town; WorldCereal's code is dB = 20 log10(DN) - 83."""
    random = np.random.default_rng(seed)
    power = random.gamma(4.4, 10 ** (level_db / 10) / 4.4, (24, 24))
    gone = random.random(power.shape) < missing
    db = 10 * np.log10(power)
    codes = np.round(10 ** ((db + 83) / 20))
    check_power(np.where(gone, nodata, power).astype("f4"), nodata)
    if level_db < -3:
        with pytest.raises(NotPowerError, match=DB):
            check_power(np.where(gone, nodata, db).astype("f4"), nodata)
    for dtype in ("u2", "f4"):
        with pytest.raises(NotPowerError, match=DN):
            check_power(np.where(gone, 0, codes).astype(dtype), 0)


def test_nothing_to_tell_from_passes() -> None:
    for values in ([], [np.nan], [0, 0], [-32768.0, np.inf], [-9999.0]):
        check_power(np.array(values, "f4"), -9999.0)
    check_power(np.array([5e4, 0.01, 0.02, -1e-4], "f4"), None)  # a corner reflector; noise was subtracted
    with pytest.raises(NotPowerError, match="too large"):
        check_power(np.array([1234.5, 300.7, 900.1], "f4"), None)


def test_real_files(real_catalog: Path, stac_items: Path) -> None:
    """The same three acquisitions as linear power in the catalog and as dB in TerraMesh; raw amplitudes of a GRD."""
    power = sorted(real_catalog.glob("sentinel-1-*/*/v?.tif"))
    assert len(power) == 44
    for path in power:
        with rasterio.open(path) as file:
            check_power(file.read(1), file.nodata)
    for path in sorted((stac_items.parent / "terramesh" / "S1RTC").glob("*.tif")):
        with rasterio.open(path) as file, pytest.raises(NotPowerError, match=DB):
            check_power(file.read(1), file.nodata)
    (path,) = (stac_items.parent / "s1_grd_gcp").rglob("iw-vv.tiff")
    with rasterio.open(path) as file, pytest.raises(NotPowerError, match=DN):
        check_power(file.read(1), file.nodata)


def test_a_real_file_in_db_is_refused_where_power_is_expected(
    stac_items: Path, make_scene: Callable[..., Scene], make_request: Callable[..., Any], tmp_path: Path
) -> None:
    source = stac_items.parent / "terramesh" / "S1RTC" / "637U_59R_1_3.tif"
    task = make_plan(make_request()).units[0].tasks[0]
    scene = make_scene(sensor="s1", assets={"VV": Asset(href=str(source), dn_offset=0)})
    with rasterio.open(source) as file:
        cell = replace(task.cell, epsg=file.crs.to_epsg(), left_m=file.transform.c, top_m=file.transform.f)
    with pytest.raises(SceneRefused, match=DB):
        read_band(scene, "VV", [cell], shared={})
    with rasterio.open(task.s1.assets["VV"].href) as file:
        profile, pixels = file.profile, file.read(1)
    with rasterio.open(tmp_path / "db.tif", "w", **profile) as file:
        file.write(10 * np.log10(pixels), 1)
    assets = {**task.s1.assets, "VV": replace(task.s1.assets["VV"], href=str(tmp_path / "db.tif"))}
    request = make_request()
    (unit, *_) = make_plan(request).units
    tasks = tuple(replace(one, s1=replace(one.s1, assets=assets)) for one in unit.tasks)
    reasons = {made.quality.reason for made in assemble(replace(unit, tasks=tasks), request, with_label=False)}
    assert reasons == {"scene refused: VV of S1-0: values are dB where linear power is expected"}
