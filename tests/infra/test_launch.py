"""The launcher ends as what it launched: that is all that a scheduler sees of a run."""

import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import harness

FILES = "infra/accelerate"
RANK = """
import os, signal, sys, time
from pathlib import Path
def save(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one is not waited for, as in train/stop.py
    time.sleep(0.5)
    Path(sys.argv[1], "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
Path(sys.argv[1], os.environ.get("RANK", "0")).touch()
exec(sys.argv[2])
time.sleep(100)
"""


@contextmanager
def _launched(folder: Path, does: str, *flags: str, file: str = "cpu-two-ranks") -> Iterator[subprocess.Popen[str]]:
    """A launcher of ranks that wait, after having done something."""
    script = folder / "rank.py"
    script.write_text(RANK)
    launch = [sys.executable, f"{FILES}/launch.py", "--config_file", f"{FILES}/{file}.yaml", *flags]
    how = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    launcher = subprocess.Popen(
        [*launch, str(script), str(folder), does], cwd=harness.ROOT, env=harness.ENVIRONMENT, **how
    )
    try:
        yield launcher
    finally:
        launcher.terminate()
        with suppress(subprocess.TimeoutExpired):
            launcher.communicate(timeout=60)
        launcher.kill()
        launcher.communicate(timeout=30)


def _until(holds: Callable[[], object], *launchers: "subprocess.Popen[str]") -> None:
    end_s = time.monotonic() + 100
    while not holds():
        assert all(launcher.poll() is None for launcher in launchers)
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_the_code_is_that_of_the_rank_that_ended_first(tmp_path: Path) -> None:
    with _launched(tmp_path, "if os.environ['RANK'] == '1': sys.exit(2)") as launcher:
        _, said = launcher.communicate(timeout=100)
        assert launcher.returncode == 2, said


def test_the_code_of_a_rank_is_what_a_shell_would_see() -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    launch = runpy.run_path(str(harness.ROOT / FILES / "launch.py"))

    def seen(code: int) -> int:
        def launched() -> None:
            failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")
            raise ChildFailedError("train/croma.py", {0: failure})

        return launch["run"](launched)

    assert [seen(code) for code in (2, 75, -signal.SIGKILL)] == [2, 75, 137]


def test_a_launcher_that_is_stopped_stops_its_ranks_and_says_start_me_again(tmp_path: Path) -> None:
    with _launched(tmp_path, "pass") as launcher:
        _until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), launcher)
        launcher.terminate()
        _, said = launcher.communicate(timeout=100)
        assert launcher.returncode == 75, said
        assert (tmp_path / "saved").exists()
        assert "SIGKILL" not in said


def test_a_lone_process_that_is_stopped_saves_before_its_launcher_ends(tmp_path: Path) -> None:
    with _launched(tmp_path, "pass", file="cpu-one") as launcher:
        _until((tmp_path / "0").exists, launcher)
        running = Path(f"/proc/{launcher.pid}/cmdline").read_text().split("\0")[1]
        assert running == str(tmp_path / "rank.py"), "of two processes each would hear what tini -g sends"
        launcher.terminate()
        _, said = launcher.communicate(timeout=100)
        assert launcher.returncode == 75, said
        assert (tmp_path / "saved").exists()


MEET_TWICE = """
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
attempt = sum(path.name.startswith(f"met-{rank}") for path in folder.iterdir())
(folder / f"part-{rank}").write_text(os.environ["MASTER_ADDR"] + ":" + os.environ["MASTER_PORT"])
os.rename(folder / f"part-{rank}", folder / f"met-{rank}-{attempt}")
if attempt or rank == "1":
    sys.exit(1 - attempt)
"""


def test_ranks_of_several_machines_that_are_started_again_meet_elsewhere(tmp_path: Path) -> None:
    """Where those before met, the store still has the addresses of the dead."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = ("--num_machines", "2", "--main_process_port", port, "--max_restarts", "1", "--monitor_interval", "0.1")
    with ExitStack() as stack:
        launched = [_launched(tmp_path, MEET_TWICE, *size, "--machine_rank", machine) for machine in "01"]
        launchers = [stack.enter_context(one) for one in launched]
        assert [one.wait(timeout=100) for one in launchers] == [0, 0]
    first, again = ({path.read_text() for path in tmp_path.glob(f"met-?-{attempt}")} for attempt in (0, 1))
    assert len(first) == len(again) == 1
    assert first != again
