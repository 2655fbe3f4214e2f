"""Real records in a real STAC API: our search finds what a plain loop over the records finds."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import shapely
from services import pgstac
from shapely.geometry import box, shape

from ingest.areas.aoi import DateRange
from ingest.catalogs import partition, stac_api, transport
from ingest.catalogs.catalog import search
from ingest.catalogs.profiles import profile_of
from ingest.scenes.scene import interval, parse_scene
from pipeline.store import Store

pytestmark = [pytest.mark.ingest, pytest.mark.slow]
COLORADO = box(-106.5, 38.2, -104.2, 40.3)
QUESTIONS = {
    "a month of one tile": (box(-105.3, 39.6, -105.1, 39.8), DateRange(start=date(2024, 8, 1), end=date(2024, 8, 31))),
    "an area of several degrees": (COLORADO, DateRange(start=date(2024, 7, 1), end=date(2024, 8, 31))),
    "all time": (box(-105.3, 39.6, -105.1, 39.8), DateRange(start=None, end=None)),
    "since": (box(-61, -61, -58, -59), DateRange(start=date(2025, 1, 1), end=None)),
    "until": (box(13.8, 29.5, 16.8, 31.2), DateRange(start=None, end=date(2024, 12, 31))),
    "nothing": (box(0, 0, 1, 1), DateRange(start=date(2024, 7, 1), end=date(2024, 8, 31))),
}
Items = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def records(stac_records: Path) -> Items:
    """Every record with a collection, once."""
    import rustac

    items = list(rustac.read_sync(str(stac_records / "pc_s2l2a_1000_items_co_2024.parquet"))["features"])
    for path in sorted(stac_records.glob("*.json")):
        document = json.loads(path.read_text())
        items += document.get("features", [document])
    return {(item["collection"], item["id"]): item for item in items if item.get("collection")}


@pytest.fixture(scope="module")
def api(records: Items) -> Iterator[str]:
    """An API of the records, as fast as it can be asked."""
    if reason := pgstac.missing():
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"{reason}; REQUIRE_REAL=1 asks for it")
        pytest.skip(reason)
    names = sorted({collection for collection, _ in records})
    with pgstac.running([_collection(name) for name in names], list(records.values())) as address:
        yield address


def _collection(name: str) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    about = {"type": "Collection", "id": name, "description": name, "license": "other", "stac_version": "1.0.0"}
    return about | {"extent": extent, "links": []}


def _plain(records: Items, names: Sequence[str], area: Any, dates: DateRange, *, by_box: bool) -> set[tuple[str, str]]:
    """Records whose box, or whose outline, meets the area within the dates."""
    found = set()
    for key, item in records.items():
        span = interval(item["properties"])
        outline = box(*item["bbox"]) if by_box else shape(item["geometry"])
        if key[0] in names and span and dates.contains(*span) and outline.intersects(area):
            found.add(key)
    return found


@pytest.fixture(params=[20, 200])
def quick(api: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The API with pages of so many items, asked as fast as it answers."""
    profile = replace(profile_of(api), page=request.param, requests_per_s=1e4)
    monkeypatch.setattr(stac_api, "profile_of", lambda _: profile)
    monkeypatch.setattr(transport, "_budgets", {})
    monkeypatch.setattr(partition, "FIRST_YEAR", 2023)
    return api


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_found_is_what_is_there(quick: str, records: Items, question: str) -> None:
    """The server looks at outlines and we at boxes: what lies between may be found or not."""
    area, dates = QUESTIONS[question]
    names = ("sentinel-2-l2a", "sentinel-1-rtc", "sentinel-2-c1-l2a")
    found = search(quick, names, areas=[area], dates=dates, parse=lambda item: (item["collection"], item["id"]))
    assert len(found) == len(set(found))
    least, most = (_plain(records, names, area, dates, by_box=by_box) for by_box in (False, True))
    assert least <= set(found) <= most
    assert bool(least) is (question != "nothing")


def test_scenes_are_those_of_the_records(api: str, records: Items, tmp_path: Path) -> None:
    """Through the database, HTTP and the run folder a scene stays what it is, but for microseconds."""
    dates = DateRange(start=date(2024, 8, 1), end=date(2024, 8, 10))
    for _ in range(2):
        scenes = search(
            api, ["sentinel-2-l2a"], areas=[COLORADO], dates=dates, kept_in=Store.at(tmp_path), parse=parse_scene
        )
        assert len(scenes) > 20
        for scene in scenes:
            want = parse_scene(records["sentinel-2-l2a", scene.scene_id])
            assert scene.assets == want.assets  # type: ignore[union-attr]
            assert scene.grid == want.grid  # type: ignore[union-attr]
            assert abs((scene.acquired - want.acquired).total_seconds()) < 1e-3  # type: ignore[union-attr]
            assert shapely.equals_exact(scene.footprint, want.footprint, tolerance=1e-9)  # type: ignore[union-attr]
