"""Fixtures of the tiny Earth, without the ingest extra nothing here is collected; and of a real object store."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from stores import ceph

if find_spec("rasterio") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from tiny_earth import tiny  # noqa: F401  a fixture


@pytest.fixture(scope="session")
def ceph_rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of Ceph's gateway: `AWS_ENDPOINT_URL` and credentials."""
    if absent := ceph.missing():
        reason = f"{', '.join(absent)} not installed: run .ci/install-packages ({' '.join(ceph.PACKAGES)})"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
        pytest.skip(reason)
    with ceph.running(tmp_path_factory.mktemp("ceph")) as environment:
        yield environment
