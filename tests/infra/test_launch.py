"""The launcher ends as what it launched: that is all that a scheduler sees of a run."""

import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
import pytest

LAUNCH = (sys.executable, "infra/accelerate/launch.py", "--config_file", "infra/accelerate/cpu-two-ranks.yaml")
RANK = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
Path(sys.argv[1], os.environ["RANK"]).touch()
if os.environ["RANK"] == "1":
    exec(sys.argv[2])
time.sleep(100)
"""


@contextmanager
def _launched(folder: Path, does: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher of two ranks that wait, of which the second does something first."""
    script = folder / "rank.py"
    script.write_text(RANK)
    command = [*LAUNCH, str(script), str(folder), does]
    launcher = subprocess.Popen(command, cwd=harness.ROOT, env=harness.ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        yield launcher
    finally:
        launcher.terminate()
        launcher.communicate(timeout=100)


def test_the_code_is_that_of_the_rank_that_ended_first(tmp_path: Path) -> None:
    with _launched(tmp_path, "sys.exit(2)") as launcher:
        _, said = launcher.communicate(timeout=100)
        assert launcher.returncode == 2, said


@pytest.mark.parametrize(("code", "seen"), [(2, 2), (75, 75), (-9, 137)])
def test_the_code_of_a_lone_process_is_what_a_shell_would_see(code: int, seen: int) -> None:
    lone = runpy.run_path(str(harness.ROOT / "infra" / "accelerate" / "launch.py"))

    def launch() -> None:
        raise subprocess.CalledProcessError(code, "train/croma.py")

    assert lone["run"](launch) == seen


def test_a_launcher_that_is_stopped_stops_its_ranks_and_says_start_me_again(tmp_path: Path) -> None:
    with _launched(tmp_path, "pass") as launcher:
        end_s = time.monotonic() + 100
        while not ((tmp_path / "0").exists() and (tmp_path / "1").exists()):
            assert launcher.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.02)
        launcher.terminate()
        _, said = launcher.communicate(timeout=100)
        assert launcher.returncode == 75, said
        assert "SIGKILL" not in said
