"""How far stored pixels lie from the truth: below a twentieth of a pixel, S1, S2 and against each other.

The Earth without noise is an analytic function of longitude and latitude, so the true value at a pixel's centre is
known, and so is its change along a row or a column. The shift is what fits stored minus true to that change best.
"""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = [pytest.mark.ingest, pytest.mark.slow]
LIMIT_PX = 0.05
BANDS = ("B02", "B08", "B05", "B11")


@pytest.fixture(scope="module")
def cube(area: str, calm_earth: Path, tmp_path_factory: pytest.TempPathFactory):
    from typer.testing import CliRunner

    from ingest.cli import app
    from ingest.cube import open_cube
    from pipeline.store import Store

    out = tmp_path_factory.mktemp("calm-data")
    where = ["--aoi", area, "--catalog", str(calm_earth), "--out", str(out)]
    done = CliRunner().invoke(app, ["build-shards", *where, "--chip-px", "120", "--workers", "0"])
    assert done.exit_code == 0, done.output
    return open_cube(Store.at(out))


def _lonlat(cube, row: int, down_px: float, right_px: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from ingest.areas.grid import transformer

    chip = cube.isel(sample=row)
    steps = (np.arange(cube.sizes["x"]) + 0.5) * 10
    x, y = np.meshgrid(float(chip.left_m) + steps + 10 * right_px, float(chip.top_m) - steps - 10 * down_px)
    return transformer(int(chip.epsg), 4326).transform(x, y)


STEPS = {"here": (0, 0), "above": (-0.5, 0), "below": (0.5, 0), "left": (0, -0.5), "right": (0, 0.5)}


def _fit(stored, truth: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(dy, dx) in pixels by which `stored` lies away from the truth at `STEPS`."""
    change = [(truth["below"] - truth["above"]).ravel(), (truth["right"] - truth["left"]).ravel()]
    return -np.linalg.lstsq(np.stack(change, axis=1), (stored - truth["here"]).ravel(), rcond=None)[0]


def _when(value: np.datetime64) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(value.astype("datetime64[s]").astype(np.int64)), dt.UTC)


def test_stored_pixels_lie_where_the_truth_is(cube) -> None:
    from ingest.synthetic.landscape import ground, ground_gamma0, ground_reflectance

    rows = np.flatnonzero(cube["accepted"].values)
    assert len(set(cube["epsg"].values[rows])) == 2, "both zones must be there"
    worst = {"s2": 0.0, "s1": 0.0, "s1 against s2": 0.0}
    for row in rows:
        s2_time, s1_time = _when(cube["time"].values[row]), _when(cube["s1_time"].values[row])
        points = {name: ground(*_lonlat(cube, row, *step)) for name, step in STEPS.items()}
        optical = []
        for band in BANDS:
            stored = cube["s2"].isel(sample=row).sel(band=band).values * 1e-4
            optical.append(_fit(stored, {k: ground_reflectance(at, band, s2_time) for k, at in points.items()}))
        power = 10 ** (cube["s1"].isel(sample=row).sel(polarisation="VV").values.astype(np.float64) / 10)
        radar = _fit(power, {k: ground_gamma0(at, "VV", s1_time) for k, at in points.items()})
        worst["s2"] = max(worst["s2"], float(np.abs(optical).max()))
        worst["s1"] = max(worst["s1"], float(np.abs(radar).max()))
        worst["s1 against s2"] = max(worst["s1 against s2"], float(np.abs(radar - optical[0]).max()))
    print({name: round(value, 4) for name, value in worst.items()})
    assert max(worst.values()) < LIMIT_PX, worst


def test_the_measure_sees_a_shift(cube) -> None:
    from ingest.synthetic import reflectance

    row = int(np.flatnonzero(cube["accepted"].values)[0])
    when = _when(cube["time"].values[row])
    truth = {k: reflectance(*_lonlat(cube, row, *step), "B02", when) for k, step in STEPS.items()}
    moved = reflectance(*_lonlat(cube, row, 0.1, -0.2), "B02", when)
    assert _fit(moved, truth) == pytest.approx((-0.1, 0.2), abs=0.01)
