"""Areas and dates at the door: what is let in, and one clear message for everything else."""

import json
import unicodedata
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from ingest.areas.aoi import Aoi, DateRange, parse_aoi, parse_dates
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

SQUARE = {"type": "Polygon", "coordinates": [[[10, 48], [11, 48], [11, 49], [10, 49], [10, 48]]]}
BOW_TIE = {"type": "Polygon", "coordinates": [[[10, 48], [11, 49], [11, 48], [10, 49], [10, 48]]]}


def _write(folder: Path, document: Any) -> str:
    path = folder / "area.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def _feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties or None, "geometry": geometry}


def test_a_box() -> None:
    (area,) = parse_aoi("10, 48,11.5,49")
    assert area.geometry.equals(shapely.box(10, 48, 11.5, 49))
    assert area.name == "bbox"


@pytest.mark.parametrize(
    ("document", "names"),
    [
        (SQUARE, ["area-0"]),
        (_feature(SQUARE), ["area-0"]),
        (_feature(SQUARE, name="Lech"), ["Lech"]),
        ({"type": "FeatureCollection", "features": [_feature(SQUARE, name="a"), _feature(SQUARE)]}, ["a", "area-1"]),
    ],
)
def test_geojson_of_every_kind(document: Any, names: list[str], tmp_path: Path) -> None:
    areas = parse_aoi(_write(tmp_path, document))
    assert [area.name for area in areas] == names
    assert all(area.geometry.equals(shapely.box(10, 48, 11, 49)) for area in areas)


def test_multipolygons_holes_and_heights(tmp_path: Path) -> None:
    hole = [[10.4, 48.4], [10.6, 48.4], [10.6, 48.6], [10.4, 48.4]]
    tall = [[*point, 500.0] for point in SQUARE["coordinates"][0]]
    document = {
        "type": "MultiPolygon",
        "coordinates": [[SQUARE["coordinates"][0], hole], [[[x + 5, y] for x, y in hole]]],
    }
    (area,) = parse_aoi(_write(tmp_path, document))
    assert area.geometry.geom_type == "MultiPolygon"
    assert len(area.geometry.geoms[0].interiors) == 1
    (high,) = parse_aoi(_write(tmp_path, {"type": "Polygon", "coordinates": [tall]}))
    assert high.geometry.area == pytest.approx(1)


def test_a_parsed_area_is_the_area_again() -> None:
    (area,) = parse_aoi("10.123456789012345,48,11,49")
    assert area == Aoi(name="bbox", wkt=area.geometry.wkt)


BAD_FILES = {
    "not JSON": ("{", "cannot be read as GeoJSON"),
    "not GeoJSON": ({"a": 1}, "not GeoJSON"),
    "a list": ([1, 2], "not GeoJSON"),
    "a number": ("3", "not GeoJSON"),
    "null": ("null", "not GeoJSON"),
    "empty": ({"type": "FeatureCollection", "features": []}, "holds no polygon"),
    "no features": ({"type": "FeatureCollection", "features": None}, "holds no polygon"),
    "features are words": ({"type": "FeatureCollection", "features": ["x"]}, "not GeoJSON"),
    "no geometry": ({"type": "Feature", "properties": {}}, "not GeoJSON"),
    "null geometry": (_feature(None), "not GeoJSON"),
    "null among others": ({"type": "FeatureCollection", "features": [_feature(SQUARE), _feature(None)]}, "not GeoJSON"),
    "point": ({"type": "Point", "coordinates": [10, 48]}, "is a Point"),
    "line": ({"type": "LineString", "coordinates": [[10, 48], [11, 48]]}, "is a LineString"),
    "collection": ({"type": "GeometryCollection", "geometries": [SQUARE]}, "is a GeometryCollection"),
    "crosses itself": (BOW_TIE, "Self-intersection"),
    "empty polygon": ({"type": "Polygon", "coordinates": []}, "area-0|not GeoJSON"),
    "no area": ({"type": "Polygon", "coordinates": [[[10, 48], [11, 48], [10, 48], [10, 48]]]}, "not a valid polygon"),
    "words": ({"type": "Polygon", "coordinates": [[["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]]}, "not GeoJSON"),
    "metres": ({"type": "Polygon", "coordinates": [[[5e5, 5e6], [6e5, 5e6], [6e5, 6e6], [5e5, 5e6]]]}, "not degrees"),
    "pole": ({"type": "Polygon", "coordinates": [[[10, 83], [11, 83], [11, 85], [10, 83]]]}, "-80 to 84"),
    "south pole": ({"type": "Polygon", "coordinates": [[[10, -85], [11, -85], [11, -79], [10, -85]]]}, "-80 to 84"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    document, match = BAD_FILES[name]
    with pytest.raises(UsageError, match=match):
        parse_aoi(_write(tmp_path, document))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("nowhere.geojson", "neither a file"),
        ("", "neither a file"),
        ("1,2,3", "3 numbers"),
        ("1,2,3,4,5", "5 numbers"),
        ("11,48,10,49", "west must be below east"),
        ("10,49,11,48", "south below north"),
        ("10,48,10,49", "west must be below east"),
        ("1,48,-178,49", "antimeridian"),
        ("170,0,-200,1", "antimeridian"),
        ("nan,0,1,1", "west must be below east"),
        ("-inf,0,inf,1", "not degrees|not a valid polygon"),
        ("170,0,541,1", "not degrees"),
        ("-181,0,180,1", "not degrees"),
        ("10,83,11,89", "-80 to 84"),
        ("10,-89,11,-79", "-80 to 84"),
    ],
)
def test_bad_boxes(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        parse_aoi(text)


@pytest.mark.parametrize("text", ["179,-17,-178,-16", "179,-17,182,-16", "-181,-17,-178,-16"])
def test_a_box_across_the_antimeridian_has_two_sides(text: str) -> None:
    (area,) = parse_aoi(text)
    want = shapely.union_all([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -178, -16)])
    assert area.geometry.equals(want)
    assert area == Aoi(name="bbox", wkt=area.geometry.wkt)


def test_geojson_across_the_antimeridian(tmp_path: Path) -> None:
    ring = [[179, 0], [-178, 0], [-178, 2], [179, 2], [179, 0]]
    hole = [[179.5, 0.5], [-179.5, 0.5], [-179.5, 1.5], [179.5, 1.5], [179.5, 0.5]]
    (area,) = parse_aoi(_write(tmp_path, {"type": "Polygon", "coordinates": [ring, hole]}))
    assert area.geometry.area == pytest.approx(3 * 2 - 1)
    assert area.geometry.bounds == (-180, 0, 180, 2)


def test_mgrs_tiles() -> None:
    areas = parse_aoi("mgrs:33TWL, 33twm")
    assert [area.name for area in areas] == ["33TWL", "33TWM"]
    east, south = 500000.0, 5100000.0  # in both tiles: 33TWL ends at the top there, 33TWM reaches 9,780 m below it
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(east + 30_000, south - 5_000)
    assert all(shapely.contains_xy(area.geometry, lon, lat) for area in areas)
    exact, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(areas[0].geometry))
    assert exact == pytest.approx(109_800**2, rel=1e-3)


CITIES = "name;lat;lon\nZürich;47.37;8.54\nSão Tomé;0.33;6.73\n北京;39.9;116.4\nSuva;-18.1;178.4\n"


def test_points_become_discs(tmp_path: Path) -> None:
    path = tmp_path / "cities.csv"
    path.write_text(CITIES, encoding="utf-8")
    areas = parse_aoi(str(path), around_m=200_000)
    assert [area.name for area in areas] == ["Zürich", "São Tomé", "北京", "Suva"]
    for area, (lon, lat) in zip(areas, [(8.54, 47.37), (6.73, 0.33), (116.4, 39.9), (178.4, -18.1)], strict=True):
        for degrees in range(0, 360, 7):
            for metres, inside in ((199_000, True), (201_000, False)):
                x, y, _ = Geod(ellps="WGS84").fwd(lon, lat, degrees, metres)
                assert shapely.contains_xy(area.geometry, x, y) == inside
    assert areas[3].geometry.bounds[0] == -180  # Fiji reaches across


def test_a_place_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cities.csv"
    path.write_text(CITIES, encoding="utf-8")
    for name in ("Zürich", unicodedata.normalize("NFD", "Zürich"), " Zürich"):
        (area,) = parse_aoi(f"{path}#{name}", around_m=100)
        assert shapely.contains_xy(area.geometry, 8.54, 47.37)
    with pytest.raises(UsageError, match=r"no place of that name. The nearest of 4: Zürich"):
        parse_aoi(f"{path}#Zurich", around_m=100)
    areas = _write(tmp_path, {"type": "FeatureCollection", "features": [_feature(SQUARE, name=n) for n in "aba"]})
    assert [area.name for area in parse_aoi(f"{areas}#a")] == ["a", "a"]


def test_a_file_whose_own_name_has_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "a#b.geojson"
    path.write_text(json.dumps(SQUARE))
    assert len(parse_aoi(str(path))) == 1


def test_points_without_a_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cities.csv"
    path.write_text(CITIES, encoding="utf-8")
    with pytest.raises(UsageError, match=r"'Zürich' is a Point.*--around 5km"):
        parse_aoi(str(path))


def test_a_disc_that_reaches_the_pole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "north.csv"
    path.write_text("10,83.9")
    with pytest.raises(UsageError, match="-80 to 84"):
        parse_aoi(str(path), around_m=50_000)


def test_a_folder_is_no_area(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        parse_aoi(str(tmp_path))


def test_geojson_itself_is_no_path() -> None:
    inline = json.dumps(_feature(SQUARE, notes="x" * 5000))
    with pytest.raises(UsageError, match="neither a file") as told:
        parse_aoi(inline)
    assert len(str(told.value)) < 200


def test_one_day_alone_is_told_what_a_range_is() -> None:
    with pytest.raises(UsageError, match=r"'2024-06-01': write START/END"):
        parse_dates("2024-06-01")


def test_dates() -> None:
    assert parse_dates("2023-01-01/2023-03-31") == DateRange(start=date(2023, 1, 1), end=date(2023, 3, 31))
    assert parse_dates("2023-01-01/..") == DateRange(start=date(2023, 1, 1), end=None)
    assert parse_dates("../2023-01-01") == DateRange(start=None, end=date(2023, 1, 1))
    assert parse_dates(None) == parse_dates("") == parse_dates("../..") == DateRange(start=None, end=None)
    assert parse_dates("2023-01-01/2023-01-01").start == date(2023, 1, 1)
    assert parse_dates("2023-01-01/2023-03-31").stac() == "2023-01-01/2023-03-31"
    assert parse_dates("2023-01-01/..").stac() == "2023-01-01/.."
    assert parse_dates(None).stac() is None


@pytest.mark.parametrize(
    "text", ["2023-01-01", "2023-03-31/2023-01-01", "yesterday/today", "2023-02-30/..", "a/b/c", "2023-01-01/", "/"]
)
def test_bad_dates(text: str) -> None:
    with pytest.raises(UsageError, match="--dates"):
        parse_dates(text)


_DAYS = st.dates(min_value=date(2020, 1, 1), max_value=date(2020, 1, 20))
_MOMENTS = st.datetimes(datetime(2019, 12, 30), datetime(2020, 1, 22), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.none() | _DAYS, st.none() | _DAYS, _MOMENTS, st.integers(0, 72))
def test_contains_is_a_plain_loop_over_days(start: date | None, end: date | None, first: datetime, hours: int) -> None:
    last = first + timedelta(hours=hours)
    days = {(first + timedelta(hours=i)).date() for i in range(hours + 1)} | {last.date()}
    inside = any((start is None or day >= start) and (end is None or day <= end) for day in days)
    if start is None or end is None or start <= end:
        assert DateRange(start=start, end=end).contains(first, last) == inside


def test_both_ends_are_included() -> None:
    day = parse_dates("2023-06-10/2023-06-10")
    for text, inside in (
        ("09T23:59:59.999", False),
        ("10T00:00:00", True),
        ("10T23:59:59.999", True),
        ("11T00:00", False),
    ):
        moment = datetime.fromisoformat(f"2023-06-{text}+00:00")
        assert day.contains(moment, moment) == inside
