"""Scripts and job files keep to shellcheck."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    [*ROOT.glob("infra/**/*.sbatch"), *ROOT.glob("infra/**/*.sh"), *ROOT.glob("examples/*.sh"), *ROOT.glob(".ci/*")]
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not here: install the dev extra")
    done = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_job_files_are_there() -> None:
    assert {path.name for path in SCRIPTS} >= {"croma.sbatch", "ingest.sbatch", "itr.sbatch", "wall.sh", "run"}
