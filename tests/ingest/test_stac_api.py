"""An API that fails in every way that public ones do: what is found is what a plain loop over its items finds."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from shapely.geometry import box
from stac_server import Asked, Fault, Server, serving

from ingest.areas.aoi import DateRange
from ingest.catalogs import partition, profiles, stac_api, transport
from ingest.catalogs.catalog import search
from ingest.catalogs.search_cache import FOLDER
from pipeline.errors import CatalogError
from pipeline.store import Store

pytestmark = [pytest.mark.ingest, pytest.mark.usefixtures("unhurried")]
AREA = box(10, 47, 12, 48)
YEAR = DateRange(start=date(2023, 1, 1), end=date(2023, 12, 31))
SPRING = DateRange(start=date(2023, 2, 1), end=date(2023, 4, 30))
EVER = DateRange(start=None, end=None)
BLOB = "https://account.blob.core.windows.net/c/B02.tif"


def _item(number: int) -> dict[str, Any]:
    """One of a sequence that wanders over places and dates; each day's last instant is among them."""
    west, south = 9.5 + number * 0.37 % 3, 46.5 + number * 0.23 % 2
    moment = f"{2022 + number % 3}-{1 + number % 12:02}-{28 if number % 2 else 1:02}T23:59:59.{number % 1000:03}999Z"
    corners = [west, south, west + 0.4, south + 0.4]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"i{number:04}",
        "collection": "c" if number % 7 else "d",
        "bbox": corners,
        "geometry": shapely.geometry.mapping(box(*corners)),
        "properties": {"datetime": moment, "eo:cloud_cover": number % 100},
        "links": [],
        "assets": {"B02": {"href": BLOB, "roles": ["data"]}},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(partition, "FIRST_YEAR", 2022)
    with serving(Server(items=[_item(number) for number in range(400)])) as one:
        yield one


def _plain(server: Server, dates: DateRange, area: Any = AREA) -> list[str]:
    found = []
    for item in server.items:
        day = item["properties"]["datetime"][:10]
        during = (dates.start is None or day >= str(dates.start)) and (dates.end is None or day <= str(dates.end))
        if during and item["collection"] == "c" and box(*item["bbox"]).intersects(area):
            found.append(item["id"])
    return sorted(found)


def _search(server: Server, dates: DateRange = YEAR, *, store: Store | None = None) -> list[str]:
    return search(server.url, ["c"], areas=[AREA], dates=dates, kept_in=store, parse=lambda item: item["id"])


def _pages_of(monkeypatch: pytest.MonkeyPatch, items: int, **changes: Any) -> None:
    small = replace(profiles.profile_of(""), page=items, **changes)
    monkeypatch.setattr(stac_api, "profile_of", lambda _: small)


@pytest.mark.parametrize(
    "dates", [SPRING, EVER, DateRange(start=date(2024, 9, 1), end=None), DateRange(start=None, end=date(2022, 12, 28))]
)
@pytest.mark.parametrize("page", [2, 1000])
def test_what_is_found_is_what_is_there(
    server: Server, dates: DateRange, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pages_of(monkeypatch, page)
    assert _search(server, dates) == _plain(server, dates)
    assert len(_plain(server, dates)) > 10


def test_questions_are_small_and_one_at_a_time_for_each_collection(server: Server) -> None:
    _search(server)
    for asked in server.of("search"):
        west, south, east, north = asked.body["bbox"]
        assert max(east - west, north - south) <= 1
        assert asked.body["collections"] == ["c"]
        assert asked.body["limit"] == 200
    assert len(server.of("search")) == 2 * 12
    assert len(server.of("landing")) == 1


def test_open_dates_are_one_question_while_a_page_holds_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    _search(server, EVER)
    assert len(server.of("search")) == 2
    _pages_of(monkeypatch, 1)
    early = DateRange(start=None, end=date(2022, 12, 31))
    assert _search(server, early) == _plain(server, early)
    assert len(server.of("search")) > 2 * 12


def _twice(what: str) -> Fault:
    """Every request fails twice before it is answered."""
    seen: Counter[str] = Counter()

    def fault(asked: Asked) -> str | None:
        request = f"{asked.kind} {asked.body}"
        seen[request] += 1
        return what if seen[request] < 3 else None

    return fault


@pytest.mark.parametrize("what", ["429", "429:0", "502", "503", "504", "reset", "cut", "short"])
def test_faults_change_nothing(server: Server, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.fault = _twice(what)
    _pages_of(monkeypatch, 3)
    assert _search(server, SPRING) == _plain(server, SPRING)


@pytest.mark.parametrize("paging", ["overlap", "forever"])
@pytest.mark.parametrize("page", [1, 3, 1000])
def test_odd_paging_changes_nothing(server: Server, paging: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server.paging = paging
    _pages_of(monkeypatch, page)
    for dates in (SPRING, DateRange(start=None, end=date(2022, 3, 28))):
        assert _search(server, dates) == _plain(server, dates) != []


def _always(what: str) -> Fault:
    return lambda asked: what if asked.kind == "search" else None


@pytest.mark.parametrize("what", ["429", "502", "503", "reset", "cut", "short"])
def test_an_api_that_stays_broken_is_left_and_named(server: Server, what: str) -> None:
    server.fault = _always(what)
    with pytest.raises(
        CatalogError, match=r"http://127\.0\.0\.1:\d+/search keeps failing: .*With --out .*run the same"
    ) as caught:
        _search(server, DateRange(start=date(2023, 6, 1), end=date(2023, 6, 30)))
    assert "\n" not in str(caught.value)
    assert len(server.of("search")) <= stac_api.THREADS * transport.TRIES


@pytest.mark.parametrize("what", ["400", "401", "403", "404", "500"])
def test_answers_that_will_not_change_are_not_asked_for_again(server: Server, what: str) -> None:
    server.fault = _always(what)
    with pytest.raises(CatalogError, match="cannot be searched"):
        _search(server, DateRange(start=date(2023, 6, 1), end=date(2023, 6, 30)))
    assert len(server.of("search")) <= 6


def test_403_is_throttling_where_the_profile_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    earth_search = profiles.profile_of("earth-search")
    _pages_of(monkeypatch, 50, throttles=earth_search.throttles)
    server.fault = _twice("403")
    assert _search(server, SPRING) == _plain(server, SPRING)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [("7", 7), ("Thu, 26 Nov 2020 12:00:09 GMT", 9), ("Thu, 26 Nov 2020 11:00:00 GMT", 0), ("?", 0)],
)
def test_retry_after_is_honoured_by_the_servers_clock(wait: str, seconds: float) -> None:
    import requests

    answer = requests.Response()
    answer.headers.update({"Retry-After": wait, "Date": "Thu, 26 Nov 2020 12:00:00 GMT"})
    assert transport._pause_s(0, answer) == pytest.approx(seconds, abs=transport.PAUSE_S)


def test_a_host_that_asks_for_an_hour_is_told_of(server: Server) -> None:
    server.fault = _always("429:3600")
    with pytest.raises(CatalogError, match=r"HTTP 429, and asks to wait 3600 s"):
        _search(server)
    assert len({str(asked.body) for asked in server.of("search")}) == len(server.of("search"))


def test_a_second_search_asks_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(tmp_path)
    _pages_of(monkeypatch, 5)
    for dates in (SPRING, DateRange(start=None, end=date(2022, 5, 31))):
        first = _search(server, dates, store=store)
        asked = len(server.asked)
        assert _search(server, dates, store=store) == first == _plain(server, dates)
        assert len(server.asked) == asked


def test_a_search_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    server.fault = lambda asked: "400" if asked.kind == "search" and asked.number > 12 else None
    with pytest.raises(CatalogError):
        _search(server, store=store)
    answered = len([name for name in store.names(FOLDER) if name.endswith(".json")])
    assert 8 <= answered <= 12
    server.fault, before = lambda asked: None, len(server.of("search"))
    assert _search(server, store=store) == _plain(server, YEAR)
    assert len(server.of("search")) - before == 24 - answered


def test_questions_and_answers_lie_beside_each_other(server: Server, tmp_path: Path) -> None:
    found = _search(server, store=Store.at(tmp_path))
    questions = [json.loads(path.read_text()) for path in (tmp_path / FOLDER).glob("*.json")]
    assert len(questions) == 24
    assert {one["catalog"] for one in questions} == {server.url}
    ids: set[str] = set()
    for path in (tmp_path / FOLDER).glob("*.parquet"):
        table = pq.read_table(path)
        assert json.loads(path.with_suffix(".json").read_text())["items"] == table.num_rows
        assert b"geo" in (pq.read_metadata(path).metadata or {})
        ids |= set(table["id"].to_pylist())
    assert set(found) <= ids


def test_a_torn_answer_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    first = _search(server, store=store)
    path = next((tmp_path / FOLDER).glob("*.parquet"))
    path.unlink()
    next((tmp_path / FOLDER).glob("*.json")).write_text("{")
    asked = len(server.of("search"))
    assert _search(server, store=store) == first
    assert 1 <= len(server.of("search")) - asked <= 2


WORDS = {"properties": {"datetime": "2023-06-01T00:00:00Z", "eo:cloud_cover": "many"}}


@pytest.mark.parametrize("odd", [{"geometry": None, "bbox": None}, WORDS])
def test_items_that_fit_no_table_are_kept_too(server: Server, tmp_path: Path, odd: dict[str, Any]) -> None:
    area = {"bbox": [11.1, 47.1, 11.2, 47.2], "geometry": shapely.geometry.mapping(box(11.1, 47.1, 11.2, 47.2))}
    usual = {**_item(1), **area, "properties": {"datetime": "2023-06-02T00:00:00Z", "eo:cloud_cover": 3.0}}
    server.items = [usual, {**usual, "id": "odd", **odd}]
    server.page = lambda body: {"type": "FeatureCollection", "features": server.items, "links": []}  # type: ignore[method-assign]
    dates = DateRange(start=date(2023, 6, 1), end=date(2023, 6, 30))
    for _ in range(2):
        assert _search(server, dates, store=Store.at(tmp_path)) == ["i0001", "odd"]
    assert not list((tmp_path / FOLDER).glob("*.parquet"))


def test_no_signature_reaches_the_disk(server: Server, tmp_path: Path) -> None:
    for item in server.items:
        item["assets"]["B02"]["href"] = f"{BLOB}?sv=1&sig=hunter2"
        item["assets"]["thumb"] = {"href": "https://h/t.png?X-Amz-Signature=hunter2", "roles": ["thumbnail"]}
        item["links"] = [{"rel": "self", "href": "https://user:hunter2@host/item?token=hunter2"}]
    address = f"{server.url.replace('//', '//user:hunter2@')}?sig=hunter2"
    hrefs = search(
        address,
        ["c"],
        areas=[AREA],
        dates=YEAR,
        kept_in=Store.at(tmp_path),
        parse=lambda item: item["assets"]["B02"]["href"],
    )
    assert set(hrefs) == {BLOB}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 24
    for path in written:
        assert b"hunter2" not in path.read_bytes()
        assert path.suffix == ".json" or "hunter2" not in str(pq.read_table(path).to_pylist())


def test_foreign_signatures_are_refused(server: Server, tmp_path: Path) -> None:
    for item in server.items:
        item["assets"]["B02"]["href"] = "https://bucket.s3.amazonaws.com/B02.tif?X-Amz-Signature=hunter2"
    with pytest.raises(CatalogError, match="hands out signed addresses: B02") as caught:
        _search(server, store=Store.at(tmp_path))
    assert "hunter2" not in str(caught.value)
    assert not list(tmp_path.rglob("*.parquet"))
