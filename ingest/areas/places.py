"""Lists of places: a text file of longitudes and latitudes, with or without names and a header.

In: CSV or TXT, separated by commas, semicolons, tabs or blanks. Out: names and points in degrees.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError

SUFFIXES = (".csv", ".txt", ".tsv")
_HEADERS = {
    "lon": ("lon", "long", "lng", "longitude", "x"),
    "lat": ("lat", "latitude", "y"),
    "name": ("name", "place", "city", "title", "id"),
}
"""Names of columns, the preferred first; upper and lower case are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One line of a list."""

    name: str
    """From the file, or its stem and the position in it."""
    lon: float
    """Degrees."""
    lat: float
    """Degrees."""


def read(path: Path) -> list[Place]:
    """The places of a text file. Without a header the columns are longitude, latitude and, if there, name.

    Raises:
        UsageError: no text, no numbers, or numbers that are no degrees; with the line.
    """
    lines = [(i, line) for i, line in enumerate(_text(path).splitlines(), start=1) if line.strip()]
    rows = [(i, row) for i, row in _rows(lines) if not row[0].startswith("#")]
    if not rows:
        raise UsageError(f"{path} holds no place. Write a line `lon,lat,name` for each.")
    columns = _columns(rows[0][1], path)
    body = rows[1:] if columns else rows
    if not body:
        raise UsageError(f"{path} has a header and no place. Write a line for each.")
    columns = columns or {"lon": 0, "lat": 1, "name": 2}
    return [_place(row, columns, f"{path} line {i}", f"{path.stem}-{n}") for n, (i, row) in enumerate(body)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}. Save it as UTF-8.") from error


def _rows(lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line, by the separator that the first one has."""
    first = next((line for _, line in lines if not line.startswith("#")), "")
    separator = next((mark for mark in "\t;," if mark in first), " ")
    reader = csv.reader((line.strip() for _, line in lines), delimiter=separator, skipinitialspace=True)
    for (i, _), row in zip(lines, reader, strict=False):
        yield i, [field.strip() for field in row]


def _columns(row: Sequence[str], path: Path) -> dict[str, int] | None:
    """Where longitude, latitude and name stand, if the row is a header."""
    if len(row) > 1 and all(_number(field) is not None for field in row[:2]):
        return None
    lower = [field.lower() for field in row]
    found = {key: next((lower.index(name) for name in names if name in lower), -1) for key, names in _HEADERS.items()}
    if min(found["lon"], found["lat"]) < 0:
        raise UsageError(
            f"{path}: {','.join(row)!r} is neither numbers nor a header with lon and lat. "
            "Write lon,lat or lon,lat,name in each line, longitude first."
        )
    return found


def _place(row: Sequence[str], columns: dict[str, int], where: str, fallback: str) -> Place:
    lon, lat = (_number(row[columns[key]] if columns[key] < len(row) else "") for key in ("lon", "lat"))
    if lon is None or lat is None:
        raise UsageError(f"{where}: {','.join(row)!r} has no longitude and latitude. Write two numbers in degrees.")
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise UsageError(f"{where}: {lon}, {lat} are not degrees. Longitude comes first, then latitude.")
    at = columns["name"]
    return Place(name=(row[at] if 0 <= at < len(row) else "") or fallback, lon=lon, lat=lat)


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
