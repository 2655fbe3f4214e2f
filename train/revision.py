"""Which state of the code runs, where it runs from a git checkout."""

import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 10


def of_checkout(root: Path = _ROOT) -> str | None:
    """The commit, with `-dirty` behind it where tracked files differ; None where git does not know the folder."""
    if not (root / ".git").exists():
        return None
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
