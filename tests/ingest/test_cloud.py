"""Clouds by classification, by a product's probability and by a toy model; and what a bad model is told."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from ingest.assemble import Made, assemble
from ingest.pixels.cloud import cloudy, load
from ingest.pixels.mosaic import Image
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from ingest.scenes.scene import Scene, parse_scene
from pipeline.bands import S2_NAMES
from pipeline.errors import UsageError
from pipeline.sample import MaskBit

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
MODELS = """
import numpy as np
def bright(bands, pixels, valid):
    return np.clip(pixels[list(bands).index("B02")] / 4000, 0, 1)
def flat(bands, pixels, valid):
    return np.zeros(pixels.shape)
def percent(bands, pixels, valid):
    return np.full(valid.shape, 40.0)
def words(bands, pixels, valid):
    return np.full(valid.shape, "cloud")
def nothing(bands, pixels, valid):
    return np.full(valid.shape, np.nan)
number = 5
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_clouds.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "toy_clouds"


def _image(**changes: Any) -> Image:
    fields: dict[str, Any] = {
        "data": np.zeros((2, 4, 4), np.uint16), "valid": np.ones((4, 4), bool), "warped": np.zeros(2, bool),
        "scl": None, "cloud_percent": None, "offsets": {}, "scenes": (),
    }  # fmt: skip
    return Image(**{**fields, **changes})


@given(hnp.arrays(np.uint8, (4, 4), elements=st.integers(0, 100)), hnp.arrays(bool, (4, 4)), st.floats(0, 100))
def test_a_probability_is_cloud_from_the_threshold_on(percent: np.ndarray, valid: np.ndarray, threshold: float) -> None:
    found = cloudy(_image(cloud_percent=percent, valid=valid), ("B02", "B03"), model="", threshold_percent=threshold)
    assert found is not None
    assert found.tolist() == [
        [bool(p >= threshold and v) for p, v in zip(row, good, strict=True)]
        for row, good in zip(percent.tolist(), valid.tolist(), strict=True)
    ]


def test_without_either_nothing_is_known() -> None:
    assert cloudy(_image(), ("B02", "B03"), model="", threshold_percent=50.0) is None


@pytest.fixture(scope="module")
def plan(make_request: Ask) -> IngestPlan:
    return make_plan(make_request(max_cloud_percent=100.0))


def _make(plan: IngestPlan, change: Callable[[Scene], Scene] = lambda scene: scene, **asked: Any) -> list[Made]:
    unit = plan.units[0]
    tasks = tuple(replace(task, s2=change(task.s2)) for task in unit.tasks)
    return list(assemble(replace(unit, tasks=tasks), replace(plan.request, **asked), with_label=False))


def test_a_toy_model_marks_what_it_sees(plan: IngestPlan, toys: str) -> None:
    for made in _make(plan, cloud_model=f"{toys}:bright", cloud_percent=75.0):
        assert made.sample is not None
        blue = made.sample.s2[S2_NAMES.index("B02")]
        assert_array_equal((made.sample.mask & MaskBit.CLOUD) > 0, blue >= 3000)
        assert made.sample.meta.cloud_fraction == pytest.approx((blue >= 3000).mean())
    strict = _make(plan, cloud_model=f"{toys}:bright", cloud_percent=75.0, max_cloud_percent=1.0)
    assert {made.quality.reason for made in strict} == {"cloud"}
    assert not any((made.sample.mask & MaskBit.CLOUD).any() for made in _make(plan) if made.sample), "off by default"


def test_a_products_probability_counts_beside_its_classification(plan: IngestPlan, tmp_path: Path) -> None:
    scene = plan.units[0].tasks[0].s2
    with rasterio.open(scene.assets["SCL"].href) as file:
        profile, shape = file.profile, file.shape
    percent = np.random.default_rng(0).integers(0, 101, shape).astype("u1")
    classes = np.where(percent % 2, 4, 9).astype("u1")
    for name, pixels in (("CLD", percent), ("SCL", classes)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **{**profile, "nodata": None}) as file:
            file.write(pixels, 1)
    here = {name: replace(scene.assets["SCL"], href=str(tmp_path / f"{name}.tif")) for name in ("CLD", "SCL")}

    def cloudier(scene: Scene) -> Scene:
        return replace(scene, assets={**scene.assets, **here})

    whole = [np.kron(array, np.ones((2, 2), int)) for array in (percent, classes)]
    for threshold in (None, 40.0):
        for made in _make(plan, cloudier, cloud_percent=threshold):
            assert made.sample is not None
            row, col = round((5300040 - made.task.cell.top_m) / 10), round((made.task.cell.left_m - 500040) / 10)
            share, scl = (array[row : row + 24, col : col + 24] for array in whole)
            wanted = (scl == 9) | (False if threshold is None else share >= threshold)
            assert_array_equal((made.sample.mask & MaskBit.CLOUD) > 0, wanted)


@pytest.mark.parametrize("key", ["cloud", "CLD_20m", "CLD"])
def test_catalogs_names_for_it(key: str) -> None:
    keys: Sequence[str] = (*S2_NAMES, key)
    item = {
        "id": "X", "collection": "sentinel-2-l2a", "properties": {"datetime": "2023-06-10T10:10:31Z"},
        "geometry": {"type": "Polygon", "coordinates": [[[14, 48], [15, 48], [15, 49], [14, 49], [14, 48]]]},
        "assets": {name: {"href": f"https://host/{name}.tif"} for name in keys},
    }  # fmt: skip
    scene = parse_scene(item)
    assert isinstance(scene, Scene)
    assert scene.assets["CLD"].href == f"https://host/{key}.tif"


@pytest.mark.parametrize(
    ("name", "said"),
    [("flat", r"returned float64 \(12, 24, 24\) for \(24, 24\)"), ("percent", "values from 40.0 to 40.0"),
     ("words", "returned <U5"), ("nothing", "values from nan to nan")],
)  # fmt: skip
def test_a_model_that_returns_something_else_is_told(name: str, said: str, plan: IngestPlan, toys: str) -> None:
    with pytest.raises(UsageError, match=said):
        _make(plan, cloud_model=f"{toys}:{name}", cloud_percent=50.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [("toy_clouds", "is not module:function"), ("toy_clouds:", "is not"), (":bright", "is not"),
     ("nowhere:model", "PYTHONPATH"), ("toy_clouds:other", "cannot be loaded"), ("toy_clouds:number", "is a int")],
)  # fmt: skip
def test_a_model_that_is_not_there_is_told(text: str, said: str, toys: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(text)
