"""Tokens: one a container, early, by the server's clock, again when refused, and nowhere but in memory."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from stac_server import Asked, Server, serving

from ingest.areas.grid import corner_cell
from ingest.catalogs import signing
from ingest.catalogs.signing import Signer, options, reading, sign
from ingest.pixels.raster import GDAL_OPTIONS, read_band
from ingest.scenes.scene import Asset
from pipeline.errors import CatalogError, ReadError, SourceError

pytestmark = pytest.mark.ingest
BLOB = "http://account.blob.core.windows.net/container/x.tif"
OTHER = "http://account.blob.core.windows.net/other/x.tif"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unhurried: None) -> Iterator[Server]:
    """A token server and the blobs of `tmp_path`, for a process without tokens."""
    monkeypatch.setattr(signing, "_signer", Signer())
    with serving(Server(blobs=tmp_path)) as one:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{one.url}/api/sas/v1/token")
        monkeypatch.setenv("http_proxy", one.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        monkeypatch.delenv("PC_SDK_SUBSCRIPTION_KEY", raising=False)
        yield one


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """What `x.tif` holds, which is more than its head."""
    values = np.random.default_rng(0).integers(1, 60000, (512, 512), dtype=np.uint16)
    options = {"width": 512, "height": 512, "count": 1, "dtype": "uint16", "crs": "EPSG:32633", "blocksize": 256}
    place = from_origin(500000, 5300000, 10, 10)
    with rasterio.open(tmp_path / "x.tif", "w", driver="COG", transform=place, **options) as file:
        file.write(values, 1)
    return values


def _read(address: str) -> np.ndarray:
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(address) as dataset:
        return dataset.read(1)


def test_one_token_a_container_whatever_the_threads(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(sign, [BLOB, OTHER] * 20))
    assert len(set(signed)) == 2
    assert {one.rpartition("-")[2] for one in signed} == {"1", "2"}
    assert {one.path for one in server.of("token")} == {
        "/api/sas/v1/token/account/container", "/api/sas/v1/token/account/other",
    }  # fmt: skip
    assert len(server.of("token")) == 2


@pytest.mark.parametrize("skew_s", [0, -86400, 86400])
def test_replaced_when_five_minutes_are_left_by_the_servers_clock(server: Server, skew_s: float) -> None:
    server.skew_s, server.life_s = skew_s, 3600
    clock = [1000.0]
    signer = Signer(now=lambda: clock[0])
    first = signer.sign(BLOB)
    clock[0] += 3600 - 300 - 5
    assert signer.sign(BLOB) == first
    clock[0] += 10
    assert signer.sign(BLOB) != first
    assert len(server.of("token")) == 2


def test_a_token_that_lives_shortly_serves_half_its_life(server: Server) -> None:
    server.life_s = 100
    clock = [0.0]
    signer = Signer(now=lambda: clock[0])
    first = signer.sign(BLOB)
    clock[0] = 45
    assert signer.sign(BLOB) == first
    clock[0] = 55
    assert signer.sign(BLOB) != first


def test_only_the_refused_token_is_replaced(server: Server) -> None:
    first = sign(BLOB)
    with ThreadPoolExecutor(8) as pool:
        renewed = set(pool.map(lambda _: sign(BLOB, refused=first), range(20)))
    assert len(renewed) == 1
    assert renewed != {first}
    assert len(server.of("token")) == 2


def test_the_subscription_key_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(BLOB)
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "hunter2")
    sign(OTHER)
    assert [one.headers.get("ocp-apim-subscription-key") for one in server.of("token")] == [None, "hunter2"]


@pytest.mark.parametrize("href", ["/a/x.tif", "https://e84.s3.us-west-2.amazonaws.com/x.tif", "s3://eodata/x.jp2"])
def test_anything_else_is_opened_as_it_is(server: Server, href: str) -> None:
    assert sign(href) == href
    assert reading(href, lambda address: address) == href
    assert server.asked == []


def test_a_container_that_nobody_signs_is_opened_as_it_is(server: Server) -> None:
    server.fault = lambda asked: "404" if asked.kind == "token" else None
    assert [sign(BLOB) for _ in range(3)] == [BLOB] * 3
    assert len(server.of("token")) == 1


@pytest.mark.parametrize("fault", ["429:0", "502", "503", "reset", "cut", "short"])
def test_a_token_server_that_stumbles(server: Server, fault: str) -> None:
    server.fault = lambda asked: fault if asked.number < 4 else None
    assert "sig=secret-" in sign(BLOB)
    assert len(server.of("token")) == 4


@pytest.mark.parametrize(("fault", "error"), [("503", CatalogError), ("401", SourceError), ("403", SourceError)])
def test_no_token_is_said_without_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, error: type[Exception]
) -> None:
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "hunter2")
    server.fault = lambda asked: fault
    with pytest.raises(error, match=rf"/account/container .*HTTP {fault}") as caught:
        sign(BLOB)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("first_bad", [1, 2, 3])
def test_pixels_through_an_expired_token(server: Server, pixels: np.ndarray, first_bad: int) -> None:
    """Refused at the open, in the header, or in the middle of the pixels: nobody notices."""
    server.fault = lambda asked: "expired" if asked.kind == "blob" and asked.number == first_bad else None
    np.testing.assert_array_equal(reading(BLOB, _read), pixels)
    assert len(server.of("token")) == 2


def _scene(make_scene: Callable[..., Any], href: str = BLOB) -> Any:
    return make_scene(assets={"B02": Asset(href=href, dn_offset=0)})


def test_a_band_through_an_expired_token(server: Server, pixels: np.ndarray, make_scene: Callable[..., Any]) -> None:
    server.fault = lambda asked: "expired" if asked.kind == "blob" and asked.number == 3 else None
    chips = read_band(_scene(make_scene), "B02", [corner_cell(32633, 502000, 5297000, 24)], shared={})
    np.testing.assert_array_equal(chips.data[0], pixels[300:324, 200:224])


def test_refused_twice_is_a_read_error_without_secrets(
    server: Server, pixels: np.ndarray, make_scene: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = lambda asked: "expired" if asked.kind == "blob" else None
    with caplog.at_level(logging.WARNING), pytest.raises(ReadError, match="also with a new token") as caught:
        read_band(_scene(make_scene), "B02", [corner_cell(32633, 500000, 5300000, 24)], shared={})
    assert len(server.of("token")) == 2
    error: BaseException | None = caught.value
    while error:
        assert "secret" not in str(error)
        error = error.__cause__ or error.__context__
    assert "secret" not in caplog.text


def test_a_missing_blob_is_not_asked_for_with_a_new_token(server: Server) -> None:
    with pytest.raises(OSError, match="404"):
        reading(BLOB, _read)
    assert len(server.of("token")) == 1


def test_requester_pays_and_other_endpoints(
    server: Server, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL takes the options: seen from the store."""
    assert options("s3://eodata/a/b.jp2")["AWS_S3_ENDPOINT"] == "eodata.dataspace.copernicus.eu"
    assert options("https://eodata/a/b.jp2") == options("s3://mine/a.tif") == options("/a/b.tif") == {}
    paid = options("s3://sentinel-s2-l1c/x.tif")
    seen = _headers_of_s3(server, monkeypatch, "s3://sentinel-s2-l1c/x.tif", paid)
    assert seen["x-amz-request-payer"] == "requester"
    assert "/eu-central-1/s3/" in seen["authorization"]


def _headers_of_s3(server: Server, monkeypatch: pytest.MonkeyPatch, href: str, given: dict[str, str]) -> dict[str, str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.delenv("http_proxy")
    seen: list[Asked] = []
    server.fault = lambda asked: seen.append(asked) or "404"  # type: ignore[func-returns-value]
    where = {"AWS_S3_ENDPOINT": server.url.partition("//")[2], "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    with rasterio.Env(**{**given, **where}), pytest.raises(OSError), rasterio.open(href):  # noqa: PT011
        pass
    return seen[0].headers


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ENDPOINT", "mirror.example.org")
    assert options("s3://eodata/x.jp2") == {"AWS_VIRTUAL_HOSTING": "FALSE"}


def test_tokens_are_not_printed(server: Server) -> None:
    signer = Signer()
    signer.sign(BLOB)
    assert "secret" not in repr(signer) + repr(list(signer._tokens.values()))


def test_other_containers_are_not_kept_waiting(server: Server) -> None:
    held = threading.Event()
    server.fault = lambda asked: (held.wait(10), None)[1] if asked.path.endswith("/container") else None
    slow = threading.Thread(target=sign, args=(BLOB,))
    slow.start()
    try:
        while not server.of("token"):
            time.sleep(0.005)
        assert "sig=" in sign(OTHER)
        assert slow.is_alive()
    finally:
        held.set()
        slow.join()
