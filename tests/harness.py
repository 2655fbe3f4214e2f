"""How tests run, kill and compare the commands of the project."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file", "infra/accelerate/cpu-two-ranks.yaml")
"""Two CPU ranks; to be followed by a script and its flags."""
ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
"""Two ranks share two cores, and an idle GPU stays idle."""


def run(
    *arguments: str, timeout_s: float = 120, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python command to its end; its output is in the failure."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_and_kill(
    *arguments: str, when: Callable[[], bool], timeout_s: float = 120, env: Mapping[str, str] | None = None
) -> bool:
    """Start a Python command in a session of its own and SIGKILL it with all its children as soon as `when` holds.

    Returns whether it was killed, rather than having ended before.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end_s = time.monotonic() + timeout_s
    try:
        while process.poll() is None and not when():
            assert time.monotonic() < end_s, "it did not come so far in time"
            time.sleep(0.01)
        return process.poll() is None
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the session that `process` leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`; what a killed writer had not yet given its name does not count."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = [path for path in files if not path.name.startswith(".part-") and ".partial" not in path.name]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in named}


def processes(out: Path) -> list[int]:
    """Ids of the processes that were started with `out` on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] if str(out) in path.read_bytes().decode().split("\0") else []
        except OSError:
            continue
    return found


def wait_for_end(out: Path) -> None:
    """The ranks of a launcher that was killed leave by themselves; those that do not are ended by id."""
    end_s = time.monotonic() + 10
    while processes(out) and time.monotonic() < end_s:
        time.sleep(0.05)
    left = processes(out)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left, "ranks outlived their launcher"


def run_ranks(script: str, folder: Path, *, count: int = 2, timeout_s: float = 200) -> None:
    """Run `script RANK FOLDER` once for each rank, to the end of all."""
    env = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    command = [sys.executable, "-W", "error::UserWarning", script]
    started = [
        subprocess.Popen([*command, str(rank), str(folder)], env=env, stderr=subprocess.PIPE, text=True)
        for rank in range(count)
    ]
    try:
        for process in started:
            _, stderr = process.communicate(timeout=timeout_s)
            assert process.returncode == 0, stderr
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
