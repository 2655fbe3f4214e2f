"""The rows of a run as columns: those of hundreds of thousands of steps take megabytes, as mappings gigabytes.

Axes: N steps.
"""

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store import Store

Floats = NDArray[np.float64]
_NUMBERS = frozenset({bool, int, float})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """What was written down of each step, in order."""

    columns: Mapping[str, Floats]
    """(N,) by name: `step`, `loss`, `parts.mae`, `pace.seconds`; NaN where a row has none. Texts are left out."""
    broken: int
    """Lines that are no row: a kill cuts the last one short."""

    def __len__(self) -> int:
        """N."""
        return len(self.columns.get("step", ()))

    def column(self, name: str) -> Floats:
        """(N,) of that name; NaN where nobody wrote it."""
        return self.columns[name] if name in self.columns else np.full(len(self), nan)

    def within(self, part: str) -> list[str]:
        """Names of what stands in one part of a row: of `parts`, of `pace`."""
        return [name.removeprefix(f"{part}.") for name in self.columns if name.startswith(f"{part}.")]


def read(store: Store, name: str) -> History:
    """The rows of a file of JSON lines; none where there is no such file."""
    try:
        lines = BytesIO(store.read(name))
    except FileNotFoundError:
        return History(columns={}, broken=0)
    found: dict[str, array[float]] = {"step": array("d")}
    count = broken = 0
    for line in lines:
        row = _row(line)
        if row is None:
            broken += bool(line.strip())
            continue
        for field, value in _numbers(row):
            column = found.get(field) or found.setdefault(field, array("d"))
            if len(column) < count:
                column.extend([nan] * (count - len(column)))
            column.append(value)
        count += 1
    for column in found.values():
        column.extend([nan] * (count - len(column)))
    return History(columns={field: np.array(column) for field, column in found.items()}, broken=broken)


def _row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, Mapping) and "step" in row else None


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if type(value) is dict:
            yield from ((f"{name}.{inner}", one) for inner, one in value.items() if type(one) in _NUMBERS)
        elif type(value) in _NUMBERS:
            yield name, value
