"""The commands in the examples' docstrings, typed one after the other behind a small demo."""

import ast
import contextlib
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

plt = pytest.importorskip("matplotlib.pyplot", reason="needs the examples extra")
rasterio = pytest.importorskip("rasterio", reason="needs the ingest extra")
xr = pytest.importorskip("xarray", reason="needs the ingest extra")
pytest.importorskip("torch", reason="needs the train extra")
# webdataset 1.0.2 leaves the last shard of an iteration open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem not in {"demo", "terramesh"})
AOI = "12.000,48.000,12.008,48.080"
"""Long enough for both sides of a split."""


def _commands(path: Path) -> list[list[str]]:
    """Lines of a docstring that start with `python`, without that word."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("python ")]


def _type(script: str, *flags: str) -> str:
    """Run a script of the project in this process, from the folder that this is in; what it prints."""
    from accelerate.state import AcceleratorState

    said, before, paths = io.StringIO(), sys.argv, list(sys.path)
    sys.argv, code = [str(ROOT / script), *flags], 0
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv, sys.path[:] = before, paths
        AcceleratorState._reset_state(reset_partial_state=True)
    assert code == 0, f"{script} ends with {code}"
    return said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `runs/demo/data`, labelled, and `runs/demo/croma`, four steps old; the current one."""
    from typer.testing import CliRunner

    from ingest.cli import app

    place = tmp_path_factory.mktemp("examples")
    with contextlib.chdir(place):
        earth = ("make-earth", "--aoi", AOI, "--out", "earth", "--dates", "2021-07-01/2021-07-12", "--no-noise")
        build = ("build-shards", "--aoi", AOI, "--catalog", "earth", "--chip-px", "120", "--labels", "land-cover")
        for command in (earth, (*build, "--val", "40", "--seed", "2", "--workers", "0", "--out", "runs/demo/data")):
            done = CliRunner().invoke(app, list(command))
            assert done.exit_code == 0, done.output
        run = ("--recipe", "tiny", "--data", "runs/demo/data", "--out", "runs/demo/croma")
        _type("train/croma.py", *run, "--steps", "4", "--batch", "4", "--threads", "1")
        yield place


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """What each example printed; the commands of all docstrings, in order, each once."""
    told: dict[str, str] = {}
    for path in EXAMPLES:
        for script, *flags in _commands(path):
            if script == f"examples/{path.name}":
                told[path.stem] = _type(script, *flags)
            elif not Path(flags[flags.index("--out") + 1]).exists():
                _type(script, *flags)
    return told


def test_every_example_ran_and_stands_in_the_readme(said: dict[str, str]) -> None:
    assert set(said) == {"read_shards", "open_cube", "segment", "embedding_map", "retrieve", "foreign_shards"}
    readme = (ROOT / "README.md").read_text()
    assert all(f"examples/{name}.py" in readme for name in (*said, "terramesh", "demo"))


def test_read_shards_sees_every_sample_of_the_split(said: dict[str, str], folder: Path) -> None:
    manifest = json.loads((folder / "runs/demo/data/manifest.json").read_text())
    lines = said["read_shards"].splitlines()
    assert len(lines) == sum(shard["samples"] for shard in manifest["shards"] if shard["split"] == "val") > 0
    assert all("(12, 120, 120) uint16  (2, 120, 120) float32" in line for line in lines)


def test_open_cube_plots_chips(said: dict[str, str], folder: Path) -> None:
    picture = plt.imread(folder / "cube.png")
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture[..., :3].std() > 0.1
    assert "polarisation: 2, band: 12" in said["open_cube"]


def test_segment_beats_the_most_frequent_class(said: dict[str, str]) -> None:
    head, frequent = (float(re.search(r"accuracy (\d\.\d+)", line)[1]) for line in said["segment"].splitlines())
    assert 1 > head > frequent > 0


def test_embedding_map_lies_where_the_chips_are(folder: Path, said: dict[str, str]) -> None:
    cube = xr.open_zarr(folder / "runs/demo/data/cube.zarr").load()
    with rasterio.open(folder / "embeddings.tif") as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.res == (80.0, 80.0)
        there = source.dataset_mask() > 0
        for left, top, epsg, kept in zip(cube.left_m, cube.top_m, cube.epsg, cube.accepted, strict=True):
            if kept and epsg == source.crs.to_epsg():
                row, column = source.index(left.item() + 1, top.item() - 1)
                assert there[row : row + 15, column : column + 15].all()
        assert source.read().std() > 30
    assert "pixels of 80 m" in said["embedding_map"]


@pytest.mark.parametrize("name", ["segment", "embedding_map"])
def test_a_folder_without_tokens_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ["--data", str(tmp_path)] if name == "segment" else []
    monkeypatch.setattr(sys, "argv", [name, "--tokens", str(tmp_path / "nowhere"), *data])
    with pytest.raises(SystemExit, match="nowhere holds no tokens"):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


def test_retrieve_orders_by_similarity(said: dict[str, str]) -> None:
    _, *lines, summary = said["retrieve"].splitlines()
    similar = [float(line.split()[0]) for line in lines]
    assert similar == sorted(similar, reverse=True)
    assert all(-1 <= one <= 1 for one in similar)
    assert re.search(r"comes first for \d+% of \d+ images", summary)


def test_foreign_shards_train(folder: Path, said: dict[str, str]) -> None:
    assert "64 samples" in said["foreign_shards"]
    assert (folder / "runs/foreign/croma/step-00000004/COMMIT.json").exists()
    assert json.loads((folder / "runs/foreign/indexed/stats.json").read_text())
