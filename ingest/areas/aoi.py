"""What the user asks for: areas and dates, parsed and checked at the door.

In: the text of `--aoi` and `--dates`. Out: `Aoi` and `DateRange`. Knows no catalog and no pixel.
"""

import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from ingest.areas import antimeridian, mgrs, vectors
from pipeline.errors import UsageError

UTM_LATITUDES = (-80.0, 84.0)
"""Degrees. UTM is defined between them."""
SPOT_M = 5.0
"""Metres. Radius of a point that only marks the middle of a chip."""
_DISC_CORNERS = 64
_SHOWN = 80
"""Characters of an area that a message shows."""
_GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aoi:
    """One polygon or multipolygon that the user wants covered."""

    name: str
    """From the file's `name`, or the position in the file; a tile's name."""
    wkt: str
    """EPSG:4326, longitude first, -180 to 180: an area across the antimeridian has parts on both sides."""

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
    if not slash:
        raise UsageError(f"--dates {text!r}: write START/END as 2023-01-01/2023-03-31, .. for open.")
    try:
        start, end = (None if part == ".." else date.fromisoformat(part) for part in (start_text, end_text))
    except ValueError as error:
        raise UsageError(
            f"--dates {text!r}: {error}. Write START/END as 2023-01-01/2023-03-31, .. for open."
        ) from error
    if start and end and end < start:
        raise UsageError(f"--dates {text!r}: the end must not lie before the start. Swap them.")
    return DateRange(start=start, end=end)


def parse_aoi(text: str, *, around_m: float | None = None) -> tuple[Aoi, ...]:
    """The areas that one `--aoi` names.

    Args:
        text: a box `west,south,east,north` in degrees, `mgrs:33TWL,33TWM`, or a file of polygons or points;
            `FILE#NAME` takes those of that name.
        around_m: metres. Radius of the disc that a point becomes; None refuses points.

    Raises:
        UsageError: no such file, tile or name, not areas, or a polygon that crosses itself.
    """
    if text.startswith("mgrs:"):
        tiles = [name.strip().upper() for name in text.removeprefix("mgrs:").split(",")]
        return tuple(_checked(name, mgrs.outline(mgrs.tile(name)), around_m) for name in tiles)
    box = _parse_box(text)
    if box:
        return (_checked("bbox", box, around_m),)
    areas = tuple(_checked(name, geometry, around_m) for name, geometry in _from_file(text))
    if not areas:
        raise UsageError(f"--aoi {text!r} holds no polygon. Draw at least one.")
    return areas


def _parse_box(text: str) -> BaseGeometry | None:
    parts = text.split(",")
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return None
    if len(numbers) != 4:
        raise UsageError(f"--aoi {text!r} has {len(numbers)} numbers. A box is west,south,east,north in degrees.")
    west, south, east, north = numbers
    crosses = 0 < east + 360 - west <= 180 and max(west, -east) <= 180
    if not ((west < east or crosses) and south < north):
        raise UsageError(
            f"--aoi {text!r}: west must be below east and south below north. "
            "Only a box across the antimeridian, at most 180 degrees wide, has west above east: 179,-17,-179,-16."
        )
    return shapely.box(west, south, east + 360 * crosses, north)


def _from_file(text: str) -> list[vectors.Named]:
    """Geometries of `FILE` or of `FILE#NAME`, a name counting as the same however its accents are encoded."""
    if _is_there(text):
        return vectors.read(Path(text))
    path, mark, name = text.rpartition("#")
    if not mark or not _is_there(path):
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise UsageError(f"--aoi {shown!r} is neither a file nor west,south,east,north. Check the path.")
    found = vectors.read(Path(path))
    chosen = [one for one in found if _normal(one[0]) == _normal(name)]
    if not chosen:
        near = get_close_matches(name, [one[0] for one in found], n=3, cutoff=0.0)
        raise UsageError(f"--aoi {text!r}: no place of that name. The nearest of {len(found)}: {', '.join(near)}.")
    return chosen


def _is_there(path: str) -> bool:
    try:
        return bool(path) and Path(path).exists()
    except OSError:  # no file has so long a name: GeoJSON itself was given
        return False


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _checked(name: str, geometry: BaseGeometry, around_m: float | None) -> Aoi:
    if geometry.geom_type in {"Point", "MultiPoint"} and around_m is not None and not geometry.is_empty:
        geometry = _discs(geometry, around_m)
    if geometry.geom_type not in {"Polygon", "MultiPolygon"}:
        raise UsageError(
            f"area {name!r} is a {geometry.geom_type}; it must be a Polygon or MultiPolygon. "
            "Points need a size, --around 5km, or --grid aoi, which puts one chip on each."
        )
    west, south, east, north = geometry.bounds
    far = antimeridian.FAR_DEG
    if not (-far <= west <= east <= min(far, west + 360) and -90 <= south <= north <= 90):
        raise UsageError(
            f"area {name!r} spans {geometry.bounds}, which are not degrees. Use EPSG:4326, longitude first."
        )
    if south < UTM_LATITUDES[0] or north > UTM_LATITUDES[1]:
        raise UsageError(f"area {name!r} reaches latitude {south} to {north}; UTM cells exist from -80 to 84 only.")
    try:
        geometry = antimeridian.cut(geometry)
    except ValueError as error:
        raise UsageError(f"area {name!r} is not a valid polygon: {error}. Repair it and try again.") from error
    if not geometry.is_valid or geometry.area == 0:
        raise UsageError(
            f"area {name!r} is not a valid polygon: {explain_validity(geometry)}. Repair it and try again."
        )
    return Aoi(name=name, wkt=geometry.wkt)


def _discs(points: BaseGeometry, radius_m: float) -> BaseGeometry:
    """What lies within `radius_m` of points in degrees, on the ellipsoid; longitudes may pass 180."""
    lon, lat = (np.repeat(axis, _DISC_CORNERS) for axis in shapely.get_coordinates(points).T)
    azimuths = np.tile(np.linspace(0, 360, _DISC_CORNERS, endpoint=False), len(lon) // _DISC_CORNERS)
    x, y, _ = _GEOD.fwd(lon, lat, azimuths, np.full(len(lon), radius_m))
    corners = np.column_stack([lon + (x - lon + 180) % 360 - 180, y]).reshape(-1, _DISC_CORNERS, 2)
    return shapely.union_all([antimeridian.cut(disc) for disc in shapely.polygons(corners)])
