"""Fixtures of the recommender's tests: the benchmark's files, and small data with known groups."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    """The folder of Mafengwo and CAMRa2011."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT / ".." / "shared").resolve() / "data" / "itr"
    if not folder.exists():
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"{folder} is not there, and REQUIRE_REAL=1 asks for it")
        pytest.skip(f"{folder} is not there: set SHARED_DIR")
    return folder
