"""One unit's samples against the pixels of the files."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ingest.assemble import Made, assemble
from ingest.plan import IngestPlan, PairTask, Unit
from ingest.planner import make_plan
from ingest.request import Request
from ingest.sensors import harmonise, to_db
from pipeline.bands import S1_NAMES, S2_BANDS
from pipeline.codec import encode
from pipeline.sample import MaskBit, validate

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


@given(st.lists(st.tuples(st.integers(0, 65535), st.booleans()), min_size=1), st.sampled_from([0, -1000]))
def test_harmonise_is_a_plain_loop(drawn: list[tuple[int, bool]], offset: int) -> None:
    dn, valid = np.array([dn for dn, _ in drawn], np.uint16), np.array([valid for _, valid in drawn])
    found = harmonise(dn, valid, offset)
    assert found.dtype == np.uint16
    assert found.tolist() == [max(dn + offset, 1) if valid else 0 for dn, valid in drawn]


@given(st.lists(st.tuples(st.floats(0, 1e3, width=32), st.booleans()), min_size=1))
def test_decibels_are_a_plain_loop(drawn: list[tuple[float, bool]]) -> None:
    power, valid = np.array([p for p, _ in drawn], np.float32), np.array([v for _, v in drawn])
    found = to_db(power, valid)
    assert found.dtype == np.float32
    want = [10 * math.log10(max(p, 1e-5)) if v else math.nan for p, v in drawn]
    assert_allclose(found, want, rtol=1e-6)
    assert not (found < -50).any()


@pytest.fixture(scope="module")
def plan(make_request: Ask) -> IngestPlan:
    return make_plan(make_request(labels=("labels",)))


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        factor = round(file.transform.a / 10)
        return np.kron(file.read(1), np.ones((factor, factor), file.dtypes[0]))


def _under(tiny: Any, item: str, asset: str, task: PairTask) -> np.ndarray:
    row, col = round((5300040 - task.cell.top_m) / 10), round((task.cell.left_m - 500040) / 10)
    return _read(tiny.path(item, asset))[row : row + 24, col : col + 24]


def _make(unit: Unit, plan: IngestPlan, *, with_label: bool = True, **changes: Any) -> list[Made]:
    return list(assemble(unit, replace(plan.request, **changes), with_label=with_label))


def test_samples_are_the_files_pixels(plan: IngestPlan, tiny: Any) -> None:
    for number, unit in enumerate(plan.units):
        for made in _make(unit, plan, max_cloud_percent=100.0, max_nodata_percent=100.0):
            sample, task = made.sample, made.task
            assert sample is not None
            validate(sample)
            offset = -1000 if number == 2 else 0
            seen = np.ones((24, 24), bool)
            for i, band in enumerate(S2_BANDS):
                dn = _under(tiny, f"S2-{number}", band.name, task).astype(int)
                seen &= dn > 0
                assert_array_equal(sample.s2[i], np.where(dn > 0, np.maximum(dn + offset, 1), 0))
            for i, name in enumerate(S1_NAMES):
                power = _under(tiny, f"S1-{number}", name.lower(), task)
                assert_allclose(sample.s1[i], 10 * np.log10(np.maximum(power, 1e-5)), rtol=1e-6)
            assert_array_equal(sample.label, _under(tiny, "LULC", "lulc", task))
            scl = _under(tiny, f"S2-{number}", "SCL", task)
            assert_array_equal((sample.mask & MaskBit.CLOUD) > 0, scl == 9)
            assert_array_equal((sample.mask & MaskBit.S2_NODATA) == 0, seen)
            assert not (sample.mask & (MaskBit.S1_NODATA | MaskBit.SHADOW | MaskBit.SNOW)).any()


def test_verdicts(plan: IngestPlan) -> None:
    reasons = [[made.quality.reason for made in _make(unit, plan)] for unit in plan.units]
    columns = [[task.cell.left_m for task in unit.tasks] for unit in plan.units]
    rows = [[task.cell.top_m for task in unit.tasks] for unit in plan.units]
    assert reasons[0] == [""] * 6
    assert reasons[1] == ["cloud" if left == 500160 else "" for left in columns[1]]
    assert reasons[2] == ["s2 nodata" if top == 5299200 else "" for top in rows[2]]
    for unit in plan.units:
        for made in _make(unit, plan):
            assert (made.sample is None) == bool(made.quality.reason)
    assert [made.task for made in _make(plan.units[0], plan)] == list(plan.units[0].tasks)


def test_metadata(plan: IngestPlan) -> None:
    made = _make(plan.units[0], plan)[0]
    assert made.sample is not None
    meta, task = made.sample.meta, made.task
    assert (meta.cell_id, meta.epsg, meta.transform) == (task.cell.cell_id, 32633, task.cell.transform)
    assert (meta.acquired, meta.s1_acquired) == ((task.s2.acquired,), (task.s1.acquired,))
    assert meta.scene_ids == {"s2": ("S2-0",), "s1": ("S1-0",)}
    assert (meta.gap_hours, meta.backscatter, meta.orbit_state) == (6.0, "gamma0", "ascending")
    assert (meta.cloud_fraction, meta.valid_fraction, meta.resampled, meta.classes) == (0.0, 1.0, (), ())
    assert made.sample.key == task.key


def test_without_labels_there_is_no_member(plan: IngestPlan) -> None:
    assert all(
        made.sample is None or made.sample.label is None for made in _make(plan.units[0], plan, with_label=False)
    )


def test_each_task_gets_its_own_radar(plan: IngestPlan, tiny: Any) -> None:
    unit, others = plan.units[0], [unit.tasks[0].s1 for unit in plan.units]
    order = [2, 0, 1, 0, 2, 1]
    mixed = replace(unit, tasks=tuple(replace(t, s1=others[k]) for t, k in zip(unit.tasks, order, strict=True)))
    for made, number in zip(_make(mixed, plan), order, strict=True):
        assert made.sample is not None
        power = _under(tiny, f"S1-{number}", "vv", made.task)
        assert_allclose(made.sample.s1[0], 10 * np.log10(np.maximum(power, 1e-5)), rtol=1e-6)
        assert made.sample.meta.scene_ids["s1"] == (f"S1-{number}",)


@pytest.mark.parametrize(("percent", "cloud", "reason"), [(5.0, 0.05, ""), (30.0, 0.3, "cloud"), (None, None, "")])
def test_without_classification_the_whole_scenes_cloud_counts(
    percent: float | None, cloud: float | None, reason: str, plan: IngestPlan
) -> None:
    task = plan.units[0].tasks[0]
    assets = {name: asset for name, asset in task.s2.assets.items() if name != "SCL"}
    bare = replace(task, s2=replace(task.s2, cloud_percent=percent, assets=assets))
    (made,) = _make(replace(plan.units[0], tasks=(bare,)), plan)
    assert (made.quality.cloud_fraction, made.quality.reason) == (pytest.approx(cloud) if percent else cloud, reason)


def test_a_unit_is_a_pure_function(plan: IngestPlan) -> None:
    one, two = (_make(plan.units[1], plan) for _ in range(2))
    assert [made.sample and encode(made.sample) for made in one] == [
        made.sample and encode(made.sample) for made in two
    ]


def test_a_chip_without_any_radar_is_survived(plan: IngestPlan, tmp_path: Path) -> None:
    """--max-nodata 100 keeps it: no shift, NaN everywhere, no warning."""
    task = plan.units[0].tasks[0]
    path = tmp_path / "vv.tif"
    with rasterio.open(task.s1.assets["VV"].href) as file:
        profile, shape = file.profile, file.shape
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full(shape, -32768, "f4"), 1)
    dark = replace(task.s1, assets={name: replace(asset, href=str(path)) for name, asset in task.s1.assets.items()})
    unit = replace(plan.units[0], tasks=(replace(task, s1=dark),))
    (made,) = _make(unit, plan, max_nodata_percent=100.0)
    assert made.sample is not None
    assert np.isnan(made.sample.s1).all()
    assert made.sample.meta.shift_px is None
    assert made.quality.valid_fraction == 0
    assert encode(made.sample)


# --- real scenes -------------------------------------------------------------------------------------------------


def test_real_label_is_the_source_raster(ask_real: Ask, real_catalog: Path) -> None:
    request = ask_real("terramesh_38D_378R_2_3", grid="scene", chip_px=56, labels=("labels",))
    plan = make_plan(request)
    source = _read(real_catalog / "labels" / "terramesh_38D_378R_2_3_LULC" / "lulc.tif")
    (unit,) = plan.units
    for made in assemble(unit, request, with_label=True):
        assert made.sample is not None
        grid = made.task.s2.grid
        assert grid is not None
        row, col = ((grid.transform[5] - made.task.cell.top_m) / 10, (made.task.cell.left_m - grid.transform[2]) / 10)
        assert_array_equal(made.sample.label, source[round(row) : round(row) + 56, round(col) : round(col) + 56])


def test_real_classes_are_corine(ask_real: Ask) -> None:
    request = ask_real("bigearthnet_33UUP_87_48", grid="aoi", chip_px=120, labels=("sentinel-2-l2a",))
    plan = make_plan(request)
    (made,) = assemble(plan.units[0], request, with_label=plan.has_label)
    assert made.sample is not None
    assert made.sample.label is None
    assert made.sample.meta.classes == (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Non-irrigated arable land",
    )


def test_real_warp_is_recorded(ask_real: Ask) -> None:
    request = ask_real("ssl4eo_0000200")
    unit = make_plan(request).units[0]
    made = next(iter(assemble(replace(unit, tasks=unit.tasks[:1]), request, with_label=False)))
    assert made.sample is not None
    assert len(made.sample.meta.resampled) == 14
    request = ask_real("bigearthnet_33UUP_87_48", grid="aoi", chip_px=120)
    (made,) = assemble(make_plan(request).units[0], request, with_label=False)
    assert made.sample is not None
    assert not set(made.sample.meta.resampled) & {band.name for band in S2_BANDS}
