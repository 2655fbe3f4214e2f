"""SIGKILLs of workers and driver at random, over a server that fails at random: the tree of an undisturbed build."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import harness
import pyarrow.parquet as pq
import pytest
import shapely
from flaky_server import serving
from typer.testing import CliRunner

from ingest.cli import app

pytestmark = [pytest.mark.ingest, pytest.mark.slow]
AREA = (12.02, 48.0, 12.03, 48.006)
DATES = 9
FAULTS = ("503", "429", "500", "403", "drop", "reset", "slow")


class Weather:
    """What the server does: `calm` nothing wrong; else a storm, in which it `holds` back the last unit."""

    def __init__(self) -> None:
        self.calm, self.holds, self.last, self._draw = True, False, "", random.Random(0)

    def __call__(self, path: str, number: int) -> str | None:
        if self.calm or not path.endswith(".tif"):
            return None
        if self.holds and self.last in path:
            return "503"
        return self._draw.choice(FAULTS) if self._draw.random() < 0.05 else None


@pytest.fixture(scope="module")
def earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Overpasses of a few cells, without noise."""
    from ingest.synthetic import make_earth

    root = tmp_path_factory.mktemp("chaos") / "earth"
    make_earth(root, aoi=shapely.box(*AREA), noise=False, n_dates=DATES)
    return root


@pytest.fixture(scope="module")
def weather(earth: Path) -> Iterator[tuple[Weather, str]]:
    """The server's state, and its URL."""
    weather = Weather()
    weather.last = max(path.name for path in (earth / "sentinel-2-l2a").iterdir() if path.is_dir())
    with serving(earth, weather) as (url, _):
        yield weather, url


def _command(url: str, out: Path, workers: int) -> list[str]:
    where = ["--aoi", ",".join(map(str, AREA)), "--catalog", f"{url}/catalog.json", "--out", str(out)]
    return ["build-shards", *where, "--chip-px", "24", "--workers", str(workers)]


def _build_here(command: list[str]) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output


def _workers(driver: int) -> list[int]:
    """Processes that a driver started for its workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            spawned = b"spawn_main" in (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        found += [int(path.parent.name)] if parent == driver and spawned else []
    return sorted(found)


def _kill_worker(driver: subprocess.Popen[str], draw: random.Random) -> bool:
    """End one of its workers, as soon as it has some; whether it had."""
    end_s = time.monotonic() + 60
    while driver.poll() is None and time.monotonic() < end_s:
        if workers := _workers(driver.pid):
            time.sleep(draw.uniform(0, 2.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(workers), signal.SIGKILL)
                return True
        time.sleep(0.05)
    return False


def _start(command: list[str]) -> "subprocess.Popen[str]":
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-m", "ingest.cli", *command], cwd=harness.ROOT, env=harness.ENVIRONMENT, **quiet
    )


def _storm(command: list[str], kills: int, seed: int) -> Counter[str]:
    """Start the command again whenever it ended or was killed, until so many kills are done; what was killed."""
    draw, killed = random.Random(seed), Counter[str]()
    plan = ["driver" if number % 3 == 0 else "worker" for number in range(kills)]
    draw.shuffle(plan)
    driver = _start(command)
    try:
        while killed.total() < kills:
            what = plan[killed.total()]
            if what == "worker":
                killed[what] += _kill_worker(driver, draw)
            else:
                time.sleep(draw.uniform(0.5, 6.0))
                killed[what] += driver.poll() is None
                driver.kill()
                driver.wait(timeout=30)
            if driver.poll() is not None:
                said = driver.communicate(timeout=30)[1]
                assert driver.returncode == -signal.SIGKILL or "units failed" in said, said
                driver = _start(command)
    finally:
        driver.kill()
        driver.communicate(timeout=30)
    return killed


def _keys_in_shards(out: Path) -> list[str]:
    keys = []
    for path in out.glob("shards/*/*.tar"):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            keys += [name.removesuffix(".json") for name in tar.getnames() if name.endswith(".json")]
    return keys


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_a_storm_changes_no_byte_and_makes_each_chip_once(
    kills: int, weather: tuple[Weather, str], tmp_path: Path
) -> None:
    sky, url = weather
    sky.calm, sky.holds = True, True
    _build_here(_command(url, tmp_path / "calm", 0))
    sky.calm = False
    killed = _storm(_command(url, tmp_path / "storm", 2), kills, seed=kills)
    assert not (tmp_path / "storm" / "manifest.json").exists()
    sky.holds = False
    _build_here(_command(url, tmp_path / "storm", 0))
    assert harness.tree(tmp_path / "storm") == harness.tree(tmp_path / "calm")
    assert killed == {"driver": -(-kills // 3), "worker": kills - -(-kills // 3)}
    keys = _keys_in_shards(tmp_path / "storm")
    planned = pq.read_table(tmp_path / "storm" / "plan.parquet").to_pylist()
    assert sorted(keys) == sorted(row["key"] for row in planned if row["unit"])
    assert len({row["unit"] for row in planned if row["unit"]}) >= DATES - 2
    assert len(keys) == len(set(keys)) > DATES - 2
