"""A small synthetic Earth, with and without noise, built once for all end-to-end tests."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import shapely

if find_spec("rasterio"):
    from tiny_earth import tiny  # noqa: F401  a fixture

AREA = (11.97, 47.99, 12.02, 48.03)


@pytest.fixture(scope="session")
def area() -> str:
    """Some 4 km on both sides of the border between the UTM zones 32 and 33, as `--aoi` takes it."""
    return ",".join(map(str, AREA))


@pytest.fixture(scope="session")
def earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Earth around the area."""
    return _make(tmp_path_factory.mktemp("earth") / "earth", noise=True)


@pytest.fixture(scope="session")
def calm_earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without clouds, speckle and noise: every pixel is the truth, rounded."""
    return _make(tmp_path_factory.mktemp("calm") / "earth", noise=False)


def _make(out: Path, *, noise: bool) -> Path:
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    from ingest.synthetic import make_earth

    make_earth(out, aoi=shapely.box(*AREA), noise=noise)
    return out
