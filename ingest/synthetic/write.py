"""From scenes to a folder that any STAC reader opens: COGs, items, collections, catalog.json, items.parquet.

In: an AOI and options. Out: `EarthSummary`, and in the folder

```
earth.json              what was asked for: a folder holds one Earth
aoi.geojson             the AOI, ready for `--aoi`
sentinel-2-l2a/ID/      ID.json B01.tif ... B12.tif SCL.tif, hrefs relative to the JSON
sentinel-1-rtc/ID/      ID.json vv.tif vh.tif
*/collection.json
items.parquet           the same items as stac-geoparquet, hrefs relative to the folder it is in
catalog.json            last: no catalog, no Earth
```

A scene's folder appears whole or not at all: a killed run goes on where it was. Keys, properties and grids
are those of Planetary Computer's `sentinel-2-l2a` and `sentinel-1-rtc`; scale, offset and nodata come on top.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rustac
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping

from ingest.synthetic.landscape import sun
from ingest.synthetic.render import S1_NODATA, S2_NODATA, grid_shape, render
from ingest.synthetic.scenes import DEFAULT_DATES, EarthOptions, SceneSpec, earth_scenes, footprint_lonlat
from pipeline.bands import S2_BANDS, Band
from pipeline.errors import UsageError
from pipeline.record import fingerprint, to_json

VERSION = 1
"""Counts up when the same options give other pixels."""

_COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = ("projection/v1.2.0", "raster/v1.1.0", "file/v2.1.0", "sat/v1.0.0")
_SENSOR_EXTENSION = {"s2": "eo/v1.1.0", "s1": "sar/v1.0.0"}
_COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge", "B06": "rededge",
    "B07": "rededge", "B08": "nir", "B8A": "rededge", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
_SCL_SHARES = {
    3: "cloud_shadow", 4: "vegetation", 5: "not_vegetated", 6: "water", 8: "medium_proba_clouds",
    9: "high_proba_clouds", 10: "thin_cirrus", 11: "snow_ice",
}  # fmt: skip
_TITLES = {
    "sentinel-2-l2a": "Synthetic Sentinel-2 Level-2A",
    "sentinel-1-rtc": "Synthetic Sentinel-1 Radiometrically Terrain Corrected (RTC)",
}
_SERIAL_PX = 3_000_000

Item = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarthSummary:
    """What a folder holds after `make_earth`."""

    catalog: Path
    """The static catalog: `DIR/catalog.json`."""
    parquet: Path
    """The same items as stac-geoparquet: `DIR/items.parquet`."""
    aoi: Path
    """The AOI as GeoJSON: `DIR/aoi.geojson`."""
    s2_ids: tuple[str, ...]
    """Sentinel-2 items, by time."""
    s1_ids: tuple[str, ...]
    """Sentinel-1 items, by time."""
    n_bytes: int
    """Bytes of all COGs."""
    n_written: int
    """Scenes that this call rendered; 0 where the Earth was there already."""


def make_earth(
    out: Path,
    *,
    aoi: Polygon | MultiPolygon,
    dates: tuple[date, date] | None = None,
    seed: int = 0,
    noise: bool = True,
    n_dates: int = 4,
    progress: Callable[[str], None] = lambda _: None,
) -> EarthSummary:
    """Write a synthetic Earth around `aoi` into `out`; a second run finishes the first, or does nothing.

    Args:
        out: A folder that is empty, not there, or holds this very Earth.
        aoi: Longitude and latitude in degrees, WGS 84; up to 60 km a side.
        dates: First and last UTC day; None is `DEFAULT_DATES`, across the change of baseline.
        seed: Which Earth. Other seeds have other landscapes, clouds and noise.
        noise: False for the noise-free Earth: no clouds, no speckle, no sensor noise.
        n_dates: Sentinel-2 dates to spread over the range.
        progress: Called with a line after each scene.

    Raises:
        UsageError: the AOI or the dates cannot be met, or `out` holds something else.
    """
    first, last = dates or DEFAULT_DATES
    wkt = shapely.to_wkt(shapely.normalize(aoi), rounding_precision=9)
    options = EarthOptions(aoi_wkt=wkt, first=first, last=last, n_dates=n_dates, seed=seed, noise=noise)
    scenes = earth_scenes(options)
    _claim(out, options)
    missing = [scene for scene in scenes if not _item_path(out, scene).exists()]
    for number, scene_id in enumerate(_written(missing, options, out), 1):
        progress(f"{number}/{len(missing)} {scene_id}")
    items = [json.loads(_item_path(out, scene).read_text()) for scene in scenes]
    if not (out / "catalog.json").exists():
        _write_catalog(out, scenes, items)
    return _summary(out, scenes, items, len(missing))


def write_cog(path: Path, pixels: np.ndarray, *, scene: SceneSpec, gsd_m: int, nodata: float) -> None:
    """One band as a COG: 512 px blocks, deflate with a predictor, overviews down to one block."""
    classes = pixels.dtype == np.uint8
    options = {
        "driver": "COG",
        "blocksize": 512,
        "compress": "deflate",
        "predictor": "yes",
        "overview_resampling": "nearest" if classes else "average",
        "num_threads": 1,
    }
    transform = rasterio.Affine(*_transform(scene, gsd_m))
    place = {"crs": f"EPSG:{scene.epsg}", "transform": transform, "nodata": nodata}
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **options, **place, **size) as target:
        target.write(pixels, 1)


def scene_item(scene: SceneSpec, options: EarthOptions, *, assets: Item, properties: Item) -> Item:
    """The STAC item: what both sensors share, and `properties` of the sensor."""
    footprint = footprint_lonlat(scene)
    left, top = scene.origin_xy_m
    rows, columns = scene.shape_yx
    shared = {
        "datetime": _stamp(scene),
        "proj:epsg": scene.epsg,
        "proj:code": f"EPSG:{scene.epsg}",
        "proj:bbox": [float(left), float(top - 10 * rows), float(left + 10 * columns), float(top)],
        "sat:orbit_state": scene.orbit_state,
        "sat:relative_orbit": scene.relative_orbit,
        "sat:absolute_orbit": scene.absolute_orbit,
        "src:dataset": "ingest.synthetic",
        "src:seed": options.seed,
        "src:noise": options.noise,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            f"https://stac-extensions.github.io/{name}/schema.json"
            for name in (*_EXTENSIONS, _SENSOR_EXTENSION[scene.sensor])
        ],
        "id": scene.scene_id,
        "collection": scene.collection,
        "bbox": _bbox(footprint),
        "geometry": json.loads(json.dumps(mapping(footprint))),
        "properties": shared | properties,
        "links": _item_links("../../catalog.json", "../collection.json"),
        "assets": assets,
    }


def _claim(out: Path, options: EarthOptions) -> None:
    """Make `out` this Earth's, or refuse."""
    label = {"version": VERSION, "fingerprint": fingerprint(options), "options": to_json(options)}
    path = out / "earth.json"
    if path.exists() and json.loads(path.read_text()) != label:
        raise UsageError(f"{out} holds another synthetic Earth (see its earth.json). Give an empty folder.")
    if not path.exists() and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no synthetic Earth. Give an empty folder.")
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        _publish(path, label)
    if not (out / "aoi.geojson").exists():
        _publish(out / "aoi.geojson", _aoi_geojson(options))


def _aoi_geojson(options: EarthOptions) -> Item:
    geometry = mapping(shapely.from_wkt(options.aoi_wkt))
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    return {"type": "FeatureCollection", "features": [feature]}


def _written(scenes: Sequence[SceneSpec], options: EarthOptions, out: Path) -> Iterator[str]:
    """Ids of scenes as they get done: two at a time where that pays and processes can start."""
    write = partial(_write_scene, options=options, out=out)
    n_px = sum(scene.shape_yx[0] * scene.shape_yx[1] for scene in scenes)
    done: set[str] = set()
    if n_px > _SERIAL_PX and (os.cpu_count() or 1) > 1:
        try:
            for scene_id in _in_processes(write, scenes):
                done.add(scene_id)
                yield scene_id
        except (BrokenProcessPool, OSError):
            pass  # a script without a main guard, or a sandbox without semaphores: go on in this process
    for scene in scenes:
        if scene.scene_id not in done:
            yield write(scene)


def _in_processes(write: Callable[[SceneSpec], str], scenes: Sequence[SceneSpec]) -> Iterator[str]:
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(write, scene) for scene in scenes]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_scene(scene: SceneSpec, *, options: EarthOptions, out: Path) -> str:
    """Render and write one scene's folder, then let it appear."""
    folder = _item_path(out, scene).parent
    hidden = folder.with_name(f".{scene.scene_id}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    assets, properties = {}, _s1_properties(scene) if scene.sensor == "s1" else {}
    for key, pixels in render(scene, seed=options.seed, noise=options.noise):
        assets[key] = _write_asset(hidden / f"{key}.tif", pixels, key=key, scene=scene)
        if key == "SCL":
            properties = _s2_properties(scene, pixels)
    item = scene_item(scene, options, assets=dict(sorted(assets.items())), properties=properties)
    _publish(hidden / f"{scene.scene_id}.json", item)
    shutil.rmtree(folder, ignore_errors=True)
    hidden.rename(folder)
    return scene.scene_id


def _write_asset(path: Path, pixels: np.ndarray, *, key: str, scene: SceneSpec) -> Item:
    """The COG, and its record in the item."""
    gsd_m = 10 * scene.shape_yx[0] // pixels.shape[0]
    write_cog(path, pixels, scene=scene, gsd_m=gsd_m, nodata=S1_NODATA if scene.sensor == "s1" else S2_NODATA)
    content = path.read_bytes()
    stored = {
        "href": f"./{path.name}",
        "type": _COG_TYPE,
        "roles": ["data"],
        "file:size": len(content),
        "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
    }
    return stored | (_s1_asset(key) if scene.sensor == "s1" else _s2_asset(key, scene, gsd_m))


def _s1_asset(key: str) -> Item:
    names = {"v": "vertical", "h": "horizontal"}
    path = f"{names[key[0]]} transmit, {names[key[1]]} receive"
    band = {"data_type": "float32", "nodata": int(S1_NODATA), "spatial_resolution": 10.0, "unit": "1"}
    text = "Gamma naught, linear power, radiometrically terrain corrected."
    return {"title": f"{key.upper()}: {path}", "description": text, "raster:bands": [band]}


def _s2_asset(key: str, scene: SceneSpec, gsd_m: int) -> Item:
    """Planetary Computer's asset, and `raster:bands`, which it lacks."""
    place = {
        "gsd": float(gsd_m),
        "proj:shape": list(grid_shape(scene, gsd_m)),
        "proj:transform": _transform(scene, gsd_m),
        "proj:bbox": [*_corner(scene, gsd_m, 1), *_corner(scene, gsd_m, 0)],
    }
    stored: Item = {"nodata": S2_NODATA, "spatial_resolution": float(gsd_m)}
    if key == "SCL":
        stored |= {"data_type": "uint8"}
        return {"title": "Scene classification map (SCL)", "raster:bands": [stored], **place}
    band = next(band for band in S2_BANDS if band.name == key)
    stored |= {"data_type": "uint16", "scale": band.scale, "offset": -scene.dn_offset / 10_000, "unit": "1"}
    eo_band = _eo_band(band)
    title = f"{eo_band['description']} - {gsd_m}m"
    return {"title": title, "eo:bands": [eo_band], "raster:bands": [stored], **place}


def _eo_band(band: Band) -> Item:
    described = {"name": band.name, "description": f"Band {band.name[1:].lstrip('0')}"}
    common = {"common_name": _COMMON_NAMES[band.name]} if band.name in _COMMON_NAMES else {}
    return described | common | {"center_wavelength": round((band.center_nm or 0.0) / 1000, 4)}


def _s2_properties(scene: SceneSpec, scl: np.ndarray) -> Item:
    """Planetary Computer's properties; every percentage is counted on `scl`."""
    baseline, stamp = scene.baseline, f"{scene.when:%Y%m%dT%H%M%S}"
    zenith_deg, azimuth_deg = sun(footprint_lonlat(scene).centroid.y, scene.when)
    return {
        "platform": f"Sentinel-2{scene.platform}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "s2:mgrs_tile": scene.mgrs_tile,
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:datatake_id": f"GS2{scene.platform}_{stamp}_{scene.absolute_orbit:06d}_N{baseline}",
        "s2:datastrip_id": f"S2{scene.platform}_OPER_MSI_L2A_DS_SYNT_{stamp}_S{stamp}_N{baseline}",
        "s2:product_uri": scene.scene_id.replace("_R", f"_N{baseline}_R".replace(".", ""), 1) + ".SAFE",
        "s2:generation_time": _stamp(scene, timedelta(hours=6)),
        "s2:mean_solar_zenith": round(zenith_deg, 6),
        "s2:mean_solar_azimuth": round(azimuth_deg, 6),
        **_shares(scl),
    }


def _shares(scl: np.ndarray) -> Item:
    """Percent of the pixels with data; of nodata, percent of all."""
    counts = Counter(dict(zip(*(part.tolist() for part in np.unique(scl, return_counts=True)), strict=True)))
    n_valid = max(scl.size - counts[0], 1)
    clouds = sum(counts[value] for value in (8, 9, 10))
    shares = {"eo:cloud_cover": clouds / n_valid, "s2:nodata_pixel_percentage": counts[0] / scl.size}
    shares |= {f"s2:{name}_percentage": counts[value] / n_valid for value, name in _SCL_SHARES.items()}
    return {name: round(100 * share, 6) for name, share in shares.items()}


def _s1_properties(scene: SceneSpec) -> Item:
    """Planetary Computer's properties, the grid on the item with nine numbers."""
    return {
        "start_datetime": _stamp(scene),
        "end_datetime": _stamp(scene, timedelta(seconds=25)),
        "platform": f"SENTINEL-1{scene.platform}",
        "constellation": "Sentinel-1",
        "proj:shape": list(scene.shape_yx),
        "proj:transform": [*_transform(scene, 10), 0.0, 0.0, 1.0],
        "sar:polarizations": ["VV", "VH"],
        "sar:instrument_mode": "IW",
        "sar:product_type": "GRD",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:looks_range": 5,
        "sar:looks_azimuth": 1,
        "sar:looks_equivalent_number": 4.4,
        "sar:resolution_range": 20,
        "sar:resolution_azimuth": 22,
        "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10,
        "sar:observation_direction": "right",
        "s1:orbit_source": "RESORB",
    }


def _write_catalog(out: Path, scenes: Sequence[SceneSpec], items: Sequence[Item]) -> None:
    """Collections, the parquet file, and the catalog last."""
    for collection in _TITLES:
        members = [item for item in items if item["collection"] == collection]
        if members:
            _publish(out / collection / "collection.json", _collection(collection, members))
    hidden = out / ".items.parquet.partial"
    rustac.write_sync(str(hidden), [_seen_from_root(item) for item in items], format="geoparquet")
    hidden.replace(out / "items.parquet")
    _publish(out / "catalog.json", _catalog(sorted({scene.collection for scene in scenes})))


def _catalog(collections: Sequence[str]) -> Item:
    root = _link("root", "./catalog.json")
    children = [_link("child", f"./{name}/collection.json") for name in collections]
    text = "A synthetic Earth by `ingest make-earth`: every pixel's true value is known (ingest/synthetic)."
    head = {"type": "Catalog", "stac_version": "1.0.0", "id": "synthetic-earth", "title": "Synthetic Earth"}
    return head | {"description": text, "links": [root, *children]}


def _collection(name: str, items: Sequence[Item]) -> Item:
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    around = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    members = [_link("item", f"./{item['id']}/{item['id']}.json") for item in items]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "title": _TITLES[name],
        "description": f"{_TITLES[name]}, in the conventions of Planetary Computer's `{name}`.",
        "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [around]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [_link("root", "../catalog.json"), _link("parent", "../catalog.json"), *members],
    }


def _seen_from_root(item: Item) -> Item:
    """The item with hrefs that hold in the folder of items.parquet."""
    folder = f"./{item['collection']}/{item['id']}"
    assets = {key: asset | {"href": f"{folder}/{asset['href'][2:]}"} for key, asset in item["assets"].items()}
    links = _item_links("./catalog.json", f"./{item['collection']}/collection.json")
    return item | {"assets": assets, "links": links}


def _summary(out: Path, scenes: Sequence[SceneSpec], items: Sequence[Item], n_written: int) -> EarthSummary:
    by_sensor = {sensor: tuple(s.scene_id for s in scenes if s.sensor == sensor) for sensor in ("s2", "s1")}
    return EarthSummary(
        catalog=out / "catalog.json",
        parquet=out / "items.parquet",
        aoi=out / "aoi.geojson",
        s2_ids=by_sensor["s2"],
        s1_ids=by_sensor["s1"],
        n_bytes=sum(asset["file:size"] for item in items for asset in item["assets"].values()),
        n_written=n_written,
    )


def _publish(path: Path, document: Item) -> None:
    """JSON that appears whole or not at all."""
    hidden = path.with_name(f".{path.name}.partial")
    hidden.write_text(json.dumps(document, indent=1) + "\n")
    hidden.replace(path)


def _item_path(out: Path, scene: SceneSpec) -> Path:
    return out / scene.collection / scene.scene_id / f"{scene.scene_id}.json"


def _item_links(root: str, collection: str) -> list[Item]:
    return [_link("root", root), _link("parent", collection), _link("collection", collection)]


def _link(rel: str, href: str) -> Item:
    return {"rel": rel, "type": "application/geo+json" if rel == "item" else "application/json", "href": href}


def _transform(scene: SceneSpec, gsd_m: int) -> list[float]:
    left, top = scene.origin_xy_m
    return [float(gsd_m), 0.0, float(left), 0.0, -float(gsd_m), float(top)]


def _corner(scene: SceneSpec, gsd_m: int, which: int) -> tuple[float, float]:
    """Metres. The upper right corner (0) or the lower left (1)."""
    rows, columns = grid_shape(scene, gsd_m)
    left, top = scene.origin_xy_m
    return (left, top - rows * gsd_m) if which else (left + columns * gsd_m, top)


def _bbox(footprint: Polygon | MultiPolygon) -> list[float]:
    """West, south, east, north; across the antimeridian west is the larger (RFC 7946)."""
    west, south, east, north = footprint.bounds
    if east - west > 180:
        parts = [part.bounds for part in footprint.geoms]
        west, east = max(part[0] for part in parts), min(part[2] for part in parts)
    return [west, south, east, north]


def _stamp(scene: SceneSpec, later: timedelta = timedelta(0)) -> str:
    return f"{scene.when + later:%Y-%m-%dT%H:%M:%SZ}"
