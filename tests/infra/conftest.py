"""Without the dev extra nothing here is collected."""

from importlib.util import find_spec

if find_spec("kubernetes_validate") is None:
    collect_ignore_glob = ["test_*.py"]
