"""Ranks and processes that die at the worst moments: the run ends as an undisturbed one, to the bit."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import harness
import pytest
from tiny_pairs import write_pairs

from pipeline.store import Store
from train import checkpoint
from train.meter import read_rows, steady

pytestmark = [pytest.mark.train, pytest.mark.slow]
STEPS = 8
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--max-restarts", "3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_pairs(str(tmp_path_factory.mktemp("pairs") / "data"), chip_px=120).url)


def _command(data: Path, out: Path) -> list[str]:
    flags = ["--data", str(data), "--out", str(out), "--steps", str(STEPS), "--checkpoint-every", "2", "--resume"]
    return ["train/croma.py", "--recipe", "tiny", *flags]


def _rank(out: Path, number: int) -> int | None:
    """Process id of a rank that writes to `out`."""
    for process in harness.processes(out):
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"LOCAL_RANK={number}".encode() in environment:
            return process
    return None


def _kill_once_saved(out: Path, killed: list[int]) -> None:
    end_s = time.monotonic() + 100
    while not list(out.glob("step-*/COMMIT.json")) and time.monotonic() < end_s:
        time.sleep(0.01)
    process = _rank(out, 1)
    if process is not None:
        os.kill(process, signal.SIGKILL)
        killed.append(process)


def _same(out: Path, calm: Path) -> None:
    for name in (checkpoint.MODEL_NAME, checkpoint.OPTIM_NAME):
        last = Path(checkpoint.folder(STEPS)) / name
        assert (out / last).read_bytes() == (calm / last).read_bytes()
    found, wanted = (read_rows(Store.at(str(folder))) for folder in (out, calm))
    assert [steady(row) for row in found] == [steady(row) for row in wanted]


@pytest.mark.timeout(280)
def test_a_rank_that_is_killed_is_started_again_and_nothing_shows(data: Path, tmp_path: Path) -> None:
    calm, stormy, killed = tmp_path / "calm", tmp_path / "stormy", []
    harness.run(*TORCHRUN, *_command(data, calm))
    killer = threading.Thread(target=_kill_once_saved, args=(stormy, killed))
    killer.start()
    try:
        harness.run(*TORCHRUN, "--monitor-interval", "0.2", *_command(data, stormy), timeout_s=150)
    finally:
        killer.join()
        harness.wait_for_end(stormy)
    assert killed
    assert len(list((stormy / "attempts").iterdir())) > 1, "nothing was started again"
    _same(stormy, calm)


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    out = tmp_path_factory.mktemp("calm") / "run"
    harness.run(*_command(data, out))
    return out


# What the others would leave is left in tests/train/test_checkpoint.py.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("model.safetensors", marks=pytest.mark.soak),
        "optim.safetensors",
        pytest.param("state.json", marks=pytest.mark.soak),
        "COMMIT.json",
    ],
)
def test_killed_while_a_checkpoint_is_written(data: Path, calm: Path, tmp_path: Path, name: str) -> None:
    stormy = tmp_path / "stormy"
    code = (
        "import os, signal, sys\n"
        "from pipeline.store import Store\n"
        "real = Store.publish\n"
        "def publish(self, name, data):\n"
        f"    if name == {name!r} and self.url.endswith('step-00000004'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(self, name, data)\n"
        "Store.publish = publish\n"
        "from train import croma\n"
        "sys.exit(croma.main())"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, *_command(data, stormy)[1:]],
        cwd=harness.ROOT,
        env=harness.ENVIRONMENT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (stormy / "step-00000002/COMMIT.json").exists()
    harness.run(*_command(data, stormy))
    _same(stormy, calm)


def test_sigterm_ends_the_command_with_its_code(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, *_command(data, out), "--steps", "500"]
    process = subprocess.Popen(
        command, cwd=harness.ROOT, env=harness.ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end_s = time.monotonic() + 100
        while not list(out.glob("step-*/COMMIT.json")):
            assert time.monotonic() < end_s
            time.sleep(0.02)
        process.terminate()
        _, told = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 75, told
    assert "stopped: asked to stop: step" in told
    assert "Traceback" not in told
    last = max(checkpoint.steps(Store.at(str(out))))
    assert [row["step"] for row in read_rows(Store.at(str(out)))] == list(range(1, last + 1))


def _saved(out: Path) -> int:
    """The last step that is committed; 0 where none is."""
    return max((int(path.parent.name.partition("-")[2]) for path in out.glob("step-*/COMMIT.json")), default=0)


def _killed_at(command: list[str], out: Path, step: int) -> int:
    """Run `command` until `step` is saved, and kill all of it; the step that a resume goes on from."""
    assert harness.run_and_kill(*command, when=lambda: _saved(out) >= step), "it ended before it was killed"
    harness.wait_for_end(out)
    return checkpoint.latest(Store.at(str(out)), lambda _: None).step


@pytest.mark.timeout(280)
@pytest.mark.parametrize("ranks", [(1, 2), pytest.param((2, 1, 3), marks=pytest.mark.soak)], ids=str)
def test_killed_on_some_ranks_and_ended_on_more(data: Path, tmp_path: Path, ranks: tuple[int, ...]) -> None:
    """25 samples in batches of 12: an epoch ends within three steps, hence while each number of ranks runs."""
    calm, stormy, steps, done = tmp_path / "calm", tmp_path / "stormy", 6 * len(ranks), 0
    more = ["--batch", "12", "--steps", str(steps), "--checkpoint-every", "1"]
    command = [*_command(data, stormy), *more]
    for count in ranks[:-1]:
        killed = _killed_at([*_on(count), *command], stormy, done + 3)
        assert 12 * (killed - done) >= 25
        done = killed
    assert done < steps - 3
    told = harness.run(*_on(ranks[-1]), *command, timeout_s=150).stderr.split()
    assert told[told.index("ranks") + 1] == str(ranks[-1])
    assert told[told.index("done_steps") + 1] == str(done)
    harness.run(*_command(data, calm), *more)
    found, wanted = (read_rows(Store.at(str(out))) for out in (stormy, calm))
    assert [row["step"] for row in wanted] == list(range(1, steps + 1))
    for name in ("step", "samples", "batch_hash", "lr"):
        assert [row[name] for row in found] == [row[name] for row in wanted]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in wanted], rel=1e-5)


def _on(ranks: int) -> list[str]:
    return [] if ranks == 1 else [*harness.LAUNCH, "--num_processes", str(ranks)]
