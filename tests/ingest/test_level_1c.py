"""Thirteen bands of Level-1C, and few bands, in pairs: stored as they are, named by the manifest, read by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal

from ingest.assemble import assemble
from ingest.build import build
from ingest.planner import make_plan
from ingest.request import Request
from pipeline import manifest
from pipeline.bands import L1C_NAMES, S2_NAMES
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


def _level_1c(ask_real: Ask, place: str, **changes: Any) -> Request:
    return ask_real(place, grid="scene", chip_px=112, s2="sentinel-2-l1c", s2_bands=L1C_NAMES, **changes)


@pytest.mark.parametrize(
    ("place", "dn_offset", "rule"),
    [("282D_485L_3_3", -1000, "item"), ("38D_378R_2_3", 0, "item"), ("637U_59R_1_3", 0, "item")],
)
def test_real_pairs_of_level_1c_are_the_files_pixels(
    *, place: str, dn_offset: int, rule: str, ask_real: Ask, real_catalog: Path
) -> None:
    """Also B10, whose values near 10 would show at once if the offset were taken twice or not at all."""
    request = _level_1c(ask_real, f"terramesh_{place}")
    (folder,) = real_catalog.glob(f"sentinel-2-l1c/terramesh_{place}*")
    plan, count = make_plan(request), 0
    for made in (made for unit in plan.units for made in assemble(unit, request, with_label=False)):
        sample, cell = made.sample, made.task.cell
        assert sample is not None
        assert sample.s2.shape == (13, 112, 112)
        assert sample.meta.offsets == {folder.name: f"{dn_offset} {rule}"}
        for i, name in enumerate(L1C_NAMES):
            with rasterio.open(folder / f"{name}.tif") as file:
                row, col = round((file.transform.f - cell.top_m) / 10), round((cell.left_m - file.transform.c) / 10)
                dn = file.read(1)[row : row + 112, col : col + 112].astype(int)
            assert_array_equal(sample.s2[i], np.where(dn > 0, np.maximum(dn + dn_offset, 1), 0))
        assert np.median(sample.s2[10]) < 100
        assert sample.meta.cloud_fraction is not None, "there is no classification: the scene's percentage counts"
        count += 1
    assert count == 4


def test_level_2a_has_no_b10(ask_real: Ask) -> None:
    plan = make_plan(ask_real("terramesh_38D_378R_2_3", grid="scene", chip_px=112))
    assert {name for task in plan.tasks for name in task.s2.assets} == {*S2_NAMES}


def test_pairs_of_few_bands(make_request: Ask, tmp_path: Path) -> None:
    built = build(make_request(s2_bands=("B04", "B8A")), str(tmp_path), workers=0)
    assert built.s2_bands == ("B04", "B8A")
    assert {spec.name: spec.shape for spec in built.members}["s2"] == (2, 24, 24)
    stats = manifest.load_stats(Store.at(tmp_path)).s2
    assert stats is not None
    assert len(stats.mean) == 2
