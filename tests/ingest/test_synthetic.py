"""The synthetic Earth on disk: pixels are the landscape, the catalog is STAC, a second run is the same."""

import errno
import hashlib
import json
import os
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pystac
import pytest
import rasterio
import rustac
import shapely
from pyproj import Transformer
from shapely.geometry import MultiPolygon, box, shape

from ingest.synthetic import DEFAULT_DATES, EarthOptions, earth_scenes, gamma0, make_earth, reflectance, write
from ingest.synthetic.landscape import CLASSES, keyed_rng, land_cover
from ingest.synthetic.render import _exact, pixel_lonlat, pixel_xy, speckle
from ingest.synthetic.scenes import footprint_lonlat, inside
from pipeline.bands import S2_BANDS, S2_NAMES
from pipeline.errors import SourceError, UsageError

pytestmark = pytest.mark.ingest

AOI = box(14.0, 46.0, 14.0 + 2 / 77.3, 46.0 + 2 / 111.2)


def options(aoi=AOI, **changes) -> EarthOptions:
    first, last = DEFAULT_DATES
    asked = {"aoi_wkt": aoi.wkt, "first": first, "last": last, "n_dates": 4, "seed": 0, "noise": True}
    return EarthOptions(**{**asked, **changes})


def earth_at(out: Path, **changes) -> SimpleNamespace:
    summary = make_earth(out, aoi=AOI, **changes)
    paths = sorted(out.glob("sentinel-*/*/*.json"))
    items = [json.loads(path.read_text()) for path in paths]
    folders = {item["id"]: path.parent for item, path in zip(items, paths, strict=True)}
    return SimpleNamespace(out=out, summary=summary, items=items, folders=folders)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return earth_at(tmp_path_factory.mktemp("clean") / "earth", noise=False)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return earth_at(tmp_path_factory.mktemp("noisy") / "earth")


def s2_items(earth):
    return [item for item in earth.items if item["collection"] == "sentinel-2-l2a"]


def s1_items(earth):
    return [item for item in earth.items if item["collection"] == "sentinel-1-rtc"]


def read(earth, item, key):
    with rasterio.open(earth.folders[item["id"]] / item["assets"][key]["href"]) as source:
        return source.read(1), source.profile


def truth(item, key, profile, shift_px=(0.0, 0.0)):
    """The analytic value at the pixel centres, by PROJ and nothing of the writer's."""
    to_lonlat = Transformer.from_crs(profile["crs"], 4326, always_xy=True)
    lonlat = to_lonlat.transform(*centers_m(profile, shift_px))
    when = datetime.fromisoformat(item["properties"]["datetime"])
    return (gamma0 if key in {"vv", "vh"} else reflectance)(*lonlat, key.upper(), when)


def centers_m(profile, shift_px=(0.0, 0.0)):
    rows, columns = np.mgrid[: profile["height"], : profile["width"]]
    step = profile["transform"]
    return step.c + step.a * (columns + 0.5 + shift_px[0]), step.f + step.e * (rows + 0.5 + shift_px[1])


def stored(item, key, pixels):
    """Physical values by the item's own scale and offset, and which of them are data."""
    band = item["assets"][key]["raster:bands"][0]
    return pixels * band.get("scale", 1.0) + band.get("offset", 0.0), pixels != band["nodata"]


@pytest.mark.parametrize("key", ["B01", "B02", "B8A", "B12"])
def test_a_pixel_is_the_landscape_within_half_a_digital_number_in_every_item(clean, key):
    for item in s2_items(clean):
        pixels, profile = read(clean, item, key)
        values, valid = stored(item, key, pixels)
        assert valid.any()
        np.testing.assert_allclose(values[valid], truth(item, key, profile)[valid], atol=0.51e-4)


@pytest.mark.parametrize("key", ["vv", "vh"])
def test_a_radar_pixel_is_the_landscape(clean, key):
    for item in s1_items(clean):
        pixels, profile = read(clean, item, key)
        values, valid = stored(item, key, pixels)
        np.testing.assert_allclose(values[valid], truth(item, key, profile)[valid], rtol=2e-5)


@pytest.mark.parametrize("key", ["B02", "B05", "B09", "vv"])
def test_the_shift_against_truth_is_below_a_thousandth_of_a_pixel(clean, key):
    for item in s1_items(clean)[:1] if key == "vv" else s2_items(clean)[-2:]:
        pixels, profile = read(clean, item, key)
        values, valid = stored(item, key, pixels)
        steps = (
            (truth(item, key, profile, shift) - truth(item, key, profile, tuple(-s for s in shift))) / 0.2
            for shift in ((0.1, 0.0), (0.0, 0.1))
        )
        design = np.stack([step[valid] for step in steps], axis=1)
        error = values[valid] - truth(item, key, profile)[valid]
        shift_px = np.linalg.lstsq(design, error, rcond=None)[0]
        assert np.abs(shift_px).max() < 1e-3


def test_a_shift_that_is_there_is_measured_to_a_hundredth_of_a_pixel(clean):
    item = s2_items(clean)[-1]
    pixels, profile = read(clean, item, "B08")
    values, valid = stored(item, "B08", pixels)
    moved = truth(item, "B08", profile, (0.3, -0.2))
    gradient = np.gradient(values)
    design = np.stack([gradient[1][valid], gradient[0][valid]], axis=1)
    found = np.linalg.lstsq(design, (moved - values)[valid], rcond=None)[0]
    np.testing.assert_allclose(found, (0.3, -0.2), atol=0.01)


def test_both_baselines_say_their_offset_and_mean_it(noisy):
    seen = set()
    for item in s2_items(noisy):
        before = datetime.fromisoformat(item["properties"]["datetime"]).date() < date(2022, 1, 25)
        seen.add(item["properties"]["s2:processing_baseline"])
        assert item["properties"]["s2:processing_baseline"] == ("03.01" if before else "05.09")
        for name in S2_NAMES:
            band = item["assets"][name]["raster:bands"][0]
            assert (band["scale"], band["offset"], band["nodata"]) == (1e-4, 0.0 if before else -0.1, 0)
    assert seen == {"03.01", "05.09"}


def test_scenes_are_what_real_catalogs_hold(noisy):
    properties = [item["properties"] for item in s2_items(noisy)]
    assert len({p["proj:epsg"] for p in properties}) == 2
    assert min(p["eo:cloud_cover"] for p in properties) < 20
    assert max(p["eo:cloud_cover"] for p in properties) > 60
    assert {i["properties"]["sat:orbit_state"] for i in s1_items(noisy)} == {"ascending", "descending"}
    assert len({i["properties"]["sat:relative_orbit"] for i in s1_items(noisy)}) == 2
    optical, radar = (
        [datetime.fromisoformat(item["properties"]["datetime"]) for item in of_sensor(noisy)]
        for of_sensor in (s2_items, s1_items)
    )
    gap_days = np.array([min(abs(a - b).total_seconds() for b in radar) for a in optical]) / 86400
    assert (gap_days < 3).sum() == len(gap_days) - 1
    assert gap_days.max() > 3


@pytest.mark.parametrize("at", [(14.0, 46.0), (178.0, -17.0), (5.9, 60.0), (-60.0, 1.0)])
def test_grids_and_footprints(at):
    *specs, cover = sorted(
        earth_scenes(options(box(*at, at[0] + 0.03, at[1] + 0.03))), key=lambda s: s.sensor == "label"
    )
    assert cover.collection == "land-cover"
    assert {spec.origin_xy_m for spec in specs if spec.epsg == cover.epsg and spec.sensor == "s2"} == {
        cover.origin_xy_m
    }
    for spec in specs:
        left, top = spec.origin_xy_m
        pitch = 60 if spec.sensor == "s2" else 10
        assert (left % pitch, top % pitch) == (0, 0)
        if spec.sensor == "s2":
            assert (spec.shape_yx[0] % 6, spec.shape_yx[1] % 6) == (0, 0)
        else:
            assert left % 60
            assert top % 60
        first = {"S2A": 141, "S2B": 27, "S1A": 73}[spec.scene_id[:3]]
        cycle = 143 if spec.sensor == "s2" else 175
        assert (spec.absolute_orbit - first) % cycle + 1 == spec.relative_orbit
        assert footprint_lonlat(spec).is_valid


def test_the_mgrs_tile_is_the_one_on_the_map():
    real = {"33TWL": (15.6, 45.6), "13TDE": (-105.5, 40.2), "06VVN": (-147.9, 60.8), "35MNM": (27.5, -8.0)}
    for tile, (lon, lat) in real.items():
        tiles = {spec.mgrs_tile for spec in earth_scenes(options(box(lon, lat, lon + 0.01, lat + 0.01)))}
        assert tile in tiles


@pytest.mark.parametrize("key", ["B03", "B11", "B01", "SCL", "vv"])
def test_nodata_lies_where_the_footprint_ends(noisy, key):
    n_with_wedge = 0
    for item in s1_items(noisy) if key == "vv" else s2_items(noisy):
        pixels, profile = read(noisy, item, key)
        to_xy = Transformer.from_crs(4326, profile["crs"], always_xy=True).transform
        ground_m = shapely.transform(shape(item["geometry"]), lambda ll, f=to_xy: np.column_stack(f(*ll.T)))
        centers = shapely.points(*centers_m(profile))
        valid = pixels != item["assets"][key]["raster:bands"][0]["nodata"]
        shapely.prepare(ground_m)
        wrong = valid != shapely.contains(ground_m, centers)
        assert not (wrong & (shapely.distance(ground_m.boundary, centers) > 0.1)).any()
        n_with_wedge += not valid.all()
    assert n_with_wedge == (len(s1_items(noisy)) if key == "vv" else 1)


def test_cloud_cover_is_counted_on_scl(noisy):
    for item in s2_items(noisy):
        scl, _ = read(noisy, item, "SCL")
        assert set(np.unique(scl)) <= {0, 3, 4, 5, 6, 8, 9, 10, 11}
        share = np.isin(scl, (8, 9, 10)).sum() / (scl != 0).sum()
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * share, abs=1e-5)


def test_clouds_are_bright_and_the_clean_earth_has_none(noisy, clean):
    item = max(s2_items(noisy), key=lambda item: item["properties"]["eo:cloud_cover"])
    scl, _ = read(noisy, item, "SCL")
    values, _ = stored(item, "B05", read(noisy, item, "B05")[0])
    assert np.median(values[scl == 9]) > 0.4
    assert all(item["properties"]["eo:cloud_cover"] == 0 for item in s2_items(clean))


def test_sensor_noise_has_the_sensors_signal_to_noise(noisy):
    item = min(s2_items(noisy), key=lambda item: item["properties"]["eo:cloud_cover"])
    pixels, profile = read(noisy, item, "B8A")
    values, _ = stored(item, "B8A", pixels)
    clear = np.isin(read(noisy, item, "SCL")[0], (4, 5))
    expected = truth(item, "B8A", profile)
    error = (values - expected)[clear] / np.sqrt(expected[clear] * 0.15)
    assert 1 / (1.4826 * np.median(np.abs(error - np.median(error)))) == pytest.approx(72, rel=0.15)


def test_speckle_alone_has_the_measured_statistics():
    noise = speckle((500, 500), keyed_rng("test")).astype(np.float64)
    centred = noise - noise.mean()
    assert noise.mean() == pytest.approx(1, abs=0.01)
    assert 4.4 < noise.mean() ** 2 / noise.var() < 8
    for a, b in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1])):
        assert 0.72 < (a * b).mean() / noise.var() < 0.81


def test_speckle_on_the_ground_leaves_the_mean_and_correlates(noisy):
    item = s1_items(noisy)[0]
    pixels, profile = read(noisy, item, "vv")
    valid = pixels != -32768
    ratio = np.where(valid, pixels / truth(item, "vv", profile), np.nan)[60:-60, 60:-60]
    centred = ratio - np.nanmean(ratio)
    assert np.nanmean(ratio) == pytest.approx(1, abs=0.02)
    assert 3.5 < 1 / np.nanvar(ratio) < 8
    assert 0.70 < np.nanmean(centred[1:] * centred[:-1]) / np.nanvar(ratio) < 0.81
    assert pixels[valid].min() >= 1e-4 - 1e-9


def test_bands_have_their_native_grids_and_the_items_say_so(noisy):
    for item in noisy.items:
        for key, asset in item["assets"].items():
            pixels, profile = read(noisy, item, key)
            gsd_m = {band.name: band.gsd_m for band in S2_BANDS}.get(key, 20 if key == "SCL" else 10)
            place = asset if "proj:shape" in asset else item["properties"]
            assert profile["transform"].a == gsd_m
            assert place["proj:shape"] == list(pixels.shape)
            assert tuple(place["proj:transform"][:6]) == tuple(profile["transform"])[:6]
            assert profile["crs"].to_epsg() == item["properties"]["proj:epsg"]
            assert profile["nodata"] == asset["raster:bands"][0]["nodata"]
            assert profile["dtype"] == asset["raster:bands"][0]["data_type"]


@pytest.mark.parametrize(("dtype", "nodata", "predictor"), [("uint16", 0, "2"), ("float32", -32768, "3")])
def test_files_are_cogs(tmp_path, dtype, nodata, predictor):
    spec = earth_scenes(options())[0]
    pixels = keyed_rng("cog").uniform(1, 9000, (1100, 1300)).astype(dtype)
    write.write_cog(tmp_path / "x.tif", pixels, scene=spec, gsd_m=10, nodata=nodata)
    with rasterio.open(tmp_path / "x.tif") as source:
        structure = source.tags(ns="IMAGE_STRUCTURE")
        assert (structure["LAYOUT"], structure["COMPRESSION"]) == ("COG", "DEFLATE")
        assert structure["PREDICTOR"] == predictor
        assert source.block_shapes == [(512, 512)]
        assert source.overviews(1) == [2, 4]
        np.testing.assert_array_equal(source.read(1), pixels)


def test_pystac_reads_the_catalog(noisy):
    catalog = pystac.Catalog.from_file(str(noisy.summary.catalog))
    items = list(catalog.get_items(recursive=True))
    assert {item.id for item in items} == {*noisy.summary.s2_ids, *noisy.summary.s1_ids, "LAND_COVER"}
    for item in items:
        assert item.get_collection().id == item.collection_id
        assert all(Path(asset.get_absolute_href()).is_file() for asset in item.assets.values())
        sensors = {"S2": {*S2_NAMES, "SCL"}, "S1": {"vv", "vh"}, "LA": {"lulc"}}
        assert set(item.assets) == sensors[item.id[:2]]


def test_land_cover_is_the_class_with_the_largest_share(noisy):
    (item,) = [json.loads(path.read_text()) for path in noisy.out.glob("land-cover/*/*.json")]
    asset = item["assets"]["lulc"]
    assert asset["roles"] == ["labels"]
    assert {one["value"]: one["name"] for one in asset["classification:classes"]} == dict(enumerate(CLASSES, 1))
    with rasterio.open(noisy.out / "land-cover/LAND_COVER/lulc.tif") as source:
        stored, profile = source.read(1), source.profile
    to_lonlat = Transformer.from_crs(profile["crs"], 4326, always_xy=True)
    shares = land_cover(*to_lonlat.transform(*centers_m(profile)))
    np.testing.assert_array_equal(stored, shares.argmax(axis=0) + 1)
    assert len(np.unique(stored)) > 2


def test_items_carry_planetary_computers_fields(noisy):
    shared = {"datetime", "platform", "constellation", "proj:epsg", "proj:code"}
    shared |= {"sat:orbit_state", "sat:relative_orbit"}
    s2 = {"eo:cloud_cover", "s2:processing_baseline", "s2:mgrs_tile", "s2:datatake_id", "s2:datastrip_id"}
    s1 = {"sar:polarizations", "sar:instrument_mode", "proj:shape", "proj:transform", "start_datetime"}
    for item in noisy.items:
        assert (item["type"], item["stac_version"]) == ("Feature", "1.0.0")
        assert shared | (s2 if item["id"].startswith("S2") else s1) <= set(item["properties"])
        np.testing.assert_allclose(item["bbox"], shape(item["geometry"]).bounds)
        for asset in item["assets"].values():
            content = (noisy.folders[item["id"]] / asset["href"]).read_bytes()
            assert asset["file:size"] == len(content)
            assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def test_the_parquet_file_holds_the_same_items(noisy):
    stored_items = {item["id"]: item for item in rustac.read_sync(str(noisy.summary.parquet))["features"]}
    assert stored_items.pop("LAND_COVER")["properties"]["proj:epsg"] == 32633
    assert set(stored_items) == {item["id"] for item in noisy.items}
    for item in noisy.items:
        twin = stored_items[item["id"]]
        held = {key: value for key, value in twin["properties"].items() if value is not None}
        times = [key for key in held if key.endswith("datetime")]
        for key in times:
            assert datetime.fromisoformat(held[key]) == datetime.fromisoformat(item["properties"][key])
        assert {**held, **dict.fromkeys(times)} == {**item["properties"], **dict.fromkeys(times)}
        assert shape(twin["geometry"]).equals(shape(item["geometry"]))
        for key, asset in item["assets"].items():
            assert {**twin["assets"][key], "href": None} == {**asset, "href": None}
            href = noisy.out / twin["assets"][key]["href"]
            assert href.samefile(noisy.folders[item["id"]] / asset["href"])


def digests(out: Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Killed(Exception):
    pass


def kill_at_three(line: str) -> None:
    if line.startswith("3/"):
        raise Killed


def test_a_killed_run_is_finished_to_the_byte_by_two_processes(noisy, tmp_path, monkeypatch):
    out = tmp_path / "earth"
    with pytest.raises(Killed):
        make_earth(out, aoi=AOI, progress=kill_at_three)
    assert not (out / "catalog.json").exists()
    monkeypatch.setattr(write, "_SERIAL_PX", 0)
    assert make_earth(out, aoi=AOI).n_written == len(noisy.items) + 1 - 3
    assert digests(out) == digests(noisy.out)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_earth(out, aoi=AOI).n_written == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == written


def test_another_earth_or_a_full_folder_is_refused(noisy, tmp_path):
    with pytest.raises(UsageError, match="another synthetic Earth"):
        make_earth(noisy.out, aoi=AOI, seed=1)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        make_earth(tmp_path, aoi=AOI)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_dates": 0},
        {"last": date(2020, 1, 1)},
        {"aoi_wkt": "POLYGON EMPTY"},
        {"aoi_wkt": box(0, 84, 0.1, 84.1).wkt},
        {"aoi_wkt": box(0, 0, 2, 0.1).wkt},
    ],
)
def test_requests_that_cannot_be_met_are_refused(changes):
    with pytest.raises(UsageError):
        earth_scenes(options(**changes))


@pytest.mark.parametrize("days", [0, 3, 12, 400])
def test_dates_stay_in_their_range(days):
    first = date(2023, 3, 1)
    last = date.fromordinal(first.toordinal() + days)
    for spec in earth_scenes(options(first=first, last=last)):
        assert first <= spec.when.date() <= last


def test_across_the_antimeridian_the_earth_is_in_one_piece(tmp_path):
    aoi = MultiPolygon([box(179.995, 10.0, 180.0, 10.01), box(-180.0, 10.0, -179.995, 10.01)])
    specs = earth_scenes(options(aoi))
    assert max(spec.shape_yx[1] for spec in specs) < 500
    assert {spec.epsg for spec in specs} == {32660, 32601}
    for spec in specs:
        footprint = footprint_lonlat(spec)
        assert footprint.geom_type == "MultiPolygon"
        assert footprint.area < 0.01
        lon, _ = pixel_lonlat(spec, 10, slice(None))
        assert np.ptp(lon) < 0.1


def test_interpolated_coordinates_are_exact_to_a_micrometre():
    for spec in earth_scenes(options(box(14.0, 70.0, 14.3, 70.1))):
        x_m, y_m = (at[::97] for at in pixel_xy(spec, 10))
        lon, lat = pixel_lonlat(spec, 10, slice(None))
        exact_lon, exact_lat = _exact(spec.epsg, x_m[None, :], y_m[:, None])
        assert np.abs(lon[::97, ::97] - exact_lon).max() * 111_195 < 1e-6
        assert np.abs(lat[::97, ::97] - exact_lat).max() * 111_195 < 1e-6


def test_inside_knows_a_convex_ring():
    ring = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (2.0, 4.0))
    held = inside(ring, np.array([[3.0, 0.4]]), np.array([[1.0], [3.9]]))
    assert held.tolist() == [[True, False], [True, False]]


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="cannot be written: Not a directory"):
        make_earth(tmp_path / "file" / "earth", aoi=AOI)


def test_a_full_disk_is_one_message_and_keeps_what_is_finished(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write, "_write_catalog", full)
    with pytest.raises(SourceError, match="No space left on device"):
        make_earth(tmp_path / "earth", aoi=AOI, n_dates=1, noise=False)
    monkeypatch.undo()
    assert make_earth(tmp_path / "earth", aoi=AOI, n_dates=1, noise=False).n_written == 0
