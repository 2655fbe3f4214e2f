"""A build that dies anywhere, then the same build again: the tree of an undisturbed one, to the byte."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import harness
import pytest
import zarr

from ingest import build as stage
from ingest import cube, receipt, shards
from ingest.areas.aoi import DateRange
from ingest.build import build
from pipeline import manifest
from pipeline.errors import UsageError
from pipeline.store import Store

pytestmark = pytest.mark.ingest


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def _dying(original: Callable[..., Any], call: int, *, after: bool) -> Callable[..., Any]:
    """`original`, dying before or after its call number `call`."""
    calls = iter(range(10**6))

    def die(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            raise Killed
        result = original(*args, **kwargs)
        if now:
            raise Killed
        return result

    return die


PLACES: dict[str, tuple[Any, str, int]] = {
    "while planning": (stage, "make_plan", 0),
    "creating the cube": (cube, "_chip_array", 1),
    "its coordinates": (cube, "_require", 4),
    "its metadata": (zarr, "consolidate_metadata", 0),
    "reading the second unit": (stage, "assemble", 1),
    "between two arrays of the cube": (cube, "_array", 15),
    "between cube and shards": (shards, "write_unit", 1),
    "between shards and receipt": (receipt, "publish", 1),
    "between receipts and manifest": (shards, "finish", 0),
    "before the manifest": (manifest, "publish", 0),
}


@pytest.fixture(scope="module")
def calm(small: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("calm")
    build(small(), str(out), workers=0)
    return harness.tree(out)


@pytest.fixture(scope="module")
def small(make_request: Callable[..., Any]) -> Callable[[], Any]:
    """Two overpasses of two cells, one of them cloudy on the second."""
    days = DateRange(start=date(2023, 6, 10), end=date(2023, 6, 20))
    west, south, east, north = make_request().areas[0].geometry.bounds
    aoi = f"{west},{south},{(west + east) / 2},{(south + north) / 2}"
    return lambda: make_request(aoi=aoi, dates=days, val_percent=40.0, seed=2, labels=("labels",))


# What there is before a step is what there is after another, or after a file is published.
@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.soak), True], ids=["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_killed(*, place: str, after: bool, small: Any, calm: dict[str, str], tmp_path: Path) -> None:
    module, name, call = PLACES[place]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, _dying(getattr(module, name), call, after=after))
        with pytest.raises(Killed):
            build(small(), str(tmp_path), workers=0)
    finished = place in {"before the manifest", "between receipts and manifest"} and after
    assert (tmp_path / "manifest.json").exists() == finished
    if not finished:
        with pytest.raises(UsageError, match="not a finished data set"):
            manifest.load(Store.at(tmp_path))
    build(small(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm


def _calls(request: Any, out: Path) -> int:
    names: list[str] = []
    publish = Store.publish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "publish", lambda self, name, data: names.append(name) or publish(self, name, data))
        build(request, str(out), workers=0)
    return len(names)


@pytest.mark.slow
def test_killed_around_every_file_that_is_published(small: Any, calm: dict[str, str], tmp_path: Path) -> None:
    """The moment before a file is the moment after the one before it, so one kill a file is all of them."""
    count = _calls(small(), tmp_path / "counted")
    assert harness.tree(tmp_path / "counted") == calm
    assert count >= 9
    for call in range(count):
        out = tmp_path / str(call)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "publish", _dying(Store.publish, call, after=True))
            with pytest.raises(Killed):
                build(small(), str(out), workers=0)
        assert set(harness.tree(out)) <= set(calm)
        build(small(), str(out), workers=0)
        assert harness.tree(out) == calm, call


def test_killed_again_and_again(small: Any, calm: dict[str, str], tmp_path: Path) -> None:
    """One folder, killed one step later each time: what is finished is never done again."""
    names: list[str] = []
    publish = Store.publish
    for call in range(8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "publish", lambda self, name, data: names.append(name) or publish(self, name, data))
            patch.setattr(stage, "run_unit", _dying(stage.run_unit, call % 2, after=bool(call % 3)))
            try:
                build(small(), str(tmp_path), workers=0)
            except Killed:
                continue
            break
    assert harness.tree(tmp_path) == calm
    receipts = [name for name in names if name.startswith("receipts/")]
    assert len(receipts) == len(set(receipts)) == 2


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the file system full from a number of published files on."""
    import errno
    import os

    fsync = os.fsync
    left = {"files": 10**6}

    def sync(handle: int) -> None:
        left["files"] -= 1
        if left["files"] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    return lambda files: left.update(files=files)


@pytest.mark.parametrize("files", [0, 1, 3])
def test_a_full_disk_is_one_message_and_room_mends_it(
    *, files: int, full_disk: Callable[[int], None], small: Any, calm: dict[str, str], tmp_path: Path
) -> None:
    from pipeline.errors import SourceError

    full_disk(files)
    with pytest.raises(SourceError, match="No space left on device"):
        build(small(), str(tmp_path), workers=0)
    assert not (tmp_path / "manifest.json").exists()
    full_disk(10**6)
    build(small(), str(tmp_path), workers=0)
    assert harness.tree(tmp_path) == calm
