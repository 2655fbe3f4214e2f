"""A file of JSON lines that belongs to a run: a row for a step, in order, and none behind the step that is resumed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import SourceError
from pipeline.store import Store


def read(store: Store, name: str) -> list[dict[str, Any]]:
    """The rows of a file; a last line that a kill cut short is left out."""
    try:
        lines = store.read(name).decode(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [row for line in lines if (row := _parse(line)) is not None]


class RowFile:
    """Writes rows: to a local file as they come, to any other store whole at each `publish`."""

    def __init__(self, store: Store, name: str, *, resumed_step: int) -> None:
        """Drop the rows behind `resumed_step` and go on from there."""
        self._store, self._name = store, name
        self._lines = [_line(row) for row in read(store, name) if row["step"] <= resumed_step]
        self._file: TextIO | None = None
        self.publish()
        if store.is_local:
            self._lines = []
            self._file = Path(store.path(name)).open("a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; it has a `step`.

        Raises:
            SourceError: the disk is full.
        """
        line = _line(row)
        if self._file is None:
            self._lines.append(line)
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise SourceError(f"{self._name} of {self._store.url} failed: {error}. Make room, then resume.") from error

    def publish(self) -> None:
        """Make all rows so far readable."""
        if self._file is None:
            self._store.publish(self._name, "".join(self._lines).encode())

    def close(self) -> None:
        """Finish the file."""
        self.publish()
        if self._file is not None:
            self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row
