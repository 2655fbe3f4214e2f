"""Every command that a document names would be taken: it is given to the real parser, which refuses or does not."""

import argparse
import ast
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from documents import blocks, typed
from harness import ROOT

typer = pytest.importorskip("typer", reason="needs the ingest extra")
launching = pytest.importorskip("accelerate.commands.launch", reason="needs the train extra")

DOCUMENTS = [ROOT / name for name in ("README.md", "ingest/README.md", "train/README.md", "infra/README.md")]
DOCUMENTS += sorted((ROOT / "examples").glob("*.md"))
SCRIPTS = sorted(path for side in ("train", "examples") for path in (ROOT / side).glob("*.py"))
FIRST = re.compile(r"ingest |make( |$)|sbatch .*infra/|(python |accelerate launch .*?|)(train|examples)/\w+\.py")
"""How a line begins that is a command of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A line that somebody may type."""

    where: str
    """The file that names it, from the project's folder."""
    words: tuple[str, ...]
    """As a shell would split it."""

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


class Refused(Exception):
    """A parser does not take the command."""


def _commands(text: str, where: str) -> Iterator[Command]:
    for line in typed(text):
        if FIRST.match(line):
            yield Command(where=where, words=tuple(shlex.split(line, comments=True)))


def _in_blocks(path: Path) -> str:
    return "\n".join(block.text for block in blocks(path))


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _of(path: Path) -> list[Command]:
    text = _docstring(path) if path.suffix == ".py" else _in_blocks(path)
    return list(_commands(text, path.relative_to(ROOT).as_posix()))


COMMANDS = [command for path in (*DOCUMENTS, *SCRIPTS) for command in _of(path)]


def parse(words: tuple[str, ...]) -> None:
    """Give a command to the parser that it would meet.

    Raises:
        Refused: it would end with a usage error, or starts what is not there.
    """
    first, *rest = words
    if first == "ingest":
        _parse_ingest(rest)
    elif first == "make":
        _parse_make(rest)
    elif first == "accelerate":
        _parse_launch(rest[1:])
    elif first == "sbatch":
        _parse_job(rest)
    else:
        _parse_script(*(rest if first == "python" else words))


def _parse_ingest(words: list[str]) -> None:
    from ingest.cli import app

    name, *flags = words
    command = typer.main.get_command(app).commands.get(name)
    if command is None:
        raise Refused(f"there is no `ingest {name}`")
    try:
        command.make_context(name, flags)
    except typer.BadParameter.__base__ as error:  # the UsageError of the click that typer brings
        raise Refused(error.format_message()) from error


def _parse_make(words: list[str]) -> None:
    for word in words:
        if "=" not in word and not re.search(rf"^{re.escape(word)}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
            raise Refused(f"there is no `make {word}`")


def _parse_launch(words: list[str]) -> None:
    asked = _or_refused(partial(launching.launch_command_parser().parse_args, words))
    if asked.config_file is not None and not (ROOT / asked.config_file).exists():
        raise Refused(f"there is no {asked.config_file}")
    _parse_script(asked.training_script, *asked.training_script_args)


def _parse_job(words: list[str]) -> None:
    """What follows the job's file goes to the command that it runs."""
    at = next(number for number, word in enumerate(words) if word.startswith("infra/"))
    if not (ROOT / words[at]).exists():
        raise Refused(f"there is no {words[at]}")
    name, flags = Path(words[at]).stem, words[at + 1 :]
    if name == "ingest":
        _parse_ingest(["build-shards", *flags])
    else:
        _parse_script(f"train/{name}.py", *flags)


class _Parsed(Exception):
    """The parser is content: what the script does next is not wanted."""


def _parse_script(path: str, *words: str) -> None:
    """Begin the script and stop it once its parser has spoken."""
    if not (ROOT / path).exists():
        raise Refused(f"there is no {path}")
    plain = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> None:
        plain(self, args, namespace)  # type: ignore[call-overload]
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        patch.setattr(sys, "argv", [path, *words])
        patch.setattr(sys, "path", [str((ROOT / path).parent), *sys.path])
        with pytest.raises(_Parsed):
            _or_refused(_main(path))


def _or_refused(parser: Callable[[], object]) -> Any:
    try:
        return parser()
    except SystemExit as error:
        raise (Refused("the parser's own words are above") if error.code else _Parsed) from error


@cache
def _main(path: str) -> Callable[[], object]:
    spec = importlib.util.spec_from_file_location(f"typed_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_parser_takes_the_command(command: Command) -> None:
    parse(command.words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_document_names_commands(path: Path) -> None:
    assert _of(path)


@pytest.mark.parametrize(
    "line",
    [
        "ingest build-shard --aoi a --catalog c --out o",
        "ingest plan --aoi a --catalog c --chip 120",
        "ingest plan --catalog c",
        "ingest plan --aoi a --catalog c --grid hexagon",
        "ingest plan --aoi a --catalog c --max-cloud many",
        "python train/croma.py --recipe tiny --data d --out o --step 3",
        "python train/croma.py --recipe huge --data d --out o",
        "python train/croma.py --recipe tiny --data d",
        "python train/crowma.py --recipe tiny --data d --out o",
        "train/probe.py --train t",
        "accelerate launch --config_fil x train/croma.py --recipe tiny --data d --out o",
        "accelerate launch --config_file infra/none.yaml train/croma.py --recipe tiny --data d --out o",
        "accelerate launch train/satmae.py --recipe tiny --data d --out o",
        "python examples/read_shards.py",
        "sbatch --nodes=2 infra/slurm/croma.sbatch --recipe base --data d",
        "sbatch infra/slurm/satmae.sbatch --recipe base --data d --out o",
        "make coffee",
    ],
)
def test_a_wrong_command_is_refused(line: str) -> None:
    (command,) = _commands(line, "here")
    with pytest.raises(Refused):
        parse(command.words)
