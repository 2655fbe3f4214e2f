"""Fixtures of the tiny Earth; without the ingest extra nothing here is collected."""

from importlib.util import find_spec

import pytest

if find_spec("rasterio") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from tiny_earth import ask_real, make_cell, make_request, make_scene, tiny  # noqa: F401  fixtures

    @pytest.fixture
    def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
        """Servers on this machine are asked as fast as they answer, and again at once."""
        from ingest.catalogs import transport
        from ingest.catalogs.budget import Budget

        monkeypatch.setattr(transport, "PAUSE_S", 0.01)
        monkeypatch.setattr(transport, "budget_of", lambda url, profile: Budget(most_per_s=1e6))
