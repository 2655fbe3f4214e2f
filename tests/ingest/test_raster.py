"""Pixels: the source's own where the grids agree, GDAL's elsewhere, each block read once, failures named."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_allclose, assert_array_equal
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from ingest.areas.grid import Cell, corner_cell, transformer
from ingest.pixels.raster import read_band, read_bands
from ingest.plan import PairTask
from ingest.planner import make_plan
from ingest.request import Request
from ingest.scenes.scene import Asset, Scene
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.errors import ReadError

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


def _write(path: Path, array: np.ndarray, *, nodata: float | None = 0, crs: Any = 32633, **profile: Any) -> Path:
    height, width = array.shape
    given = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": array.dtype, "nodata": nodata}
    transform = profile.pop("transform", Affine(10, 0, 500040, 0, -10, 5300040))
    with rasterio.open(path, "w", crs=crs, transform=transform, **{**given, **profile}) as file:
        file.write(array, 1)
    return path


@pytest.fixture
def scene_of(make_scene: Callable[..., Scene]) -> Callable[..., Scene]:
    def make(path: Any, sensor: str = "s2") -> Scene:
        return make_scene(sensor=sensor, assets={"B02": Asset(href=str(path), dn_offset=0)})

    return make


def _random(shape: tuple[int, int] = (144, 144), dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(3).integers(1, 9999, shape).astype(dtype)


def test_whole_blocks_are_read_once_for_all_cells(
    tmp_path: Path, scene_of: Any, make_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _random()
    scene = scene_of(_write(tmp_path / "a.tif", source, tiled=True, blockxsize=64, blockysize=64))
    windows = []
    read = rasterio.io.DatasetReader.read

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        windows.append(kwargs["window"])
        return read(self, *args, **kwargs)

    monkeypatch.setattr(rasterio.io.DatasetReader, "read", counting)
    cells = [make_cell(70, 70, 16), make_cell(90, 100, 16), make_cell(100, 66, 16)]
    chips = read_band(scene, "B02", cells, shared={})
    ((window,),) = [windows]
    assert (window.row_off, window.col_off, window.height, window.width) == (64, 64, 64, 64)
    for chip, (col, row) in zip(chips.data, ((70, 70), (90, 100), (100, 66)), strict=True):
        assert_array_equal(chip, source[row : row + 16, col : col + 16])
    assert chips.valid.all()
    assert not chips.warped.any()


@pytest.mark.parametrize("factor", [1, 2, 6])
def test_coarser_bands_are_replicated(factor: int, tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    source = _random((144 // factor, 144 // factor))
    transform = Affine(10 * factor, 0, 500040, 0, -10 * factor, 5300040)
    chips = read_band(
        scene_of(_write(tmp_path / "a.tif", source, transform=transform)), "B02", [make_cell(7, 11, 24)], shared={}
    )
    assert_array_equal(chips.data[0], np.kron(source, np.ones((factor, factor), int))[11:35, 7:31])
    assert not chips.warped[0]


def test_a_cell_across_the_edge_and_one_outside(tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    source = _random()
    scene = scene_of(_write(tmp_path / "a.tif", source))
    chips = read_band(scene, "B02", [make_cell(-8, 130, 24)], shared={})
    assert_array_equal(chips.data[0, :14, 8:], source[130:144, :16])
    assert_array_equal(chips.valid[0], np.pad(np.ones((14, 16), bool), ((0, 10), (8, 0))))
    assert not chips.data[0][~chips.valid[0]].any()
    for col, row in ((500, 500), (-500, 0), (0, -500)):
        outside = read_band(scene, "B02", [make_cell(col, row, 24)], shared={})
        assert not outside.valid.any()
        assert not outside.data.any()


@pytest.mark.parametrize("nodata", [0, None])
def test_zeros_never_smear_even_without_a_tag(
    nodata: float | None, tmp_path: Path, scene_of: Any, make_cell: Any
) -> None:
    """0 | 2000 gives 1000 with a plain bilinear: the classical half-values at a swath's edge."""
    source = np.full((144, 144), 2000, np.uint16)
    source[:, :20] = 0
    moved = Affine(10, 0, 500040 + 3, 0, -10, 5300040 - 4)
    scene = scene_of(_write(tmp_path / "a.tif", source, nodata=nodata, transform=moved))
    chips = read_band(scene, "B02", [make_cell(8, 8, 24)], shared={})
    assert chips.warped[0]
    assert set(np.unique(chips.data)) == {0, 2000}
    assert_array_equal(chips.data == 2000, chips.valid)
    assert chips.valid.any()
    assert not chips.valid.all()


@pytest.mark.parametrize("tag", [-32768, None, float("nan")])
def test_radar_is_valid_above_zero_whatever_the_tag(
    tag: float | None, tmp_path: Path, scene_of: Any, make_cell: Any
) -> None:
    source = _random(dtype="float32") / 1e4
    source[0, :5] = (-32768, 0, -1, np.nan, np.inf)
    scene = scene_of(_write(tmp_path / "a.tif", source, nodata=tag), "s1")
    chips = read_band(scene, "B02", [make_cell(0, 0, 24)], shared={})
    assert not chips.valid[0, 0, :5].any()
    assert chips.valid[0].sum() == 24 * 24 - 5
    assert not chips.data[0, 0, :5].any()


def test_classes_are_never_averaged(tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    source = np.random.default_rng(0).choice([1, 9], (144, 144)).astype(np.uint8)
    scene = scene_of(_write(tmp_path / "a.tif", source, transform=Affine(13, 0, 500031, 0, -13, 5300047)))
    chips = read_band(scene, "B02", [make_cell(20, 20, 60)], shared={}, classes=True)
    assert set(np.unique(chips.data)) == {1, 9}


def test_label_zero_is_data_without_a_tag(tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    source = np.zeros((144, 144), np.uint8)
    scene = scene_of(_write(tmp_path / "a.tif", source, nodata=None), "label")
    assert read_band(scene, "B02", [make_cell()], shared={}, classes=True).valid.all()


def test_coordinates_are_shared_by_bands(tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    moved = Affine(10, 0, 500040 + 3, 0, -10, 5300040 - 4)
    scene, shared = scene_of(_write(tmp_path / "a.tif", _random(), transform=moved)), {}
    cells = [make_cell(0), make_cell(24)]
    first = read_band(scene, "B02", cells, shared=shared)
    assert set(shared) == {(cell.cell_id, 32633) for cell in cells}
    kept = dict(shared)
    assert_array_equal(read_band(scene, "B02", cells, shared=shared).data, first.data)
    assert all(shared[key] is kept[key] for key in kept)


def test_cells_on_the_grid_need_no_coordinates(tmp_path: Path, scene_of: Any, make_cell: Any) -> None:
    shared: dict = {}
    read_band(scene_of(_write(tmp_path / "a.tif", _random())), "B02", [make_cell(0)], shared=shared)
    assert not shared


def test_bands_read_at_once_are_those_read_alone(tmp_path: Path, make_scene: Any, make_cell: Any) -> None:
    random = np.random.default_rng(0)
    names = [f"B0{i}" for i in range(1, 9)]
    for name in names:
        _write(tmp_path / f"{name}.tif", random.integers(0, 9999, (144, 144)).astype("u2"))
    assets = {name: Asset(href=str(tmp_path / f"{name}.tif"), dn_offset=0) for name in names}
    scene, cells = make_scene(assets=assets), [make_cell(3, 4), make_cell(50, 90)]
    together = list(read_bands(scene, names, cells, shared={}))
    for name, chips in zip(names, together, strict=True):
        alone = read_band(scene, name, cells, shared={})
        assert_array_equal(chips.data, alone.data)
        assert_array_equal(chips.valid, alone.valid)


def test_a_failure_among_bands_is_told(tmp_path: Path, make_scene: Any, make_cell: Any) -> None:
    _write(tmp_path / "B02.tif", _random())
    assets = {name: Asset(href=str(tmp_path / f"{name}.tif"), dn_offset=0) for name in ("B02", "B03")}
    with pytest.raises(ReadError, match=r"cannot read B03 of S2-X"):
        list(read_bands(make_scene(assets=assets), ("B02", "B03", "B02"), [make_cell()], shared={}))


@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 32, "blockysize": 32}, {"blockysize": 5}, {}])
@pytest.mark.parametrize("moved", [0, 3])
def test_scattered_cells_are_the_files_pixels(
    *, layout: dict, moved: int, tmp_path: Path, scene_of: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strip by strip, with the rows that the next strip shares, as in one read of the whole file."""
    monkeypatch.setattr("ingest.pixels.raster.LOWEST_STRIP_PX", 20)
    random = np.random.default_rng(1)
    source = random.integers(0, 9999, (288, 200)).astype("u2")
    transform = Affine(10, 0, 500040 + moved, 0, -10, 5300040)
    scene = scene_of(_write(tmp_path / "a.tif", source, transform=transform, **layout))
    cells = [make_cell(int(col), int(row), 24) for col, row in random.integers(-10, 280, (40, 2))]
    chips = read_band(scene, "B02", cells, shared={})
    apart = [read_band(scene, "B02", [cell], shared={}) for cell in cells]
    assert_array_equal(chips.data, np.concatenate([one.data for one in apart]))
    assert_array_equal(chips.valid, np.concatenate([one.valid for one in apart]))
    if not moved:
        padded = np.pad(source, 300)
        for chip, cell in zip(chips.data, cells, strict=True):
            row, col = int((5300040 - cell.top_m) / 10) + 300, int((cell.left_m - 500040) / 10) + 300
            assert_array_equal(chip, padded[row : row + 24, col : col + 24])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """The URL of an image of 64 blocks of 128 px in a counting server, and its counts so far."""
    source = np.random.default_rng(2).integers(1, 2**16 - 1, (1024, 1024)).astype("u2")
    _write(tmp_path / "a.tif", source, tiled=True, blockxsize=128, blockysize=128)
    script = Path(__file__).parents[1] / "benchmarks" / "peers_ingest" / "server.py"
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], text=True, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            yield f"{url}/a.tif", lambda: json.load(urllib.request.urlopen(f"{url}/-/counts"))
        finally:
            server.kill()


@pytest.mark.parametrize("moved", [False, True], ids=["own grid", "next zone"])
def test_each_block_is_fetched_once(moved: bool, served: Any, scene_of: Any, make_cell: Any) -> None:
    """Cells that lie in all blocks, many of them in two or four: as many bytes as the file has."""
    url, counts = served
    places = [make_cell(col, row, 40) for col in range(0, 984, 48) for row in range(0, 984, 48)]
    if moved:
        to = transformer(32633, 32632)
        corners = [to.transform(cell.left_m, cell.top_m) for cell in places]
        places = [corner_cell(32632, round(x / 60) * 60.0, round(y / 60) * 60.0, 40) for x, y in corners]
    chips = read_band(scene_of(url), "B02", places, shared={})
    assert chips.valid.mean() > 0.9
    assert chips.warped.all() == moved
    size = 2 * 1024**2
    assert 0.95 * size < counts()["bytes"] < 1.05 * size + 32768
    assert counts()["requests"] <= 2 + 2 * 8


def test_blocks_that_no_cell_touches_are_not_fetched(served: Any, scene_of: Any, make_cell: Any) -> None:
    url, counts = served
    read_band(scene_of(url), "B02", [make_cell(10, 10, 40), make_cell(700, 900, 40)], shared={})
    block = 2 * 128**2
    assert 2 * block <= counts()["bytes"] < 4 * block + 65536


def _secret(path: Path) -> str:
    return f"https://user:hunter2@127.0.0.1:9/{path.name}?sig=hunter2"


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "no crs", "remote"])
def test_failures_are_read_errors_that_name_the_asset(
    *, kind: str, tmp_path: Path, scene_of: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ingest.pixels.raster.GDAL_OPTIONS", {"GDAL_HTTP_MAX_RETRY": "0", "GDAL_HTTP_CONNECTTIMEOUT": "2"}
    )
    path = tmp_path / "a.tif"
    if kind != "missing":
        _write(path, _random(), crs=None if kind == "no crs" else 32633, tiled=True, blockxsize=64, blockysize=64)
    data = path.read_bytes() if path.exists() else b""
    changed = {"empty": b"", "text": b"<html>403</html>", "truncated": data[: len(data) // 2]}
    if kind in changed:
        path.write_bytes(changed[kind])
    scene = scene_of(_secret(path) if kind == "remote" else path)
    with pytest.raises(ReadError, match=r"cannot read B02 of S2-X from .*a\.tif") as caught:
        read_band(scene, "B02", [make_cell(0, 0, 144)], shared={})
    assert "hunter2" not in str(caught.value)
    assert (caught.value.scene_id, caught.value.band) == ("S2-X", "B02")


# --- real scenes -------------------------------------------------------------------------------------------------


def _tasks(request: Request) -> list[PairTask]:
    return list(make_plan(request).tasks)


def _source(href: str, cell: Cell) -> np.ndarray:
    """The pixels of the file itself under the cell, each replicated to 10 m."""
    with rasterio.open(href) as file:
        factor = round(file.transform.a / 10)
        col, row = (round(v / 10) for v in (cell.left_m - file.transform.c, file.transform.f - cell.top_m))
        whole = np.kron(file.read(1), np.ones((factor, factor), file.dtypes[0]))
    return whole[row : row + cell.size_px, col : col + cell.size_px]


@pytest.mark.parametrize(
    ("place", "grid", "chip_px"),
    [
        ("bigearthnet_33UUP_87_48", "aoi", 120),
        ("bigearthnet_29UPU_4_55", "aoi", 120),
        ("bigearthnet_35VPK_57_38", "aoi", 120),
        ("terramesh_38D_378R_2_3", "scene", 56),
        ("terramesh_637U_59R_1_3", "scene", 112),
    ],
)
def test_real_pixels_are_the_sources_own_on_its_grid(place: str, grid: str, chip_px: int, ask_real: Ask) -> None:
    tasks = _tasks(ask_real(place, grid=grid, chip_px=chip_px))
    cells = [task.cell for task in tasks]
    for name in S2_NAMES:
        chips = read_band(tasks[0].s2, name, cells, shared={})
        assert not chips.warped.any()
        for chip, cell in zip(chips.data, cells, strict=True):
            source = _source(tasks[0].s2.assets[name].href, cell)
            assert source.shape == chip.shape
            assert_array_equal(chip, source)


def test_real_pixels_in_degrees_are_gdals(ask_real: Ask) -> None:
    tasks = _tasks(ask_real("ssl4eo_0000200", chip_px=40))[:4]
    cells = [task.cell for task in tasks]
    for scene, names in ((tasks[0].s2, ("B02", "B05", "B09")), (tasks[0].s1, S1_NAMES)):
        for name in names:
            chips = read_band(scene, name, cells, shared={})
            assert chips.warped.all()
            for chip, cell in zip(chips.data, cells, strict=True):
                theirs = _gdal(scene.assets[name].href, cell)
                if chip.dtype == np.uint16:
                    assert np.abs(chip.astype(int) - theirs).max() <= 1
                    assert (chip == theirs).mean() > 0.99
                else:
                    assert_allclose(chip, theirs, rtol=1e-3, atol=1e-6)


def _gdal(href: str, cell: Cell) -> np.ndarray:
    where = {"crs": cell.epsg, "transform": Affine(*cell.transform), "width": cell.size_px, "height": cell.size_px}
    exact = {"resampling": Resampling.bilinear, "tolerance": 1e-6, "XSCALE": 1, "YSCALE": 1}
    with rasterio.open(href) as file, WarpedVRT(file, **where, **exact) as vrt:
        return vrt.read(1)


def test_real_nodata_rows_are_invalid(real_catalog: Path, make_scene: Callable[..., Scene]) -> None:
    """WorldCereal's composite of 2020-12 is wholly nodata."""
    path = real_catalog / "sentinel-2-l2a" / "worldcereal_belgium_S2L2A_202012" / "B02.tif"
    with rasterio.open(path) as file:
        cell = corner_cell(file.crs.to_epsg(), file.transform.c, file.transform.f, 60)
    scene = make_scene(assets={"B02": Asset(href=str(path), dn_offset=0)})
    assert not read_band(scene, "B02", [cell], shared={}).valid.any()


def test_a_truncated_real_cog_is_a_read_error(real_catalog: Path, tmp_path: Path, ask_real: Ask) -> None:
    task = _tasks(ask_real("terramesh_38D_378R_2_3", grid="scene", chip_px=224))[0]
    path = tmp_path / "B02.tif"
    shutil.copy(task.s2.assets["B02"].href, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    broken = replace(task.s2, assets={"B02": Asset(href=str(path), dn_offset=0)})
    with pytest.raises(ReadError, match="B02"):
        read_band(broken, "B02", [task.cell], shared={})
