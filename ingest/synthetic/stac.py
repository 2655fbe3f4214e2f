"""STAC documents of synthetic scenes: items, assets, collections, catalog. Pure: scene in, JSON out.

Keys, properties and grids are those of Planetary Computer's `sentinel-2-l2a` and `sentinel-1-rtc`; scale, offset and
nodata come on top.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from shapely.geometry import MultiPolygon, Polygon, mapping

from ingest.synthetic.landscape import CLASSES, sun
from ingest.synthetic.render import S1_NODATA, S2_NODATA, grid_shape
from ingest.synthetic.scenes import EarthOptions, SceneSpec, footprint_lonlat
from pipeline.bands import S2_BANDS, Band

Item = dict[str, Any]
_EXTENSIONS = ("projection/v1.2.0", "raster/v1.1.0", "file/v2.1.0", "sat/v1.0.0")
_SENSOR_EXTENSION = {"s2": "eo/v1.1.0", "s1": "sar/v1.0.0", "label": "classification/v2.0.0"}
_COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge", "B06": "rededge",
    "B07": "rededge", "B08": "nir", "B8A": "rededge", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
_SCL_SHARES = {
    3: "cloud_shadow", 4: "vegetation", 5: "not_vegetated", 6: "water", 8: "medium_proba_clouds",
    9: "high_proba_clouds", 10: "thin_cirrus", 11: "snow_ice",
}  # fmt: skip
_CONVENTIONS = ", in the conventions of Planetary Computer"
TITLES = {
    "sentinel-2-l2a": "Synthetic Sentinel-2 Level-2A",
    "sentinel-1-rtc": "Synthetic Sentinel-1 Radiometrically Terrain Corrected (RTC)",
    "land-cover": "Land cover of the synthetic Earth",
}


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
        **_orbit(scene),
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


def _orbit(scene: SceneSpec) -> Item:
    if scene.sensor == "label":
        return {}
    return {
        "sat:orbit_state": scene.orbit_state,
        "sat:relative_orbit": scene.relative_orbit,
        "sat:absolute_orbit": scene.absolute_orbit,
    }


def s1_asset(key: str) -> Item:
    """What an item says of `vv` or `vh`."""
    names = {"v": "vertical", "h": "horizontal"}
    path = f"{names[key[0]]} transmit, {names[key[1]]} receive"
    band = {"data_type": "float32", "nodata": int(S1_NODATA), "spatial_resolution": 10.0, "unit": "1"}
    text = "Gamma naught, linear power, radiometrically terrain corrected."
    return {"title": f"{key.upper()}: {path}", "description": text, "raster:bands": [band]}


def s2_asset(key: str, scene: SceneSpec, gsd_m: int) -> Item:
    """Planetary Computer's asset, and `raster:bands`, which it lacks."""
    place = {
        "gsd": float(gsd_m),
        "proj:shape": list(grid_shape(scene, gsd_m)),
        "proj:transform": transform(scene, gsd_m),
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


def label_asset() -> Item:
    """What an item says of `lulc`."""
    classes = [{"value": value, "name": name} for value, name in enumerate(CLASSES, 1)]
    stored = {"data_type": "uint8", "nodata": 0, "spatial_resolution": 10.0}
    return {"title": "Land cover", "roles": ["labels"], "classification:classes": classes, "raster:bands": [stored]}


def _eo_band(band: Band) -> Item:
    described = {"name": band.name, "description": f"Band {band.name[1:].lstrip('0')}"}
    common = {"common_name": _COMMON_NAMES[band.name]} if band.name in _COMMON_NAMES else {}
    return described | common | {"center_wavelength": round((band.center_nm or 0.0) / 1000, 4)}


def s2_properties(scene: SceneSpec, scl: np.ndarray) -> Item:
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


def s1_properties(scene: SceneSpec) -> Item:
    """Planetary Computer's properties, the grid on the item with nine numbers."""
    return {
        "start_datetime": _stamp(scene),
        "end_datetime": _stamp(scene, timedelta(seconds=25)),
        "platform": f"SENTINEL-1{scene.platform}",
        "constellation": "Sentinel-1",
        "proj:shape": list(scene.shape_yx),
        "proj:transform": [*transform(scene, 10), 0.0, 0.0, 1.0],
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


def catalog(collections: Sequence[str]) -> Item:
    """The document at the top."""
    root = _link("root", "./catalog.json")
    children = [_link("child", f"./{name}/collection.json") for name in collections]
    text = "A synthetic Earth by `ingest make-earth`: every pixel's true value is known (ingest/synthetic)."
    head = {"type": "Catalog", "stac_version": "1.0.0", "id": "synthetic-earth", "title": "Synthetic Earth"}
    return head | {"description": text, "links": [root, *children]}


def collection(name: str, items: Sequence[Item]) -> Item:
    """The document of one sensor, its extent drawn round its items."""
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    around = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    members = [_link("item", f"./{item['id']}/{item['id']}.json") for item in items]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "title": TITLES[name],
        "description": f"{TITLES[name]}{_CONVENTIONS if name.startswith('sentinel') else ''}.",
        "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [around]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [_link("root", "../catalog.json"), _link("parent", "../catalog.json"), *members],
    }


def seen_from_root(item: Item) -> Item:
    """The item with hrefs that hold in the folder of items.parquet."""
    folder = f"./{item['collection']}/{item['id']}"
    assets = {key: asset | {"href": f"{folder}/{asset['href'][2:]}"} for key, asset in item["assets"].items()}
    links = _item_links("./catalog.json", f"./{item['collection']}/collection.json")
    return item | {"assets": assets, "links": links}


def _item_links(root: str, collection: str) -> list[Item]:
    return [_link("root", root), _link("parent", collection), _link("collection", collection)]


def _link(rel: str, href: str) -> Item:
    return {"rel": rel, "type": "application/geo+json" if rel == "item" else "application/json", "href": href}


def transform(scene: SceneSpec, gsd_m: int) -> list[float]:
    """Metres. Affine from pixel (column, row) of a band to (x, y)."""
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
