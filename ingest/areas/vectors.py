"""Named geometries out of files: GeoJSON, GeoParquet, shapefiles and lists of places, all as longitude and latitude.

In: a path. Out: names and shapely geometries in degrees, longitude first, as the file has them; nothing is judged here.
"""

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ingest.areas import places
from pipeline.errors import UsageError

Named = tuple[str, BaseGeometry]
_DEGREES = CRS.from_user_input("OGC:CRS84")
_CURVE = 64
"""Points that the longest side of a projected geometry gets, so that its straight edges stay where they were."""
_BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError, shapely.errors.GEOSException, ProjError)


def read(path: Path) -> list[Named]:
    """Geometries of a file, by its suffix; GeoJSON where it has none of those known.

    Raises:
        UsageError: no such file, or not of that format.
    """
    if not path.exists():
        raise UsageError(f"{path} is not there. Check the path.")
    suffix = path.suffix.lower()
    if suffix in places.SUFFIXES:
        return [(place.name, shapely.Point(place.lon, place.lat)) for place in places.read(path)]
    if suffix in {".parquet", ".geoparquet"}:
        return list(_geoparquet(path))
    return list(_shapefile(path)) if suffix == ".shp" else _geojson(path)


def _geojson(path: Path) -> list[Named]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as GeoJSON: {error}.") from error
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        features = document.get("features") or []
    else:
        features = [document if kind == "Feature" else {"geometry": document, "properties": {}}]
    try:
        crs = _crs((document.get("crs") or {}).get("properties", {}).get("name"))
        return [
            (_name(feature.get("properties") or {}, path, i), _in_degrees(shape(feature["geometry"]), crs))
            for i, feature in enumerate(features)
        ]
    except _BROKEN as error:
        raise UsageError(f"{path.name} is not GeoJSON with geometries: {error}. Validate the file.") from error


def _geoparquet(path: Path) -> Iterator[Named]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        geo = json.loads(table.schema.metadata[b"geo"])
        column = geo["columns"][geo["primary_column"]]
        if column["encoding"] != "WKB":
            raise ValueError(f"geometries are encoded as {column['encoding']}, not as WKB")
        if "crs" in column and column["crs"] is None:
            raise ValueError("the file says that its CRS is unknown")
        crs = _crs(column.get("crs"))
        geometries = shapely.from_wkb(table[geo["primary_column"]].to_pylist())
        others = [name for name in table.column_names if name.lower() == "name"]
        rows = table.select(others).to_pylist()
        for i, geometry in enumerate(geometries):
            yield _name(rows[i], path, i), _in_degrees(geometry, crs)
    except (*_BROKEN, OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as GeoParquet: {error}. Write it with GeoPandas or QGIS.") from error


def _shapefile(path: Path) -> Iterator[Named]:
    import shapefile

    try:
        crs = _crs(path.with_suffix(".prj").read_text() if path.with_suffix(".prj").exists() else None)
        code_page = path.with_suffix(".cpg")
        encoding = code_page.read_text().strip() if code_page.exists() else "utf-8"
        with warnings.catch_warnings(action="error"), shapefile.Reader(str(path), encoding=encoding) as reader:
            for i, entry in enumerate(reader.iterShapeRecords()):
                fields = entry.record.as_dict() if reader.dbf else {}
                yield _name(fields, path, i), _in_degrees(shape(entry.shape.__geo_interface__), crs)
    except (*_BROKEN, OSError, LookupError, struct.error, Warning, shapefile.ShapefileException) as error:
        raise UsageError(f"{path} cannot be read as a shapefile: {error}. It needs .shp, .shx and .prj.") from error


def _name(properties: dict[str, Any], path: Path, i: int) -> str:
    found = next((value for key, value in properties.items() if key.lower() == "name" and value), None)
    return str(found or f"{path.stem}-{i}").strip()


def _crs(said: Any) -> CRS | None:
    """The CRS of a file, None where it is longitude and latitude on WGS 84, which is what silence means."""
    if not said:
        return None
    crs = CRS.from_user_input(said)
    return None if crs.equals(_DEGREES, ignore_axis_order=True) else crs


def _in_degrees(geometry: BaseGeometry, crs: CRS | None) -> BaseGeometry:
    geometry = shapely.force_2d(geometry)
    if crs is None or geometry.is_empty:
        return geometry
    west, south, east, north = geometry.bounds
    if max(east - west, north - south):
        geometry = shapely.segmentize(geometry, max(east - west, north - south) / _CURVE)
    convert = Transformer.from_crs(crs, _DEGREES, always_xy=True)
    return shapely.transform(geometry, lambda xy: np.column_stack(convert.transform(xy[:, 0], xy[:, 1], errcheck=True)))
