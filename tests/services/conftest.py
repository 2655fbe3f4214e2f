"""Without the ingest extra nothing here is collected."""

from importlib.util import find_spec

if find_spec("rasterio") is None:
    collect_ignore_glob = ["test_*.py"]
