"""What the user asks for: areas and dates, parsed and checked at the door.

In: the text of `--aoi` and `--dates`. Out: `Aoi` and `DateRange`. Knows no catalog and no pixel.
"""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from pipeline.errors import UsageError

UTM_LATITUDES = (-80.0, 84.0)
"""Degrees. UTM is defined between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aoi:
    """One polygon or multipolygon that the user wants covered."""

    name: str
    """From the GeoJSON's `name`, or the position in the file."""
    wkt: str
    """EPSG:4326, longitude first."""

    @property
    def geometry(self) -> BaseGeometry:
        """The area as a shapely geometry in degrees."""
        return shapely.from_wkt(self.wkt)


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRange:
    """Days of acquisition, both ends included; None is open."""

    start: date | None
    """UTC. First day."""
    end: date | None
    """UTC. Last day."""

    def contains(self, first: datetime, last: datetime) -> bool:
        """Whether anything between `first` and `last` lies in the range."""
        after = self.start is None or last.astimezone(UTC).date() >= self.start
        return after and (self.end is None or first.astimezone(UTC).date() <= self.end)

    def stac(self) -> str | None:
        """As a STAC datetime interval; None for all time."""
        if self.start is None and self.end is None:
            return None
        return f"{self.start or '..'}/{self.end or '..'}"


def parse_dates(text: str | None) -> DateRange:
    """`2023-01-01/2023-03-31`; `..` or nothing is open.

    Raises:
        UsageError: not two ISO dates, or reversed.
    """
    start_text, slash, end_text = (text or "../..").partition("/")
    try:
        start, end = (None if part == ".." else date.fromisoformat(part) for part in (start_text, end_text))
    except ValueError as error:
        raise UsageError(
            f"--dates {text!r}: {error}. Write START/END as 2023-01-01/2023-03-31, .. for open."
        ) from error
    if not slash or (start and end and end < start):
        raise UsageError(f"--dates {text!r}: the end must not lie before the start. Swap them.")
    return DateRange(start=start, end=end)


def parse_aoi(text: str) -> tuple[Aoi, ...]:
    """The areas in a GeoJSON file, or one box `west,south,east,north` in degrees.

    Raises:
        UsageError: no such file, not GeoJSON, not areas, or a polygon that crosses itself.
    """
    box = _parse_box(text)
    if box:
        return (_checked("bbox", shapely.box(*box)),)
    path = Path(text)
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"--aoi {text!r} is neither a file nor west,south,east,north. Check the path.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--aoi {text!r} cannot be read as GeoJSON: {error}.") from error
    areas = tuple(_checked(name, geometry) for name, geometry in _features(document, path.stem))
    if not areas:
        raise UsageError(f"--aoi {text!r} holds no polygon. Draw at least one.")
    return areas


def _parse_box(text: str) -> tuple[float, ...] | None:
    parts = text.split(",")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return None
    if len(numbers) != 4:
        raise UsageError(f"--aoi {text!r} has {len(numbers)} numbers. A box is west,south,east,north in degrees.")
    west, south, east, north = numbers
    if not (west < east and south < north):
        raise UsageError(
            f"--aoi {text!r}: west must be below east and south below north. "
            "For a box across the antimeridian give two boxes, one on each side."
        )
    return numbers


def _features(document: Any, stem: str) -> list[tuple[str, BaseGeometry]]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        features = document.get("features") or []
    else:
        features = [document if kind == "Feature" else {"geometry": document, "properties": {}}]
    try:
        return [
            (str((feature.get("properties") or {}).get("name") or f"{stem}-{i}"), shape(feature["geometry"]))
            for i, feature in enumerate(features)
        ]
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.GEOSException) as error:
        raise UsageError(f"{stem} is not GeoJSON with geometries: {error}. Validate the file.") from error


def _checked(name: str, geometry: BaseGeometry) -> Aoi:
    if geometry.geom_type not in {"Polygon", "MultiPolygon"}:
        raise UsageError(f"area {name!r} is a {geometry.geom_type}; it must be a Polygon or MultiPolygon.")
    west, south, east, north = geometry.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise UsageError(
            f"area {name!r} spans {geometry.bounds}, which are not degrees. Use EPSG:4326, longitude first."
        )
    if not geometry.is_valid or geometry.area == 0:
        raise UsageError(
            f"area {name!r} is not a valid polygon: {explain_validity(geometry)}. Repair it and try again."
        )
    if south < UTM_LATITUDES[0] or north > UTM_LATITUDES[1]:
        raise UsageError(f"area {name!r} reaches latitude {south} to {north}; UTM cells exist from -80 to 84 only.")
    return Aoi(name=name, wkt=geometry.wkt)
