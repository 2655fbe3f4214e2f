"""A copy of the working tree in which commands are typed as in a fresh clone, without a network."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness import ROOT

LIMIT_S = 900
"""Of one command; `make demo` takes two to five minutes on a machine that does nothing else."""
NO_NETWORK = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
    "no_proxy": "127.0.0.1,localhost",
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
}
"""What asks somebody far away is refused at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The working tree in another folder, and what was typed there."""

    root: Path
    """The folder."""
    env: dict[str, str]
    """Of every command."""
    values: dict[str, str] = field(default_factory=dict)
    """Of `{api}` and its like."""
    sourced: list[str] = field(default_factory=list)
    """Lines that change the shell, and so are typed before each later command."""
    done: set[str] = field(default_factory=set)
    """What ran to its end."""

    def run(self, command: str, *, env: dict[str, str] | None = None) -> None:
        """Type a command; it must end well, within the limit, and leaves no process behind."""
        script = "\n".join((*self.sourced, command))
        log = self.root / "runs" / "log.txt"
        with log.open("wb") as said:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.root,
                env=env or self.env,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = shell.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                harness.end(shell)
                self.end()
        ends = f"does not end within {LIMIT_S} s" if code is None else f"ends with {code}"
        assert code == 0, f"{command}\n{ends}:\n{log.read_text(errors='replace')[-8000:]}"

    def end(self) -> None:
        """SIGKILL what still runs in the folder: launchers give their ranks sessions of their own."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(self.root):
                    os.kill(int(process.name), signal.SIGKILL)


def at(root: Path) -> Copy:
    """The files that git knows, in `root`, with `.venv` the environment of this interpreter, and an empty `runs`."""
    _copy_tree(root)
    _link_environment(root / ".venv")
    (root / "runs").mkdir()
    path = os.pathsep.join((str(root / ".venv" / "bin"), os.environ["PATH"]))
    return Copy(root=root, env={**os.environ, **NO_NETWORK, "PATH": path, "PYTHONPATH": str(root)})


def _copy_tree(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)


def _link_environment(venv: Path) -> None:
    """What `make` would install is there, and newer than what it is made from."""
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        (venv / path.name).symlink_to(path)
    (venv / ".ready").unlink(missing_ok=True)
    (venv / ".ready").touch()
