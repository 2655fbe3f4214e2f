"""The same ground out of every format: polygons written by other libraries, in degrees and in metres."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapefile
import shapely
from pyproj import CRS, Transformer

from ingest.areas import vectors
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

HOLED = shapely.Polygon(
    [(10, 48), (11, 48), (11, 49), (10, 49)], [[(10.4, 48.4), (10.6, 48.4), (10.6, 48.6), (10.4, 48.6)]]
)
PARTS = shapely.MultiPolygon([shapely.box(12, 48, 12.2, 48.2), shapely.box(12.5, 48, 12.7, 48.1)])
NAMES = ["Zürich", "北京"]


def _geoparquet(path: Path, geometries: list[Any], *, crs: Any = "absent", **column: Any) -> Path:
    meta = {"encoding": "WKB", "geometry_types": []} | ({} if crs == "absent" else {"crs": crs}) | column
    geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": meta}}
    table = pa.table({"Name": NAMES[: len(geometries)], "shape": [shapely.to_wkb(one) for one in geometries]})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def _shapefile(path: Path, geometries: list[Any], *, crs: CRS | None, encoding: str = "utf-8") -> Path:
    with shapefile.Writer(str(path), shapeType=shapefile.POLYGON, encoding=encoding) as writer:
        writer.field("name", "C", 80)
        for name, geometry in zip(NAMES, geometries, strict=False):
            writer.shape(
                shapely.geometry.mapping(
                    shapely.geometry.polygon.orient(geometry, -1) if hasattr(geometry, "exterior") else geometry
                )
            )
            writer.record(name)
    if crs:
        path.with_suffix(".prj").write_text(crs.to_wkt("WKT1_ESRI"))
    return path


def _geojson(path: Path, geometries: list[Any], *, crs: CRS | None = None) -> Path:
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": shapely.geometry.mapping(geometry)}
        for name, geometry in zip(NAMES, geometries, strict=False)
    ]
    document: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        document["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs.to_epsg()}"}}
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def _metres(geometry: Any, crs: CRS) -> Any:
    to_metres = Transformer.from_crs(4326, crs, always_xy=True)
    dense = shapely.segmentize(geometry, 0.01)
    return shapely.transform(dense, lambda xy: shapely.get_coordinates(shapely.points(*to_metres.transform(*xy.T))))


WRITERS: dict[str, Callable[[Path, list[Any], CRS], Path]] = {
    "a.parquet": lambda path, shapes, crs: _geoparquet(path, shapes, crs=crs.to_json_dict()),
    "b.geoparquet": lambda path, shapes, crs: _geoparquet(path, shapes, crs=crs.to_json_dict()),
    "c.shp": lambda path, shapes, crs: _shapefile(path, shapes, crs=crs),
    "d.geojson": lambda path, shapes, crs: _geojson(path, shapes, crs=crs),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("epsg", [4326, 32632, 3035])
def test_every_format_and_crs_gives_the_same_ground(name: str, epsg: int, tmp_path: Path) -> None:
    crs = CRS.from_epsg(epsg)
    shapes = [HOLED, PARTS] if epsg == 4326 else [_metres(HOLED, crs), _metres(PARTS, crs)]
    found = vectors.read(WRITERS[name](tmp_path / name, shapes, crs))
    assert [one[0] for one in found] == NAMES
    for (_, geometry), want in zip(found, (HOLED, PARTS), strict=True):
        assert geometry.symmetric_difference(want).area < 1e-6
        assert geometry.is_valid


def test_silence_about_the_crs_means_degrees(tmp_path: Path) -> None:
    ((_, one),) = vectors.read(_geoparquet(tmp_path / "a.parquet", [HOLED]))
    ((_, two),) = vectors.read(_shapefile(tmp_path / "b.shp", [HOLED], crs=None))
    assert one.equals(HOLED)
    assert two.equals(HOLED)


def test_long_edges_of_a_projection_stay_straight_there(tmp_path: Path) -> None:
    """A rectangle of 1,000 km in metres: its edges are curves in degrees."""
    crs = CRS.from_epsg(3035)
    box = shapely.box(3_800_000, 2_500_000, 4_800_000, 3_500_000)
    ((_, found),) = vectors.read(_geoparquet(tmp_path / "a.parquet", [box], crs=crs.to_json_dict()))
    back = Transformer.from_crs(crs, 4326, always_xy=True)
    middle = back.transform(4_300_000, 2_500_000 + 1_000)
    outside = back.transform(4_300_000, 2_500_000 - 1_000)
    assert shapely.contains_xy(found, *middle)
    assert not shapely.contains_xy(found, *outside)


def test_a_code_page_is_honoured(tmp_path: Path) -> None:
    path = _shapefile(tmp_path / "a.shp", [HOLED], crs=None, encoding="latin-1")
    path.with_suffix(".cpg").write_text("ISO-8859-1")
    assert vectors.read(path)[0][0] == "Zürich"


def _bad(path: Path, kind: str) -> Path:
    if kind == "not parquet":
        path.write_bytes(b"PAR1 no")
    elif kind == "no geo":
        pq.write_table(pa.table({"a": [1]}), path)
    elif kind == "crs unknown":
        _geoparquet(path, [HOLED], crs=None)
    elif kind == "crs nonsense":
        _geoparquet(path, [HOLED], crs={"type": "nonsense"})
    elif kind == "native points":
        _geoparquet(path, [HOLED], encoding="point")
    elif kind == "not WKB":
        geo = {"primary_column": "shape", "columns": {"shape": {"encoding": "WKB"}}}
        table = pa.table({"shape": [b"\x01\x02"]}).replace_schema_metadata({"geo": json.dumps(geo)})
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("kind", ["not parquet", "no geo", "crs unknown", "crs nonsense", "native points", "not WKB"])
def test_bad_geoparquet(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as GeoParquet"):
        vectors.read(_bad(tmp_path / "a.parquet", kind))


@pytest.mark.parametrize("kind", ["empty", "cut", "bad prj", "bad code page"])
def test_bad_shapefiles(kind: str, tmp_path: Path) -> None:
    path = _shapefile(tmp_path / "a.shp", [HOLED], crs=None)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:120])
    elif kind == "bad prj":
        path.with_suffix(".prj").write_text("PROJCS[nonsense")
    else:
        path.with_suffix(".cpg").write_text("klingon")
    with pytest.raises(UsageError, match="cannot be read as a shapefile"):
        vectors.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        vectors.read(tmp_path / "nowhere.shp")
