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
from cluster.namespaces import Network, joined

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
ENVIRONMENT = {
    **harness.ENVIRONMENT,
    "PYTHONPATH": os.pathsep.join((str(harness.ROOT), str(harness.ROOT / "tests"))),
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
STEPS = 24


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
        launch = ["-m", "accelerate.commands.launch", "--config_file", "infra/accelerate/gpu-nodes.yaml", *size, *meet]
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
