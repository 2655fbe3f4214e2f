"""A small synthetic Earth, built once for all end-to-end tests."""

from pathlib import Path

import harness
import pytest

AREA = "11.96,47.99,12.02,48.03"


@pytest.fixture(scope="session")
def area() -> str:
    """Some 4 km on both sides of the border between the UTM zones 32 and 33."""
    return AREA


@pytest.fixture(scope="session")
def earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy Earth around the area."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    out = tmp_path_factory.mktemp("earth") / "earth"
    harness.run("-m", "ingest.cli", "make-earth", "--aoi", AREA, "--out", str(out))
    return out


@pytest.fixture(scope="session")
def calm_earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without clouds, speckle and noise: every pixel is the truth, rounded."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    out = tmp_path_factory.mktemp("calm") / "earth"
    harness.run("-m", "ingest.cli", "make-earth", "--aoi", AREA, "--out", str(out), "--no-noise")
    return out
