"""Text lines of the Mafengwo and CAMRa2011 files → numbers. A line that is not what it must be is quoted in the error.

userRatingTrain.txt      user item [rating]
groupMember.txt          group member,member,...
userRatingNegative.txt   (user,item) item item ...
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.store import Store
from train.grouprec.interactions import Ints

_NEGATIVES = re.compile(r"\((\d+),(\d+)\)((?:\s+\d+)*)\s*")
_LARGEST = 2**31
"""Above it an id is a slip, and would ask for that many rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line, and where it stands."""

    file: str
    """URL."""
    number: int
    """From 1."""
    text: str
    """Without its end."""

    def refused(self, expected: str) -> UsageError:
        """The error that quotes it."""
        return UsageError(
            f"{self.file}, line {self.number}: {self.text[:80]!r} is not {expected}. Correct or remove the line."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """Lines of `id item [rating]`, in the file's order."""

    ids: Ints
    """(L,)"""
    items: Ints
    """(L,)"""
    liked: NDArray[np.bool_]
    """(L,) Not rated 0, which means seen and not liked."""


def lines(store: Store, name: str) -> Iterator[Line]:
    """Lines that are not blank.

    Raises:
        UsageError: the file is not there.
    """
    try:
        text = store.read(name).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{store.url.rstrip('/')}/{name} is not there. Give a folder in the format of Mafengwo and CAMRa2011, "
            "a .csv or .parquet table, or planted:users=2000."
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield Line(file=f"{store.url.rstrip('/')}/{name}", number=number, text=line)


def rated(store: Store, name: str) -> Rated:
    """Pairs of a train or test file; all lines must have as many columns as the first."""
    rows, columns = [], 0
    for line in lines(store, name):
        fields = _numbers(line, line.text.split(), "`id item` or `id item rating` in whole numbers")
        columns = columns or len(fields)
        if len(fields) not in (2, 3) or len(fields) != columns:
            raise line.refused(f"{columns if columns in (2, 3) else '2 or 3'} numbers, as the lines before it")
        rows.append(fields)
    table = np.array(rows, np.int64).reshape(-1, columns or 2)
    liked = table[:, 2] > 0 if columns == 3 else np.ones(len(table), np.bool_)
    return Rated(ids=table[:, 0], items=table[:, 1], liked=liked)


def members(store: Store, name: str) -> tuple[Ints, Ints]:
    """Groups and users, one pair a membership."""
    groups, users = [], []
    for line in lines(store, name):
        head, _, tail = line.text.strip().partition(" ")
        fields = _numbers(line, [head, *tail.replace(",", " ").split()], "`group member,member,...` in whole numbers")
        groups += [fields[0]] * (len(fields) - 1)
        users += fields[1:]
    return np.array(groups, np.int64), np.array(users, np.int64)


def negatives(store: Store, name: str, tests: Rated) -> Ints:
    """(R, N) Items listed for each test row, which must stand in the test file's order."""
    found: list[list[int]] = []
    for line in lines(store, name):
        match = _NEGATIVES.fullmatch(line.text)
        if match is None:
            raise line.refused("`(id,item) item item ...` in whole numbers")
        at = len(found)
        if at >= len(tests.ids) or (int(match[1]), int(match[2])) != (tests.ids[at], tests.items[at]):
            raise line.refused(f"for row {at + 1} of the test file{_row(tests, at)}")
        found.append(_numbers(line, match[3].split(), "a list of items"))
        if len(found[-1]) != len(found[0]):
            raise line.refused(f"a list of {len(found[0])} items, as in the first line, but of {len(found[-1])}")
    if len(found) != len(tests.ids):
        raise UsageError(
            f"{store.url.rstrip('/')}/{name} has {len(found)} rows, the test file {len(tests.ids)}. "
            "Give both of one split."
        )
    return np.array(found, np.int64).reshape(len(found), -1)


def _row(tests: Rated, at: int) -> str:
    return f", ({tests.ids[at]},{tests.items[at]})" if at < len(tests.ids) else f", which has {len(tests.ids)}"


def _numbers(line: Line, fields: list[str], expected: str) -> list[int]:
    if not all(field.isascii() and field.isdigit() for field in fields):
        raise line.refused(expected)
    numbers = [int(field) for field in fields]
    if any(number >= _LARGEST for number in numbers):
        raise line.refused(f"below {_LARGEST} in every number")
    return numbers
