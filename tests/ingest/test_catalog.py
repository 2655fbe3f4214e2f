"""One question to a static catalog, to a Parquet file and to an API: one answer."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from ingest.areas.aoi import DateRange, parse_aoi, parse_dates
from ingest.catalogs import catalog, stac_api
from ingest.catalogs.catalog import search
from ingest.catalogs.profiles import profile_of
from ingest.scenes.scene import parse_scene
from pipeline.errors import CatalogError, UsageError

pytestmark = [pytest.mark.ingest, pytest.mark.usefixtures("unhurried")]

COLLECTIONS = ("sentinel-2-l2a", "sentinel-1-rtc", "sentinel-1-grd", "labels")
DATES = (None, "2020-01-01/2020-12-31", "2017-06-17/2017-06-17", "2021-02-10/2021-02-12", "../2017-06-13")


def _areas(path: Path) -> list[BaseGeometry]:
    return [area.geometry for area in parse_aoi(str(path))]


@pytest.fixture(scope="module")
def everywhere(real_catalog: Path) -> list[BaseGeometry]:
    return _areas(real_catalog / "aois" / "all.geojson")


def _search(address: Any, areas: list[BaseGeometry], dates: str | None = None, names: Any = COLLECTIONS) -> list[Any]:
    return search(str(address), names, areas=areas, dates=parse_dates(dates), parse=lambda item: item)


def _ids(items: list[Any]) -> list[str]:
    return [item["id"] for item in items]


def _plain(root: Path, collections: Any, dates: str | None) -> list[str]:
    """Every item's JSON, one after the other; all areas are touched by all of their own items."""
    start, end = (dates or "0000/9999").replace("..", "0000").split("/")
    found = []
    for path in root.glob("*/*/*.json"):
        item = json.loads(path.read_text())
        properties = item["properties"]
        first = properties["datetime"] or properties["start_datetime"]
        last = properties["datetime"] or properties["end_datetime"]
        if item["collection"] in collections and last[: len(start)] >= start and first[: len(end)] <= end:
            found.append((item["collection"], item["id"]))
    return [item_id for _, item_id in sorted(found)]


@pytest.mark.parametrize("dates", DATES)
def test_static_is_a_plain_loop(dates: str | None, real_catalog: Path, everywhere: list[BaseGeometry]) -> None:
    assert _ids(_search(real_catalog, everywhere, dates)) == _plain(real_catalog, COLLECTIONS, dates)


@pytest.mark.parametrize("dates", DATES)
def test_parquet_gives_the_same_scenes(dates: str | None, real_catalog: Path, everywhere: list[BaseGeometry]) -> None:
    static = _search(real_catalog, everywhere, dates)
    parquet = _search(real_catalog / "items.parquet", everywhere, dates)
    assert _ids(parquet) == _ids(static)
    assert [parse_scene(item) for item in parquet] == [parse_scene(item) for item in static]
    label = [item for item in parquet if item["collection"] == "labels"]
    assert all(Path(item["assets"]["lulc"]["href"]).exists() for item in label)


def test_only_what_touches_the_area(real_catalog: Path) -> None:
    areas = _areas(real_catalog / "aois" / "terramesh_38D_378R_2_3.geojson")
    for address in (real_catalog, real_catalog / "items.parquet", real_catalog / "catalog.json"):
        found = _search(address, areas)
        assert len(found) == 3
        assert all("38D_378R_2_3" in item["id"] for item in found)
    assert _search(real_catalog, areas, names=("sentinel-1-grd",)) == []
    assert _search(real_catalog / "items.parquet", areas, names=("sentinel-1-grd",)) == []


def test_hrefs_are_absolute_and_there(real_catalog: Path, everywhere: list[BaseGeometry]) -> None:
    for item in _search(real_catalog, everywhere):
        for asset in item["assets"].values():
            assert Path(asset["href"]).is_absolute()
            assert Path(asset["href"]).exists()


def test_duplicates_are_dropped(tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "twice")
    path = tmp_path / "twice" / "catalog.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "links": document["links"] * 2}))
    areas = [area.geometry for area in parse_aoi(tiny.aoi)]
    assert _ids(_search(tmp_path / "twice", areas)) == _ids(_search(tiny.root, areas)) != []


def test_areas_that_overlap_give_an_item_once(tiny: Any) -> None:
    areas = [area.geometry for area in parse_aoi(tiny.aoi)] * 2
    assert len(_ids(_search(tiny.root, areas))) == len(set(_ids(_search(tiny.root, areas)))) == 7


def test_a_box_with_heights(tiny: Any, tmp_path: Path) -> None:
    """STAC allows boxes of six numbers."""
    shutil.copytree(tiny.root, tmp_path / "high")
    for path in (tmp_path / "high").glob("*/*/*.json"):
        item = json.loads(path.read_text())
        west, south, east, north = item["bbox"]
        path.write_text(json.dumps({**item, "bbox": [west, south, 0.0, east, north, 900.0]}))
    areas = [area.geometry for area in parse_aoi(tiny.aoi)]
    assert _ids(_search(tmp_path / "high", areas)) == _ids(_search(tiny.root, areas))


def test_memory_is_searched_as_a_disk_is(tiny: Any) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.put(f"{tiny.root}/", "/tiny-catalog/", recursive=True)
    areas = [area.geometry for area in parse_aoi(tiny.aoi)]
    found = _search("memory://tiny-catalog/catalog.json", areas)
    assert _ids(found) == _ids(_search(tiny.root, areas))
    assert found[0]["assets"]["lulc"]["href"] == "memory://tiny-catalog/labels/LULC/lulc.tif"


@pytest.mark.parametrize(
    "name", ["nowhere", "nowhere/catalog.json", "nowhere/items.parquet", "nosuch://x/catalog.json"]
)
def test_not_there(name: str, tmp_path: Path, tiny: Any) -> None:
    from pipeline.errors import PretrainError

    address = name if "://" in name else str(tmp_path / name)
    with pytest.raises(PretrainError) as caught:
        _search(address, [area.geometry for area in parse_aoi(tiny.aoi)])
    assert type(caught.value) is UsageError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"type": "Catalog"}', '{"type": "Feature"}'])
def test_not_stac(text: str, tmp_path: Path, tiny: Any) -> None:
    (tmp_path / "catalog.json").write_text(text)
    (tmp_path / "items.parquet").write_text(text)
    for name in ("catalog.json", "items.parquet"):
        with pytest.raises(CatalogError, match=name):
            _search(tmp_path / name, [area.geometry for area in parse_aoi(tiny.aoi)])


def test_an_item_that_is_gone_is_named(tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "holed")
    (tmp_path / "holed" / "sentinel-2-l2a" / "S2-1" / "S2-1.json").unlink()
    with pytest.raises(CatalogError, match=r"S2-1\.json is not there"):
        _search(tmp_path / "holed", [area.geometry for area in parse_aoi(tiny.aoi)])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def api(real_catalog: Path, everywhere: list[BaseGeometry], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A STAC API of the real catalog on loopback."""
    binary = Path(sys.executable).parent / "rustac"
    if not binary.exists():
        pytest.skip(f"{binary} is not there")
    items = _search(real_catalog, everywhere)
    path = tmp_path_factory.mktemp("api") / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    address = f"127.0.0.1:{_free_port()}"
    server = subprocess.Popen(
        [binary, "serve", "--addr", address, "--create-collections", path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://{address}/collections", server)
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait(timeout=10)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the API did not start in 20 s")


@pytest.mark.parametrize("dates", DATES)
def test_api_gives_the_same_scenes(
    dates: str | None, api: str, real_catalog: Path, everywhere: list[BaseGeometry]
) -> None:
    static, served = _search(real_catalog, everywhere, dates), _search(api, everywhere, dates)
    assert _ids(served) == _ids(static)
    assert [parse_scene(item) for item in served] == [parse_scene(item) for item in static]


def test_api_is_paged(
    api: str, real_catalog: Path, everywhere: list[BaseGeometry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac_api, "profile_of", lambda address: replace(profile_of(address), page=3))
    assert _ids(_search(api, everywhere)) == _ids(_search(real_catalog, everywhere))


def test_api_that_does_not_answer(everywhere: list[BaseGeometry]) -> None:
    address = f"http://user:hunter2@127.0.0.1:{_free_port()}/stac?sig=hunter2"
    with pytest.raises(CatalogError, match=r"http://127\.0\.0\.1:\d+/stac keeps failing") as caught:
        _search(address, everywhere)
    assert "hunter2" not in str(caught.value)


def _odd(**changes: object) -> dict:
    properties = {"datetime": "2023-06-01T00:00:00Z"}
    return {"id": "x", "collection": "c", "bbox": [179, -1, -179, 1], "properties": properties, **changes}


def _matches(item: dict, areas: list[BaseGeometry]) -> bool:
    everything = DateRange(start=None, end=None)
    return catalog._matches(item, catalog._Wanted(collections=["c"], areas=areas, dates=everything))


@pytest.mark.parametrize(("west", "found"), [(179.2, True), (-179.8, True), (0.0, False), (178.0, False)])
def test_a_box_across_the_antimeridian(west: float, found: bool) -> None:
    assert _matches(_odd(), [shapely.box(west, 0, west + 0.5, 0.5)]) is found


def test_items_without_place_or_date_are_kept_to_be_told() -> None:
    area = [shapely.box(0, 0, 1, 1)]
    assert _matches(_odd(bbox=None), area)
    assert _matches(_odd(bbox=[0, 0, 1, 1], properties={}), area)
