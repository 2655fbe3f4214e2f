"""Images by a podman of the tests' own, whose images, settings and networks lie in a folder that is gone afterwards.

Nobody's images are touched, and no registry is asked: images stand on a Debian made by debootstrap, a stand-in for
`python:3.11-slim-bookworm`. It is kept as a tar in CONTAINER_CACHE_DIR (`sentinel-pretrain` in XDG_CACHE_HOME).
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
"""Of the Dockerfile."""
PROGRAMS = ("podman", "runc", "conmon", "debootstrap", "tar", "umount", "unshare")
"""Of Debian; `.ci/install-packages` installs them."""
SUITE, INCLUDED = "bookworm", "ca-certificates,python3-minimal,python3-venv,python3-pip"
CERTIFICATES = "/etc/ssl/certs"
SETTINGS = """
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""
LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")
"""What a restricted pod is allowed."""


class Unusable(Exception):
    """This machine does not let podman run; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """Commands of one podman."""

    folder: Path
    """Of its images, settings and networks."""

    def __call__(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        places = [f"--{name}={self.folder / name}" for name in ("root", "runroot", "tmpdir", "network-config-dir")]
        env = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf"), "TMPDIR": str(self.folder)}
        command = ["podman", *places, *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)

    def must(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run a command that succeeds; its standard output."""
        done = self(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def build(self, target: str, *arguments: str, timeout_s: float = 1500) -> str:
        """The name of an image of the Dockerfile."""
        mounts = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        if wheels := os.environ.get("PIP_FIND_LINKS"):
            mounts += ["--build-arg", f"PIP_FIND_LINKS={wheels}"]
            mounts += ["--volume", f"{wheels}:{wheels}:ro"] if Path(wheels).is_dir() else []
        how = ("--pull=never", "--network=host", "--layers=false", "--target", target, "--tag", f"localhost/{target}")
        self.must("build", *how, *mounts, *arguments, str(ROOT), timeout_s=timeout_s)
        return f"localhost/{target}"


def missing() -> list[str]:
    """What this machine lacks."""
    programs = [name for name in PROGRAMS if shutil.which(name) is None]
    return programs if os.geteuid() == 0 else [*programs, "root"]


@contextlib.contextmanager
def running() -> Iterator[Podman]:
    """A podman that has the base image and nothing else.

    Raises:
        Unusable: no container starts on this machine.
    """
    # A disk, and few of the 50 characters that it may have.
    folder = Path(tempfile.mkdtemp(prefix="podman-", dir="/var/tmp"))
    podman = Podman(folder=folder)
    try:
        _configure(folder)
        for command in (("import", str(_base(cache())), BASE), ("run", "--rm", "--network=none", BASE, "true")):
            tried = podman(*command)
            if tried.returncode != 0:
                raise Unusable(f"podman {command[0]} fails on this machine: {tried.stderr.strip()}")
        yield podman
    finally:
        for command in (("rm", "--all", "--force", "--time=0"), ("network", "prune", "--force")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                podman(*command)
        _unmount(folder)
        shutil.rmtree(folder)


def cache() -> Path:
    """Where the base image is kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("CONTAINER_CACHE_DIR") or Path(home) / "sentinel-pretrain")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _configure(folder: Path) -> None:
    for name in ("root", "runroot", "tmpdir", "network-config-dir"):
        (folder / name).mkdir()
    limits = {"files": _hard(resource.RLIMIT_NOFILE, 20_000), "processes": _hard(resource.RLIMIT_NPROC, 20_000)}
    (folder / "containers.conf").write_text(SETTINGS.format(**limits))


def _hard(kind: int, wanted: int) -> int:
    """What of a limit a container may get: no more than this process, which perhaps must not raise it."""
    most = resource.getrlimit(kind)[1]
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


def _base(cached: Path) -> Path:
    """A tar of Debian with Python; made once."""
    made = cached / f"{SUITE}.tar"
    if not made.exists():
        with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=cached) as folder:
            root, part = Path(folder) / "root", Path(folder) / made.name
            # What debootstrap mounts into the folder is mounted for it alone, and gone with it.
            _must("unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={INCLUDED}", SUITE, str(root))
            without = ("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*")
            _must("tar", "-C", str(root), *without, "-cf", str(part), ".")
            part.rename(made)
    return made


def _must(*command: str) -> None:
    done = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = done.communicate(timeout=600)
        if done.returncode != 0:
            raise Unusable(f"{command} fails on this machine: {said[-2000:]}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
        done.wait(timeout=30)


def _unmount(folder: Path) -> None:
    """Everything that is mounted below, the last first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    below = [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]
    for place in reversed(below):
        subprocess.run(["umount", place], capture_output=True, timeout=60, check=False)
