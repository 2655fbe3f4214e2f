"""Documents say what is: links resolve, commands and flags exist, the example of FORMAT.md is what the codec writes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import record
from pipeline.manifest import FORMAT_VERSION
from pipeline.sample import SampleMeta

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not any(part.startswith(".venv") or part == "runs" for part in path.relative_to(ROOT).parts)
)
README = (ROOT / "README.md").read_text()
MANUALS = README + "".join((ROOT / side / "README.md").read_text() for side in ("ingest", "train"))
FORMAT = (ROOT / "pipeline" / "FORMAT.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (path.parent / target).exists(), f"{path}: {target}"


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`((?:pipeline|ingest|train)/[\w/.]+)`", MANUALS))))
def test_files_named_in_the_readmes_exist(module: str) -> None:
    assert (ROOT / module).exists()


def test_format_example_is_what_the_codec_writes() -> None:
    example = re.search(r"```json\n(.*?)```", FORMAT, re.DOTALL)
    assert example is not None
    meta = record.loads(SampleMeta, example[1].encode(), where="FORMAT.md")
    assert json.loads(record.dumps(meta)) == json.loads(example[1])
    assert f"version {FORMAT_VERSION}" in FORMAT.splitlines()[0]


def test_every_make_target_has_help_and_stands_in_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^{target}:.*## \w+", makefile, re.MULTILINE), f"make {target} has no help"
        assert f"make {target}" in README or target in {"help", "setup", "clean"}, f"README does not name make {target}"


@pytest.mark.ingest
def test_every_ingest_command_and_flag_has_help_and_stands_in_a_readme() -> None:
    typer = pytest.importorskip("typer", reason="needs the ingest extra")
    from ingest.cli import app

    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        assert f"ingest {name}" in MANUALS
        for option in command.params:
            assert option.help, f"{name} {option.opts}"
            assert option.opts[-1] in MANUALS, f"no README names {option.opts[-1]} of ingest {name}"


@pytest.mark.ingest
def test_ingest_help_is_light() -> None:
    pytest.importorskip("typer", reason="needs the ingest extra")
    code = (
        "import sys, ingest.cli; print([m for m in ('rasterio', 'zarr', 'distributed', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).strip() == "[]"
