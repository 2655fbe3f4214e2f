"""The commands in the examples' docstrings, typed one after the other behind a small demo."""

import ast
import contextlib
import io
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import ROOT

for _name in ("rasterio", "torch", "matplotlib"):
    pytest.importorskip(_name, reason="examples need both sides of the project, and matplotlib")

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem not in {"demo", "terramesh"})
AOI = "12.000,48.000,12.012,48.030"


def _commands(path: Path) -> list[list[str]]:
    """Lines of a docstring that start with `python`, without that word."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("python ")]


def _type(script: str, *flags: str) -> str:
    """Run a script of the project in this process, from the folder that this is in; what it prints."""
    said, before, paths = io.StringIO(), sys.argv, list(sys.path)
    sys.argv = [str(ROOT / script), *flags]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{script}: exit code {end.code}"
    finally:
        sys.argv, sys.path[:] = before, paths
        _forget_accelerate()
    return said.getvalue()


def _forget_accelerate() -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `runs/demo/data`, labelled, and `runs/demo/croma`, four steps old; the current one."""
    from typer.testing import CliRunner

    from ingest.cli import app

    place = tmp_path_factory.mktemp("examples")
    with contextlib.chdir(place):
        earth = ("make-earth", "--aoi", AOI, "--out", "earth", "--dates", "2021-07-01/2021-07-12", "--no-noise")
        build = ("build-shards", "--aoi", AOI, "--catalog", "earth", "--chip-px", "120", "--labels", "land-cover")
        for command in (earth, (*build, "--val", "40", "--seed", "1", "--workers", "0", "--out", "runs/demo/data")):
            done = CliRunner().invoke(app, list(command))
            assert done.exit_code == 0, done.output
        run = ("--recipe", "tiny", "--data", "runs/demo/data", "--out", "runs/demo/croma")
        _type("train/croma.py", *run, "--steps", "4", "--batch", "4", "--threads", "1")
        yield place


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """What each example printed."""
    told: dict[str, str] = {}
    for path in EXAMPLES:
        *before, last = _commands(path) if path.stem != "foreign_shards" else _commands(path)[::-1]
        for command in before if path.stem != "foreign_shards" else []:
            if not _is_there(command):
                _type(*command)
        told[path.stem] = _type(*last)
        for command in before[::-1] if path.stem == "foreign_shards" else []:
            told[path.stem] += _type(*command)
    return told


def _is_there(command: list[str]) -> bool:
    return Path(command[command.index("--out") + 1]).exists()
