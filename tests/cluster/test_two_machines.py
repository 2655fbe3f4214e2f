"""Machines and the network between them, which is cut, slow and lossy: the bytes are those of an undisturbed one."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
from cluster import namespaces
from cluster.namespaces import Machine, Network, joined

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a loaded machine takes its time
ENVIRONMENT = {**harness.ENVIRONMENT, "PYTHONPATH": os.pathsep.join((str(harness.ROOT), str(harness.ROOT / "tests")))}
STEPS = 16


@pytest.fixture(autouse=True)
def possible() -> None:
    namespaces.require()


def until(holds: Callable[[], object], *, told: Callable[[], str], within_s: float = 150) -> None:
    """Wait."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, told()
        time.sleep(0.02)


# --- training ----------------------------------------------------------------------------------------------------


class Training:
    """A run on machines `a`, where the launchers meet, and `b`."""

    def __init__(self, network: Network, folder: Path, data: Path) -> None:
        self.network, self.folder, self.data = network, folder, data
        self.out = folder / "run"

    def start(self, name: str, *flags: str) -> Any:
        """The launcher of a machine."""
        meet = ["--machine_rank", str(list(self.network).index(name)), "--main_process_ip", "a"]
        size = ["--num_machines", "2", "--num_processes", "2", "--max_restarts", "9", "--monitor_interval", "0.2"]
        launch = ["infra/accelerate/launch.py", "--config_file", "infra/accelerate/gpu-nodes.yaml", *size, *meet]
        with self._log(name).open("ab") as log:
            command = [sys.executable, *launch, *training(self.data, self.out), *flags]
            return self.network[name].start(*command, cwd=harness.ROOT, env=ENVIRONMENT, stdout=log, stderr=log)

    def saved(self) -> int:
        """The last step that is committed; 0 where none is."""
        return max((int(path.parent.name.partition("-")[2]) for path in self.out.glob("step-*/COMMIT.json")), default=0)

    def attempts(self) -> int:
        """How often the ranks began."""
        return len(list((self.out / "attempts").glob("0*.json")))

    def said(self, name: str) -> str:
        """What a machine's launcher and rank said."""
        return self._log(name).read_text()

    def told(self) -> str:
        """All that was said."""
        return "\n".join(f"--- {name}, {self.saved()} saved\n{self.said(name)}" for name in self.network)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def training(data: Path, out: Path) -> list[str]:
    flags = ["--steps", str(STEPS), "--batch", "8", "--checkpoint-every", "2", "--resume"]
    return ["train/croma.py", "--recipe", "tiny", "--data", str(data), "--out", str(out), *flags]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pairs, and a run from them on two ranks of this machine."""
    pytest.importorskip("torch")
    from tiny_pairs import write_pairs

    namespaces.require()
    folder = tmp_path_factory.mktemp("local")
    write_pairs(str(folder / "data"), chip_px=120)
    harness.run(*harness.LAUNCH, *training(folder / "data", folder / "run"))
    return folder / "data", folder / "run"


def same(out: Path, local: Path) -> None:
    """The same rows, weights and moments."""
    from pipeline.store import Store
    from train import checkpoint
    from train.meter import read_rows, steady

    found, wanted = (read_rows(Store.at(str(folder))) for folder in (out, local))
    assert [steady(row) for row in found] == [steady(row) for row in wanted]
    assert len(wanted) == STEPS
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = Path(checkpoint.folder(STEPS)) / name
        assert (out / last).read_bytes() == (local / last).read_bytes()


def _end_well(run: Training, launchers: list[Any]) -> None:
    until(lambda: all(one.poll() is not None for one in launchers), told=run.told)
    assert [one.returncode for one in launchers] == [0] * len(launchers), run.told()


@pytest.mark.soak  # the next one ends in the same files, and more happens to it
@pytest.mark.train
def test_two_machines_train_as_two_ranks_of_one(local: tuple[Path, Path], tmp_path: Path) -> None:
    data, calm = local
    with joined(["a", "b"]) as network:
        run = Training(network, tmp_path, data)
        _end_well(run, [run.start("a"), run.start("b")])
        assert run.attempts() == 1
    same(run.out, calm)


@pytest.mark.train
def test_a_cut_link_and_a_machine_without_power_change_nothing(local: tuple[Path, Path], tmp_path: Path) -> None:
    data, calm = local
    patience = ["--rank-timeout", "8"]
    with joined(["a", "b"]) as network:
        run = Training(network, tmp_path, data)
        launchers = [run.start(name, *patience) for name in network]
        until(lambda: run.saved() >= 4, told=run.told)
        network.cut("b")
        until(lambda: all("lost another one" in run.said(name) for name in network), told=run.told)
        cut_at = run.saved()
        network.restore("b")
        until(lambda: run.saved() > cut_at, told=run.told)
        network["b"].kill()
        assert cut_at < run.saved() < STEPS - 2
        assert launchers.pop().returncode < 0
        _end_well(run, [*launchers, run.start("b", *patience)])
        assert run.attempts() >= 3
        assert "Traceback" not in run.said("a"), run.told()
    same(run.out, calm)


# --- ingest ------------------------------------------------------------------------------------------------------

AREA, DATES = (12.02, 48.0, 12.03, 48.006), 7
STORE = "http://s3:5000"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1"}
SERVE = """
import sys, time
from pathlib import Path
from flaky_server import serving
def fault(path, _):
    return "slow" if path.endswith(("B02.tif", "B03.tif", "B04.tif", "B08.tif")) else None
with serving(Path(sys.argv[1]), fault, at=("0.0.0.0", 8000)):
    time.sleep(10000)
"""
MAKE = "import urllib.request as web; web.urlopen(web.Request('http://s3:5000/bucket', method='PUT'), timeout=60)"
LIST = """
import hashlib, s3fs
fs = s3fs.S3FileSystem()
for path in fs.find("bucket/data"):
    print(path.removeprefix("bucket/data/"), hashlib.sha256(fs.cat_file(path)).hexdigest())
"""
SERVED = {**ENVIRONMENT, **KEYS, "AWS_ENDPOINT_URL": STORE, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}
"""The shortest timeout that dask takes; it is 30 s by default."""


class Ingest:
    """A driver and a scheduler on `head`, servers of assets and objects, and workers, each on a machine of its own."""

    def __init__(self, network: Network, folder: Path, earth: Path) -> None:
        self.network, self.folder = network, folder
        self.start("s3", "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000")
        self.start("assets", "-c", SERVE, str(earth))
        self.start("head", "-m", "distributed.cli.dask_scheduler", "--host", "head", "--port", "8786", "--no-dashboard")
        for name in ("w1", "w2"):
            self.work(name)

    def work(self, name: str) -> None:
        """Start a machine's worker."""
        where = ["--host", self.network[name].address, "--no-dashboard", "--nthreads", "1"]
        self.start(name, "-m", "distributed.cli.dask_worker", "tcp://head:8786", *where)

    def start(self, name: str, *command: str) -> Any:
        """A Python command on a machine."""
        how = {"cwd": harness.ROOT, "env": SERVED}
        with (self.folder / f"{name}.log").open("ab") as log:
            return self.network[name].start(sys.executable, *command, stdout=log, stderr=log, **how)

    def build(self, out: str, *how: str) -> Any:
        """A driver."""
        what = ["--aoi", ",".join(map(str, AREA)), "--catalog", "http://assets:8000/catalog.json", "--chip-px", "24"]
        return self.start("head", "-m", "ingest.cli", "build-shards", *what, "--out", out, *how)

    def count(self, name: str, text: str) -> int:
        """How often a machine said it."""
        return (self.folder / f"{name}.log").read_text().count(text)

    def done(self) -> int:
        """Units whose receipts are in the store."""
        return self.count("s3", "PUT /bucket/data/receipts/u")

    def told(self) -> str:
        """All that was said but by the store."""
        logs = [path for path in sorted(self.folder.glob("*.log")) if path.stem != "s3"]
        return "\n".join(f"--- {path.stem}, {self.done()} units done\n{path.read_text()}" for path in logs)


@pytest.fixture(scope="module")
def earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Overpasses of a few cells, without noise."""
    pytest.importorskip("rasterio", reason="needs the ingest extra")
    pytest.importorskip("moto", reason="needs the dev extra")
    import shapely

    from ingest.synthetic import make_earth

    namespaces.require()
    root = tmp_path_factory.mktemp("machines") / "earth"
    make_earth(root, aoi=shapely.box(*AREA), noise=False, n_dates=DATES)
    return root


def listens(machine: Machine, port: int) -> bool:
    """Whether something on it waits for connections there."""
    tables = [Path(f"/proc/{process}/net/tcp") for process in machine.processes()[:1]]
    return any(f":{port:04X} 00000000:0000 0A" in table.read_text() for table in tables)


@pytest.mark.ingest
@pytest.mark.parametrize("given_up", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_storm_over_all_machines_changes_no_byte(given_up: bool, earth: Path, tmp_path: Path) -> None:
    with joined(["head", "s3", "assets", "w1", "w2"]) as network:
        ingest = Ingest(network, tmp_path, earth)
        for name, port in (("assets", 8000), ("s3", 5000), ("head", 8786)):
            until(lambda name=name, port=port: listens(network[name], port), told=ingest.told)
        network["head"].run(sys.executable, "-c", MAKE)
        calm = ingest.build(str(tmp_path / "calm"), "--workers", "0")
        until(lambda: ingest.count("head", "Register worker") >= 2, told=ingest.told)
        assert calm.wait(timeout=150) == 0, ingest.told()
        network.lose("w2", percent=10)
        network.slow("assets", mbit=8)
        driver = ingest.build("s3://bucket/data", "--scheduler", "tcp://head:8786")
        _storm(network, ingest, given_up=given_up)
        until(lambda: driver.poll() is not None, told=ingest.told)
        assert driver.returncode == 0, ingest.told()
        network.restore("w2")
        listed = network["head"].run(sys.executable, "-c", LIST, env=SERVED)
        assert dict(line.split() for line in listed.splitlines()) == harness.tree(tmp_path / "calm")


def _storm(network: Network, ingest: Ingest, *, given_up: bool) -> None:
    """Links of a worker and the store are cut and restored; then the worker's machine is gone.

    dask ends a worker whose link is cut for so long that it is `given_up`: it is started again, as a supervisor would.
    """
    until(lambda: ingest.done() >= 1, told=ingest.told)
    for name in ("w1", "s3"):
        network.cut(name)
    time.sleep(3)
    network.restore("s3")
    if given_up:
        until(lambda: ingest.count("head", "Remove worker"), told=ingest.told)
        network["w1"].kill()
    network.restore("w1")
    if given_up:
        ingest.work("w1")
        until(lambda: ingest.count("head", "Register worker") >= 3, told=ingest.told)
    before = ingest.done()
    until(lambda: ingest.done() > before, told=ingest.told)
    network.cut("w1")
    network["w1"].kill()
    assert ingest.done() < len(list((ingest.folder / "calm/receipts").iterdir())), "there was nothing left to do"
