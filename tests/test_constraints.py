"""constraints.txt pins what pyproject.toml asks for, by name and version only."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _requirements() -> list[Requirement]:
    texts = PROJECT["dependencies"] + [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    return [one for one in map(Requirement, texts) if one.name != PROJECT["name"]]


def test_every_dependency_is_pinned_within_its_range() -> None:
    for requirement in _requirements():
        pinned = PINS[requirement.name]
        assert requirement.specifier.contains(pinned), f"{requirement} but {pinned} is pinned"


def test_pins_are_usable_anywhere() -> None:
    for name, pinned in PINS.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name
        assert "+" not in pinned, f"{name}=={pinned} is a local build"


def test_torchvision_is_not_a_dependency() -> None:
    assert "torchvision" not in PINS
