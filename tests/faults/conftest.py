"""Fixtures of the tiny Earth; without the ingest extra nothing here is collected; and of a real web server."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from faults import nginx

if find_spec("rasterio") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from tiny_earth import Tiny, make_cell, make_request, make_scene, tiny  # noqa: F401  fixtures

    @pytest.fixture(scope="session")
    def faulty_nginx(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: F811
        """The URL of nginx with places that fail, each of which has the tiny Earth below it."""
        if absent := nginx.missing():
            reason = f"{absent[0]} not installed: run .ci/install-packages ({nginx.PACKAGE})"
            if os.environ.get("REQUIRE_REAL") == "1":
                pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
            pytest.skip(reason)
        with nginx.running(tmp_path_factory.mktemp("nginx"), tiny.root) as url:
            yield url
