"""Golden tensors: where they are, what was read of them."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("GOLDEN_DIR") or ROOT.parent / "shared" / "golden")


class Golden:
    """One safetensors file that remembers which of its tensors were asked for."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            self.metadata = file.metadata() or {}
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.read: set[str] = set()

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.metadata.get("config", "{}"))
        return config

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self[name] for name in self.tensors if name.startswith(prefix)}


@functools.cache
def golden(name: str) -> Golden:
    """The file `name` (`croma/inference`)."""
    return Golden(FOLDER / f"{name}.safetensors")


@functools.cache
def manifest(name: str) -> dict[str, Any]:
    """The manifest of the set `name`."""
    loaded: dict[str, Any] = json.loads((FOLDER / name / "manifest.json").read_text())
    return loaded


def files(name: str) -> list[str]:
    """The files of the set `name` (`croma/inference`, ...)."""
    return [f"{name}/{path.stem}" for path in sorted((FOLDER / name).glob("*.safetensors"))]


def tensor_names(name: str) -> list[tuple[str, str]]:
    """(file, tensor) of all tensors of the set `name`."""
    return [(file, tensor) for file in files(name) for tensor in sorted(golden(file).tensors)]


def require(name: str) -> None:
    """Skip without the set `name`, or fail where it must be there."""
    if files(name):
        return
    reason = f"no golden set {name!r} in {FOLDER}: set GOLDEN_DIR"
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
