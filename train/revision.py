"""Which state of the code runs: a git checkout's, or the one that an image was built from."""

import os
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 10
VARIABLE = "SENTINEL_PRETRAIN_REVISION"
"""Of the environment; the Dockerfile sets it."""


def of_code(root: Path = _ROOT) -> str | None:
    """The commit, with `-dirty` behind it where tracked files of a checkout differ; None where nobody knows."""
    if not (root / ".git").exists():
        return os.environ.get(VARIABLE) or None
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
