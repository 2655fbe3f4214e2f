"""The Dockerfile keeps to hadolint, and copies and installs what is there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not here: install the dev extra")
    done = subprocess.run(
        [hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists() -> None:
    sources = [
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    assert sources
    for name in sources:
        assert (ROOT / name).exists(), name


def test_extras_and_targets_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"--extra (\w+)", DOCKERFILE)) <= set(project["optional-dependencies"])
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert {"ingest", "train", "dev"} <= stages


def test_images_manifests_and_citation_have_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    manifests = "\n".join(path.read_text() for path in (ROOT / "infra").rglob("*.yaml"))
    told = {
        *re.findall(r"image\.version=(\S+)", DOCKERFILE),
        *re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE),
        *re.findall(r"image: sentinel-pretrain/\w+:(\S+)$", manifests, re.MULTILINE),
    }
    assert told == {version}


def test_a_run_in_an_image_knows_the_revision() -> None:
    revision = (ROOT / "train" / "revision.py").read_text()
    (variable,) = re.findall(r"^ENV (\w+)=\$REVISION$", DOCKERFILE, re.MULTILINE)
    assert f'VARIABLE = "{variable}"' in revision
