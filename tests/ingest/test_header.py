"""A file against its item: the same, another, or silent; and what becomes of the chips where they disagree."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from tiny_earth import EPSG, LEFT, SIDE, TOP

from ingest.areas.grid import Cell
from ingest.assemble import assemble
from ingest.assemble_stack import assemble_stacks
from ingest.pixels.raster import check, read_band
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from ingest.scenes.header import Header, SceneRefused, declared, grid_disagreement, type_disagreement
from ingest.scenes.scene import Scene, parse_scene
from pipeline.errors import ReadError

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
SAID = Header(epsg=EPSG, transform=(10.0, 0.0, 500040.0, 0.0, -10.0, 5300040.0), shape_px=(144, 144), dtype="uint16",
              nodata="0")  # fmt: skip

OWN = "144 x 144 pixels of 10 from (500040, 5300040)"


def _moved(dx: float = 0.0, dy: float = 0.0, gsd: float = 10.0) -> tuple[float, ...]:
    return gsd, 0.0, 500040.0 + dx, 0.0, -gsd, 5300040.0 + dy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"nodata": None}, None),
        ({"epsg": 32632}, "header EPSG 32632, item 32633"),
        ({"dtype": "float32"}, "header dtype float32, item uint16"),
        ({"nodata": "65535"}, "header nodata 65535, item 0"),
        ({"transform": _moved(0.05, -0.05)}, None),
        ({"transform": _moved(dx=5.0)}, "header 144 x 144 pixels of 10 from (500045, 5300040), item " + OWN),
        ({"transform": _moved(dy=-20.0)}, "header 144 x 144 pixels of 10 from (500040, 5300020), item " + OWN),
        ({"shape_px": (144, 143)}, "header 144 x 143 pixels of 10 from (500040, 5300040), item " + OWN),
        (
            {"shape_px": (12, 12), "transform": _moved(gsd=120.0)},
            "header 12 x 12 pixels of 120 from (500040, 5300040), item " + OWN,
        ),
        ({"transform": None, "shape_px": None}, None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_disagreements_name_both(change: dict[str, Any], words: str | None) -> None:
    found = replace(SAID, **change)
    assert (type_disagreement(SAID, found) or grid_disagreement(SAID, found)) == words


@pytest.mark.parametrize(
    ("gsd", "shape", "dx", "agrees"),
    [(10.0, 144, 0, True), (60.0, 24, 0, True), (20.0, 72, 0, True), (60.0, 24, 61.0, False), (60.0, 26, 0, False)],
)
def test_an_items_grid_binds_a_coarser_band_by_its_outline(gsd: float, shape: int, dx: float, agrees: bool) -> None:
    """The item's `proj:shape` is of its finest band; a 60 m band beside it is no disagreement, another place is."""
    item = replace(SAID, is_own=False)
    found = replace(SAID, transform=_moved(dx=dx, gsd=gsd), shape_px=(shape, shape))
    assert (grid_disagreement(item, found) is None) == agrees


@pytest.mark.parametrize("code", [{"proj:epsg": 32633}, {"proj:code": "EPSG:32633"}])
def test_both_versions_of_the_projection_extension_say_the_same(code: dict[str, Any]) -> None:
    place = {"proj:transform": [10, 0, 500040, 0, -10, 5300040, 0, 0, 1], "proj:shape": [144, 144]}
    one = declared({}, {**code, **place, "raster:bands": [{"nodata": 0.0, "data_type": "uint16"}]})
    two = declared(code, {**place, "nodata": 0, "data_type": "uint16"})
    assert one == two == SAID
    assert declared({**code, **place}, {}) == replace(SAID, dtype=None, nodata=None, is_own=False)
    nothing = Header(epsg=None, transform=None, shape_px=None, dtype=None, nodata=None, is_own=False)
    assert declared({}, {}) == nothing
    assert declared({}, {"proj:shape": [1, 1], "nodata": "nan"}) == replace(nothing, nodata="nan")


def test_every_real_local_file_is_what_its_item_says(real_catalog: Path) -> None:
    count = 0
    for path in sorted(real_catalog.glob("*/*/*.json")):
        item = json.loads(path.read_text())
        assets = {key: {**one, "href": str(path.parent / one["href"])} for key, one in item["assets"].items()}
        scene = parse_scene({**item, "assets": assets}, label="labels" in path.parts, s2_bands=("B02",))
        if isinstance(scene, Scene):
            for band, asset in scene.assets.items():
                with rasterio.open(asset.href) as dataset:
                    assert check(dataset, scene, band) > 0
                    count += 1
    assert count > 300


def test_real_items_that_describe_another_resolution_are_refused(
    mapchete_items: list[dict[str, Any]], make_cell: Callable[..., Cell], real_catalog: Path
) -> None:
    """mapchete's items are of the 10 m originals, its files are 120 m; their CRS stands in a sidecar only."""
    for item in mapchete_items:
        scene = parse_scene(item, s2_bands=("B04",))
        assert isinstance(scene, Scene)
        with pytest.warns(NotGeoreferencedWarning), pytest.raises(SceneRefused, match="no EPSG code"):
            read_band(scene, "B04", [make_cell()], shared={})
        cog = real_catalog / "sentinel-2-l2a" / item["id"] / "B04.tif"
        scene = replace(scene, assets={"B04": replace(scene.assets["B04"], href=str(cog))})
        with pytest.raises(SceneRefused, match=r"header 915 x 915 pixels of 120 .* item 10980 x 10980 pixels of 10"):
            read_band(scene, "B04", [make_cell()], shared={})


@pytest.fixture(scope="module")
def mapchete_items(stac_items: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((stac_items.parent / "mapchete_eo_catalog").glob("sentinel-2-l2a/*/*.json")):
        item = json.loads(path.read_text())
        assets = {
            key: {**one, "href": str(path.parent / one["href"])}
            for key, one in item["assets"].items()
            if key in {"red", "nir"}
        }
        found.append({**item, "assets": assets})
    assert len(found) == 3
    return found


def test_a_refusal_survives_the_way_back_from_a_worker() -> None:
    error = SceneRefused("S", "B02", "https://user:secret@host/a.tif?sig=secret", "header EPSG 1, item 2")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, SceneRefused)
    assert isinstance(again, ReadError)
    assert again.permanent
    assert str(again) == str(error)
    assert again.reason == "scene refused: B02 of S: header EPSG 1, item 2"
    assert "secret" not in str(error)


# --- what becomes of the chips ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(make_request: Ask) -> IngestPlan:
    return make_plan(make_request(labels=("labels",)))


def _copied(href: str, path: Path, **changes: Any) -> str:
    with rasterio.open(href) as file:
        profile, pixels = {**file.profile, **changes}, file.read(1)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels.astype(profile["dtype"]), 1)
    return str(path)


def _with(plan: IngestPlan, sensor: str, band: str, href: str) -> list[Any]:
    """The first unit, with one file of its scenes replaced."""
    unit = plan.units[0]

    def broken(scene: Scene) -> Scene:
        return replace(scene, assets={**scene.assets, band: replace(scene.assets[band], href=href)})

    tasks = [
        replace(task, labels=tuple(broken(one) for one in task.labels))
        if sensor == "labels"
        else replace(task, **{sensor: broken(getattr(task, sensor))})
        for task in unit.tasks
    ]
    return list(assemble(replace(unit, tasks=tuple(tasks)), plan.request, with_label=True))


CASES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "moved": ("s2", "B05", {"transform": Affine(20, 0, LEFT + 20, 0, -20, TOP)},
              "scene refused: B05 of S2-0: header 72 x 72 pixels of 20 from (500060, 5300040), item " + OWN),
    "another zone": ("s2", "SCL", {"crs": 32632}, "scene refused: SCL of S2-0: header EPSG 32632, item 32633"),
    "no CRS": ("s1", "VH", {"crs": None}, "scene refused: VH of S1-0: the file has no EPSG code"),
    "points only": (
        "s1", "VH",
        {"crs": 4326, "transform": None, "gcps": [rasterio.control.GroundControlPoint(0, 0, 15.0, 47.0)]},
        "scene refused: VH of S1-0: ground control points only: not geocoded",
    ),
    "a moved label": (
        "labels", "label", {"transform": Affine(10, 0, LEFT + 10, 0, -10, TOP)},
        "scene refused: label of LULC: header 144 x 144 pixels of 10 from (500050, 5300040), item " + OWN,
    ),
    "a label elsewhere in another zone": (
        "labels", "label", {"crs": 32632}, "scene refused: label of LULC: header EPSG 32632, item 32633"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_not_what_its_item_says_rejects_its_chips(case: str, plan: IngestPlan, tmp_path: Path) -> None:
    sensor, band, changes, reason = CASES[case]
    task = plan.units[0].tasks[0]
    scene = task.labels[0] if sensor == "labels" else getattr(task, sensor)
    made = _with(plan, sensor, band, _copied(scene.assets[band].href, tmp_path / "a.tif", **changes))
    assert [one.quality.reason for one in made] == [reason] * 6
    assert all(one.sample is None for one in made)


def test_what_is_gone_or_damaged_rejects_its_chips(plan: IngestPlan, tmp_path: Path) -> None:
    task = plan.units[0].tasks[0]
    data = Path(task.s2.assets["B02"].href).read_bytes()
    (tmp_path / "half.tif").write_bytes(data[: len(data) // 4])
    spoilt = bytearray(data)
    spoilt[len(data) // 4 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 4)
    (tmp_path / "spoilt.tif").write_bytes(bytes(spoilt))
    for name, what in (("none", "is not there"), ("half", "cannot be decoded"), ("spoilt", "cannot be decoded")):
        made = _with(plan, "s2", "B02", str(tmp_path / f"{name}.tif"))
        assert {one.quality.reason for one in made} == {f"unreadable: B02 of S2-0 {what}"}
    assert str(tmp_path) not in str([one.quality.reason for one in made]), "the same on every machine"


def test_a_bad_date_of_a_stack_is_a_rejected_date(make_request: Ask, tmp_path: Path) -> None:
    request = make_request(
        kind="stack", s1=(), max_gap_hours=0.0, frames=2, min_gap_hours=24.0, max_nodata_percent=50.0
    )
    (unit, *_) = make_plan(request).units

    def broken(scene: Scene) -> Scene:
        if scene.scene_id != "S2-0":
            return scene
        return replace(
            scene, assets={**scene.assets, "B03": replace(scene.assets["B03"], href=str(tmp_path / "no.tif"))}
        )

    tasks = tuple(replace(task, candidates=tuple(map(broken, task.candidates))) for task in unit.tasks)
    made = list(assemble_stacks(replace(unit, tasks=tasks), request, with_label=False))
    dates = [one.sample.meta.scene_ids["s2"] for one in made if one.sample]
    assert dates
    assert set(dates) == {("S2-1", "S2-2")}, "the others take its place"
    strict = replace(request, frames=3)
    made = list(assemble_stacks(replace(unit, tasks=tasks), strict, with_label=False))
    assert {one.quality.reason for one in made if "cloud" not in one.quality.reason} == {
        "too few dates: unreadable: B03 of S2-0 is not there"
    }


def test_real_radar_in_radar_geometry_is_refused(
    stac_items: Path, make_scene: Callable[..., Scene], make_cell: Any
) -> None:
    """A GRD as it is delivered: no grid, amplitudes, ground control points."""
    (path,) = (stac_items.parent / "s1_grd_gcp").rglob("iw-vv.tiff")
    scene = make_scene(sensor="s1")
    scene = replace(scene, assets={"VV": replace(scene.assets["VV"], href=str(path))})
    with pytest.raises(SceneRefused, match="ground control points only: not geocoded"):
        read_band(scene, "VV", [make_cell()], shared={})


def test_the_tiny_earth_agrees_with_itself(plan: IngestPlan) -> None:
    task = plan.units[0].tasks[0]
    said = task.s2.assets["B01"].declared
    assert said == Header(epsg=EPSG, transform=(10.0, 0.0, LEFT, 0.0, -10.0, TOP), shape_px=(SIDE, SIDE), dtype=None,
                          nodata=None, is_own=False)  # fmt: skip
    assert np.all([one.sample is not None for one in assemble(plan.units[0], plan.request, with_label=True)])
