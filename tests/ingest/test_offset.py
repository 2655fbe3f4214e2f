"""The witness: real pixels with and without the offset, what it refuses to tell, and its word in the sample."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal

from ingest import sensors
from ingest.assemble import Made, assemble
from ingest.pixels.raster import read_small
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from ingest.scenes.offset import testify_cirrus as cirrus
from ingest.scenes.offset import testify_coastal as coastal
from ingest.scenes.scene import Asset, Scene
from pipeline.bands import L1C_NAMES, S2_NAMES

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
SNOW = "S2B_MSIL2A_20180204T94161_57_38"


def _band(path: Path, band: str, names: tuple[str, ...]) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(names.index(band) + 1)


# --- real pixels -----------------------------------------------------------------------------------------------------


def test_real_level_1c_of_both_kinds(stac_items: Path) -> None:
    folder = stac_items.parent / "terramesh" / "S2L1C"
    told = {path.stem: cirrus(_band(path, "B10", L1C_NAMES), -1000) for path in sorted(folder.glob("*.tif"))}
    assert {name: one.dn_offset for name, one in told.items()} == {
        "282D_485L_3_3": -1000,
        "38D_378R_2_3": 0,
        "637U_59R_1_3": 0,
    }
    assert told["282D_485L_3_3"].evidence == "B10: 0.0% of 50176 pixels below 500, 100.0% from 950 to 1100"


def test_real_level_1c_of_a_cloudy_scene(real_catalog: Path) -> None:
    for path in sorted(real_catalog.glob("sentinel-2-l1c/*/B10.tif")):
        with rasterio.open(path) as file:
            dn = file.read(1)
        wanted = -1000 if "282D" in path.parent.name else 0
        assert cirrus(dn, -1000).dn_offset == wanted, path.parent.name


def test_real_level_2a_without_it(real_catalog: Path) -> None:
    """Twelve places of ten years; only the snow of Finland is too bright to tell."""
    told = {}
    for path in sorted(real_catalog.glob("sentinel-2-l2a/*/B01.tif")):
        with rasterio.open(path) as file:
            told[path.parent.name] = coastal(file.read(1), None, -1000).dn_offset
    small = {name for name in told if (name.endswith(("36_85", "87_48", "4_55")))}
    assert len(small) == 3
    assert {name for name, dn_offset in told.items() if dn_offset is None} == {SNOW}
    assert set(told.values()) == {0, None}


def test_real_level_2a_with_it(stac_items: Path) -> None:
    """Clouds over the sea, offset inside: the sea shows it where a classification names it, else nothing does."""
    path = stac_items.parent / "hydro" / "patch_1.tif"
    dn, nir = (_band(path, band, S2_NAMES) for band in ("B01", "B08"))
    assert coastal(dn, None, -1000).dn_offset is None
    assert coastal(dn, np.full(dn.shape, 9, "u1"), -1000).dn_offset is None, "all cloud shows nothing"
    sea = np.where(nir < 1300, 6, 9).astype("u1")  # near infrared tells water, and sits on the same offset
    assert (sea == 6).mean() > 0.01
    assert coastal(dn, sea, -1000).dn_offset == -1000
    dark = _band(stac_items.parent / "hydro" / "patch_10.tif", "B01", S2_NAMES)
    assert coastal(dark, None, -1000).dn_offset == 0


def test_a_real_scene_of_the_other_kind_is_told(real_catalog: Path) -> None:
    """The same real pixels moved by 1000, and back: the verdict follows, and is never the wrong one."""
    for path in sorted(real_catalog.glob("sentinel-2-l2a/terramesh*/B01.tif")):
        with rasterio.open(path) as file:
            dn = file.read(1).astype(int)
        scl = np.where(dn < 900, 4, 5).astype("u1")
        assert coastal(dn, scl, -1000).dn_offset == 0
        assert coastal(np.where(dn > 0, dn + 1000, 0), scl, -1000).dn_offset == -1000
        assert coastal(np.where(dn > 0, dn + 1000, 0), None, -1000).dn_offset is None


def test_too_little_tells_nothing() -> None:
    for few in (np.zeros((50, 50), int), np.pad(np.full((5, 5), 300), (0, 45))):
        assert coastal(few, np.full((50, 50), 6), -1000).dn_offset is None
        assert cirrus(few, -1000).dn_offset is None
    high_cloud = np.random.default_rng(0).integers(1500, 4000, (50, 50))
    assert cirrus(high_cloud, -1000).dn_offset is None


# --- on the way to a sample ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(make_request: Ask) -> IngestPlan:
    return make_plan(make_request())


def _disputed(plan: IngestPlan, tmp_path: Path, *, moved: int, scl: int | None = 4) -> tuple[list[Made], list[Made]]:
    """The first unit as it is, and with its records in dispute, a dark B01 and every band moved."""
    unit = plan.units[0]
    scene = unit.tasks[0].s2
    assets: dict[str, Asset] = {}
    for name, asset in scene.assets.items():
        with rasterio.open(asset.href) as file:
            profile, pixels = file.profile, file.read(1)
        if name == "SCL":
            pixels = np.full_like(pixels, scl or 0)
        else:
            dark = np.random.default_rng(1).integers(100, 600, pixels.shape) if name == "B01" else pixels
            pixels = (dark + moved).astype(pixels.dtype)
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(pixels, 1)
        if name != "SCL" or scl is not None:
            rule = "witness" if name == "B04" else "item"
            changed = replace(asset, href=str(tmp_path / f"{name}.tif"), dn_offset=-1000, offset_rule=rule)
            assets[name] = changed if name != "SCL" else replace(asset, href=str(tmp_path / "SCL.tif"))
    tasks = tuple(replace(task, s2=replace(task.s2, assets=assets)) for task in unit.tasks)
    plain = list(assemble(unit, plan.request, with_label=False))
    return plain, list(assemble(replace(unit, tasks=tasks), plan.request, with_label=False))


@pytest.mark.parametrize(("moved", "dn_offset"), [(0, 0), (1000, -1000)])
def test_the_pixels_have_the_last_word(moved: int, dn_offset: int, plan: IngestPlan, tmp_path: Path) -> None:
    plain, disputed = _disputed(plan, tmp_path, moved=moved)
    for one, other in zip(plain, disputed, strict=True):
        assert one.sample is not None
        assert other.sample is not None
        assert_array_equal(one.sample.s2[1:], other.sample.s2[1:])
        (words,) = other.sample.meta.offsets.values()
        assert words.startswith(f"{dn_offset} witness, B01: ")
        assert one.sample.meta.offsets == {"S2-0": "0 baseline"}


def test_who_cannot_tell_is_refused(plan: IngestPlan, tmp_path: Path) -> None:
    _, disputed = _disputed(plan, tmp_path, moved=1000, scl=None)
    (reason,) = {made.quality.reason for made in disputed}
    assert reason == (
        "scene refused: offset of S2-0: whether the offset is in the pixels cannot be told: "
        "B01: 0.0% of 576 pixels below 700"
    )
    assert all(made.sample is None for made in disputed)


def test_the_witness_reads_one_overview(tmp_path: Path, make_scene: Callable[..., Scene], monkeypatch: Any) -> None:
    pixels = np.repeat(np.repeat(np.random.default_rng(0).integers(100, 600, (64, 64)), 8, 0), 8, 1).astype("u2")
    profile = {"driver": "COG", "dtype": "uint16", "count": 1, "height": 512, "width": 512, "crs": 32633, "nodata": 0,
               "blocksize": 128, "overview_resampling": "nearest"}  # fmt: skip
    transform = rasterio.transform.Affine(60, 0, 5e5, 0, -60, 5.3e6)
    with rasterio.open(tmp_path / "B01.tif", "w", transform=transform, **profile) as file:
        file.write(pixels, 1)
    with rasterio.open(tmp_path / "B01.tif") as file:
        factor = max(file.overviews(1))
    scene = make_scene(assets={"B01": Asset(href=str(tmp_path / "B01.tif"), dn_offset=-1000, offset_rule="witness")})
    small = read_small(scene, "B01")
    assert factor > 1
    assert small.shape == (512 // factor, 512 // factor)
    assert set(np.unique(small)) <= set(np.unique(pixels))
    asked: list[str] = []
    monkeypatch.setattr(sensors, "read_small", lambda scene, band, **_: asked.append(band) or small)
    assert sensors._offset(scene)[0] == 0
    assert asked == ["B01"]
