"""What the tables share: the server of images, the environments of peers, and what the readers are told of GDAL."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_NUM_THREADS": "1",
}
"""Without the first two every reader lists folders and asks twice for a header; without the next two most give up."""


def environment() -> dict[str, str]:
    """Of every reader: GDAL's settings, and one thread for each of its own."""
    return {**os.environ, **GDAL, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of what lies in a folder."""
    command = [sys.executable, str(HERE / "server.py"), str(folder)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def ask(url: str) -> dict[str, Any]:
    """What the server says."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def python(package: str | None, envs: Path) -> str:
    """The interpreter of a peer's environment, which is made if it is not there.

    The pins are all there is to install: rslearn's own requirements would bring torch, which reading does not need.
    """
    if package is None:
        return sys.executable
    pins, folder = HERE / f"{package}.txt", envs / package
    ready = folder / ".pins"
    if not ready.exists() or ready.read_text() != pins.read_text():
        uv = [sys.executable, "-m", "uv"] if shutil.which("uv") is None else ["uv"]
        env = {**os.environ, "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
        install = ["pip", "install", "--quiet", "--no-deps", "--python", str(folder), "-r", str(pins)]
        for command in (["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], install):
            subprocess.run([*uv, *command], env=env, check=True, timeout=900)
        ready.write_text(pins.read_text())
    return str(folder / "bin" / "python")
