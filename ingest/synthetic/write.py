"""From scenes to a folder that any STAC reader opens: COGs, items, collections, catalog.json, items.parquet.

In: an AOI and options. Out: `EarthSummary`, and in the folder

```
earth.json              what was asked for: a folder holds one Earth
aoi.geojson             the AOI, ready for `--aoi`
sentinel-2-l2a/ID/      ID.json B01.tif ... B12.tif SCL.tif, hrefs relative to the JSON
sentinel-1-rtc/ID/      ID.json vv.tif vh.tif
land-cover/LAND_COVER/  LAND_COVER.json lulc.tif: for `--labels land-cover`
*/collection.json
items.parquet           the same items as stac-geoparquet, hrefs relative to the folder it is in
catalog.json            last: no catalog, no Earth
```

A scene's folder appears whole or not at all: a killed run goes on where it was.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import rustac
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping

from ingest.synthetic.render import S1_NODATA, S2_NODATA, render
from ingest.synthetic.scenes import DEFAULT_DATES, EarthOptions, SceneSpec, earth_scenes
from ingest.synthetic.stac import (
    TITLES,
    Item,
    catalog,
    collection,
    label_asset,
    s1_asset,
    s1_properties,
    s2_asset,
    s2_properties,
    scene_item,
    seen_from_root,
    transform,
)
from pipeline.errors import SourceError, UsageError
from pipeline.record import fingerprint, to_json

VERSION = 2
"""Counts up when the same options give other pixels."""

_COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_SERIAL_PX = 3_000_000


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
        SourceError: `out` cannot be written, or its disk is full.
    """
    first, last = dates or DEFAULT_DATES
    wkt = shapely.to_wkt(shapely.normalize(aoi), rounding_precision=9)
    options = EarthOptions(aoi_wkt=wkt, first=first, last=last, n_dates=n_dates, seed=seed, noise=noise)
    try:
        return _make(out, options, progress)
    except OSError as error:
        why = error.strerror or str(error)
        raise SourceError(
            f"{out} cannot be written: {why}. Make room, or give another folder; finished scenes stay."
        ) from error


def _make(out: Path, options: EarthOptions, progress: Callable[[str], None]) -> EarthSummary:
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
    affine = rasterio.Affine(*transform(scene, gsd_m))
    place = {"crs": f"EPSG:{scene.epsg}", "transform": affine, "nodata": nodata}
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **options, **place, **size) as target:
        target.write(pixels, 1)


def _claim(out: Path, options: EarthOptions) -> None:
    """Make `out` this Earth's, or refuse."""
    label = {"version": VERSION, "fingerprint": fingerprint(options), "options": to_json(options)}
    path = out / "earth.json"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Give an empty folder.")
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
    assets, properties = {}, _properties(scene)
    for key, pixels in render(scene, seed=options.seed, noise=options.noise):
        assets[key] = _write_asset(hidden / f"{key}.tif", pixels, key=key, scene=scene)
        if key == "SCL":
            properties = s2_properties(scene, pixels)
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
    return stored | _described(key, scene, gsd_m)


def _properties(scene: SceneSpec) -> Item:
    """What an item says besides what its pixels do."""
    if scene.sensor == "label":
        return {"proj:shape": list(scene.shape_yx), "proj:transform": transform(scene, 10)}
    return s1_properties(scene) if scene.sensor == "s1" else {}


def _described(key: str, scene: SceneSpec, gsd_m: int) -> Item:
    if scene.sensor == "label":
        return label_asset()
    return s1_asset(key) if scene.sensor == "s1" else s2_asset(key, scene, gsd_m)


def _write_catalog(out: Path, scenes: Sequence[SceneSpec], items: Sequence[Item]) -> None:
    """Collections, the parquet file, and the catalog last."""
    for name in TITLES:
        members = [item for item in items if item["collection"] == name]
        if members:
            _publish(out / name / "collection.json", collection(name, members))
    hidden = out / ".items.parquet.partial"
    rustac.write_sync(str(hidden), [seen_from_root(item) for item in items], format="geoparquet")
    hidden.replace(out / "items.parquet")
    _publish(out / "catalog.json", catalog(sorted({scene.collection for scene in scenes})))


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
