"""constraints.txt pins what pyproject.toml asks for, by name and version only."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
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


SIDES = {"pipeline": ("s3",), "ingest": ("ingest",), "train": ("train",)}
"""What each package of ours may import: what the project always depends on, and these extras."""


def _imported(package: str) -> set[str]:
    """Everything that its modules import, at their top or within, but the standard library and ourselves."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(SIDES) - set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", SIDES)
def test_what_a_side_imports_is_what_its_extra_installs(package: str) -> None:
    texts = PROJECT["dependencies"] + [one for name in SIDES[package] for one in PROJECT["optional-dependencies"][name]]
    declared, owners = {Requirement(text).name for text in texts}, packages_distributions()
    missing = {name for name in _imported(package) if not declared & set(owners.get(name, ()))}
    assert not missing, f"{package} imports {sorted(missing)}, which pyproject.toml does not name for it"
