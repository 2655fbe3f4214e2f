"""The code blocks of a document, and the lines that a reader would type."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What stands between two fences."""

    where: str
    """The document, from the project's folder."""
    heading: str
    """The last one above it."""
    language: str
    """As the fence names it; empty: commands of a shell, or a drawing."""
    text: str
    """Its lines."""


def blocks(path: Path) -> list[Block]:
    """The code blocks of a Markdown file, in order."""
    where, heading, found = path.relative_to(ROOT).as_posix(), "", []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```|^#+ ([^\n]+)$", path.read_text(), re.DOTALL | re.MULTILINE):
        language, text, title = match.groups()
        heading = title or heading
        if title is None:
            found.append(Block(where=where, heading=heading, language=language, text=text))
    return found


def typed(text: str) -> Iterator[str]:
    """The lines of a shell, those that go on in the next one joined; comments stay."""
    for line in text.replace("\\\n", " ").splitlines():
        if command := line.strip().removeprefix("$ "):
            yield command
