"""Assets behind servers that fail: the pixels that the file holds, or an error that says why; never other pixels."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from flaky_server import Fault, serving
from numpy.testing import assert_array_equal
from rasterio.transform import Affine
from tiny_earth import Tiny

from ingest.pixels import faults, raster
from ingest.pixels.faults import TRIES, Hosts, ask
from ingest.pixels.raster import Chips, read_band
from ingest.scenes.scene import Asset, Scene
from pipeline.errors import ReadError

pytestmark = pytest.mark.ingest
SIDE = 256
NAMES = (f"a{number}.tif" for number in itertools.count())
"""One name a test: GDAL remembers files by their address."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and no memory of earlier tests' hosts."""
    monkeypatch.setitem(raster.GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setitem(raster.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setattr(faults, "pause_s", lambda attempt, asked: 0.01)
    monkeypatch.setattr(faults, "HOSTS", Hosts())


@pytest.fixture(scope="module", params=["deflate", None], ids=["deflate", "uncompressed"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of 16 blocks; uncompressed ones would not show by themselves that bytes are missing."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    pixels = np.random.default_rng(0).integers(1, 4000, (SIDE, SIDE)).astype("u2")
    profile = {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "crs": 32633, "nodata": 0, "tiled": True}
    profile |= {"height": SIDE, "width": SIDE, "blockxsize": 64, "blockysize": 64, "compress": request.param}
    with rasterio.open(path, "w", transform=Affine(10, 0, 500040, 0, -10, 5300040), **profile) as file:
        file.write(pixels, 1)
    return path


@pytest.fixture
def fetch(
    image: Path, tmp_path: Path, make_scene: Callable[..., Scene], make_cell: Callable[..., Any]
) -> Callable[[Fault], tuple[Chips, int]]:
    """Read the image from a server with a fault; how many requests that took."""

    def read(fault: Fault) -> tuple[Chips, int]:
        name = next(NAMES)
        (tmp_path / name).write_bytes(image.read_bytes())
        with serving(tmp_path, fault) as (url, asked):
            scene = make_scene(assets={"B02": Asset(href=f"{url}/{name}?sig=hunter2", dn_offset=0)})
            return read_band(scene, "B02", [make_cell(0, 0, SIDE)], shared={}), len(asked)

    return lambda fault: read(lambda path, number: fault(path.partition("?")[0], number))


def _pixels(image: Path) -> np.ndarray:
    with rasterio.open(image) as file:
        return file.read(1)


FAULTS = ("503", "503 1", "429 1", "500", "408", "403", "drop", "reset", "html", "slow")


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("when", [{1}, {3}, {1, 2, 3, 4}], ids=str)
def test_faults_that_pass_do_no_harm(what: str, when: set[int], image: Path, fetch: Any) -> None:
    chips, _ = fetch(lambda path, number: what if number in when else None)
    assert_array_equal(chips.data[0], _pixels(image))
    assert chips.valid.all()


@pytest.mark.parametrize("what", [*FAULTS[:-1], "404", "410"])
@pytest.mark.parametrize("first", [1, 3])
def test_faults_that_stay_are_errors_that_say_whether_they_pass(what: str, first: int, fetch: Any) -> None:
    with pytest.raises(ReadError) as caught:
        fetch(lambda path, number: what if number >= first else None)
    assert "hunter2" not in str(caught.value)
    gone = what in {"404", "410"}
    # a file that is replaced by a page, or whose bytes never arrive whole, is as good as damaged
    assert caught.value.permanent == gone or what in {"html", "reset"}
    if first == 1 and what[:3].isdigit():
        assert f"HTTP response code: {what[:3]}" in str(caught.value)


@pytest.mark.parametrize("seed", range(6))
def test_a_fifth_of_all_requests_failing_at_random_does_no_harm(seed: int, image: Path, fetch: Any) -> None:
    draw = np.random.default_rng(seed)
    lock = threading.Lock()

    def fault(path: str, number: int) -> str | None:
        with lock:
            return str(draw.choice(FAULTS[:-2])) if draw.random() < 0.2 else None

    chips, _ = fetch(fault)
    assert_array_equal(chips.data[0], _pixels(image))


def test_a_file_that_is_gone_costs_one_request(fetch: Any) -> None:
    asked: list[int] = []
    with pytest.raises(ReadError) as caught:
        fetch(lambda path, number: asked.append(number) or "404")
    assert caught.value.permanent
    assert len(asked) == 1


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_damaged_for_good(  # noqa: PLR0917
    at: float, image: Path, tmp_path: Path, make_scene: Callable[..., Scene], make_cell: Callable[..., Any]
) -> None:
    name, asked = next(NAMES), 0
    data = image.read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * at)])
    with serving(tmp_path) as (url, paths):
        for href in (f"{url}/{name}", str(tmp_path / name)):
            scene = make_scene(assets={"B02": Asset(href=href, dn_offset=0)})
            with pytest.raises(ReadError) as caught:
                read_band(scene, "B02", [make_cell(0, 0, SIDE)], shared={})
            assert caught.value.permanent
            asked = asked or len(paths)
    assert asked >= TRIES


def test_what_a_server_says_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"x" * 100)
    with serving(tmp_path, lambda path, number: {2: "503 17", 3: "429", 4: "drop"}.get(number)) as (url, _):
        answers = [ask(f"{url}/a.tif") for _ in range(4)]
    assert [(answer.well, answer.wait_s) for answer in answers] == [
        (True, None),
        (False, 17.0),
        (False, None),
        (False, None),
    ]
    assert ask(f"{url}/a.tif").well is False  # nobody listens any more
    assert ask("s3://bucket/a.tif").well is True


# --- nginx -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scenes(faulty_nginx: str, tiny: Tiny, make_scene: Callable[..., Scene]) -> Callable[[str], Iterator[Scene]]:
    """Each band of the tiny Earth's first image at a place of the server."""

    def at(place: str) -> Iterator[Scene]:
        for path in sorted(tiny.root.glob("sentinel-2-l2a/S2-0/*.tif")):
            href = f"{faulty_nginx}/{place}/{path.relative_to(tiny.root)}"
            yield replace(make_scene(), assets={"B02": Asset(href=href, dn_offset=0)})

    return at


def _read(scene: Scene, cell: Any) -> np.ndarray:
    return read_band(scene, "B02", [cell], shared={}).data


@pytest.mark.parametrize("place", ["ok", "slow", "busy", "drop", "limited"])
def test_nginx_s_faults_do_no_harm(  # noqa: PLR0917
    place: str, scenes: Any, faulty_nginx: str, tiny: Tiny, make_cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(raster.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "2")
    for scene in scenes(place):
        local = replace(scene, assets={"B02": Asset(href=_local(scene, tiny), dn_offset=0)})
        assert_array_equal(_read(scene, make_cell(3, 5)), _read(local, make_cell(3, 5)))


def _local(scene: Scene, tiny: Tiny) -> str:
    return str(tiny.root / scene.assets["B02"].href.split("/", 4)[4])


def test_nginx_asks_for_patience(faulty_nginx: str) -> None:
    answers = [ask(f"{faulty_nginx}/busy/catalog.json") for _ in range(60)]
    assert {(answer.well, answer.wait_s) for answer in answers} == {(True, None), (False, 1.0)}


def test_a_server_without_ranges_gives_no_other_pixels(
    scenes: Any, faulty_nginx: str, tiny: Tiny, make_cell: Any
) -> None:
    """GDAL gets by without them where a file is small; of a large one nobody may say that it is damaged."""
    large = max(scenes("whole"), key=lambda scene: Path(_local(scene, tiny)).stat().st_size)
    local = replace(large, assets={"B02": Asset(href=_local(large, tiny), dn_offset=0)})
    assert_array_equal(_read(large, make_cell(112, 112)), _read(local, make_cell(112, 112)))
    assert ask(f"{faulty_nginx}/ok/catalog.json").well
    assert not ask(f"{faulty_nginx}/whole/catalog.json").well
