"""From an API to shards: searched in parts, signed, through tokens that expire, and no secret is left behind."""

import json
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import harness
import pytest
from stac_server import Server, serving

from ingest.areas.aoi import DateRange
from ingest.build import build, open_plan
from ingest.catalogs import signing
from ingest.catalogs.signing import Signer
from ingest.request import Request
from pipeline.errors import UsageError
from pipeline.store import Store

pytestmark = [pytest.mark.ingest, pytest.mark.usefixtures("unhurried")]
DATES = DateRange(start=date(2023, 6, 1), end=date(2023, 7, 31))
Ask = Callable[..., Request]


@pytest.fixture
def server(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The tiny Earth's images in a container that wants tokens, and its items behind an API."""
    items = []
    for path in tiny.root.glob("*/*/*.json"):
        item = json.loads(path.read_text())
        host = f"http://account.blob.core.windows.net/container/{item['collection']}/{item['id']}"
        moment = item["properties"]["datetime"].replace("+00:00", "Z")
        assets = {key: {**asset, "href": f"{host}/{key}.tif"} for key, asset in item["assets"].items()}
        items.append({**item, "assets": assets, "properties": {**item["properties"], "datetime": moment}})
    monkeypatch.setattr(signing, "_signer", Signer())
    with serving(Server(items=items, blobs=tiny.root)) as one:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{one.url}/api/sas/v1/token")
        monkeypatch.setenv("http_proxy", one.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        yield one


def test_the_shards_are_those_of_the_same_images_on_disk(
    server: Server, tmp_path: Any, make_request: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = lambda asked: "expired" if asked.kind == "blob" and asked.number % 40 == 0 else None
    address = f"{server.url.replace('//', '//user:hunter2@')}?sig=hunter2"
    build(make_request(catalog=address, dates=DATES), str(tmp_path / "api"), workers=0)
    build(make_request(dates=DATES), str(tmp_path / "disk"), workers=0)
    assert server.issued > 3
    assert harness.tree(tmp_path / "api" / "shards") == harness.tree(tmp_path / "disk" / "shards")
    for path in (path for path in (tmp_path / "api").rglob("*") if path.is_file()):
        assert b"hunter2" not in path.read_bytes(), path
        assert b"secret" not in path.read_bytes(), path
    assert "secret" not in caplog.text


def test_a_plan_that_was_killed_goes_on(server: Server, tmp_path: Any, make_request: Ask) -> None:
    store, request = Store.at(tmp_path), make_request(catalog=server.url, dates=DATES)
    server.fault = lambda asked: "400" if asked.body.get("collections") == ["sentinel-1-rtc"] else None
    with pytest.raises(Exception, match="cannot be searched"):
        open_plan(store, request)
    asked, server.fault = len(server.of("search")), lambda asked: None
    made = open_plan(store, request)
    again = server.of("search")[asked:]
    assert {one.body["collections"][0] for one in again} == {"sentinel-1-rtc"}
    assert made.fingerprint == open_plan(Store.at("memory://whole"), request).fingerprint


def test_refresh_asks_anew_until_chips_are_made(server: Server, tmp_path: Any, make_request: Ask) -> None:
    store, request = Store.at(tmp_path), make_request(catalog=server.url, dates=DATES)
    first = open_plan(store, request)
    asked = len(server.asked)
    late = [item for item in server.items if item["id"] == "S2-1"]
    server.items = [item for item in server.items if item not in late]
    assert open_plan(store, request).fingerprint == first.fingerprint
    assert len(server.asked) == asked
    newer = open_plan(store, request, refresh=True)
    assert len(newer.tasks) < len(first.tasks)
    build(request, str(tmp_path), workers=0)
    with pytest.raises(UsageError, match=r"is begun: --refresh"):
        open_plan(store, request, refresh=True)


def test_another_signature_is_the_same_request(server: Server, tmp_path: Any, make_request: Ask) -> None:
    first = open_plan(Store.at(tmp_path), make_request(catalog=f"{server.url}?sig=one", dates=DATES))
    asked = len(server.asked)
    assert open_plan(Store.at(tmp_path), make_request(catalog=f"{server.url}?sig=two", dates=DATES)) == first
    assert len(server.asked) == asked
