"""A build of which no chip can be used ends with words, and what another run may change is tried again."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import harness
import pytest
from tiny_earth import Tiny

from ingest import receipt
from ingest.areas.aoi import DateRange
from ingest.build import build
from ingest.request import Request
from pipeline.errors import SourceError, UnitsFailed, UsageError
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]


@pytest.fixture
def unmounted(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny Earth's documents without its files: what is seen of a catalog whose disk is not mounted."""
    return shutil.copytree(tiny.root, tmp_path / "earth", ignore=shutil.ignore_patterns("*.tif"))


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "stack", "s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0}], ids=str
)
def test_nothing_readable_is_one_message_and_the_mended_mount_is_built(  # noqa: PLR0917
    kind: dict[str, Any], unmounted: Path, tiny: Tiny, make_request: Ask, tmp_path: Path
) -> None:
    request, out = make_request(catalog=str(unmounted), max_nodata_percent=50.0, **kind), tmp_path / "out"
    with pytest.raises(UsageError, match=r"none of the \d+ chips was accepted") as caught:
        build(request, str(out), workers=0)
    assert "unreadable (" in str(caught.value)
    assert "is not there" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not (out / "manifest.json").exists()
    assert not receipt.done(Store.at(out))
    shutil.copytree(tiny.root, unmounted, dirs_exist_ok=True)
    built = build(request, str(out), workers=0)
    assert built.counts["accepted"]
    build(request, str(tmp_path / "calm"), workers=0)
    assert harness.tree(out) == harness.tree(tmp_path / "calm")


def test_chips_that_are_all_cloudy_are_not_read_again(make_request: Ask, tmp_path: Path) -> None:
    west, south, east, north = make_request().areas[0].geometry.bounds
    day = DateRange(start=date(2023, 6, 20), end=date(2023, 6, 20))
    request = make_request(aoi=f"{west},{south},{west + (east - west) / 4},{north}", dates=day)
    for _ in range(2):
        with pytest.raises(
            UsageError,
            match=r"none of the 2 chips was accepted.*\n  2 cloud\nGive another --out with higher --max-cloud",
        ):
            build(request, str(tmp_path), workers=0)
        assert len(receipt.done(Store.at(tmp_path))) == 1


def test_a_disk_that_goes_away_in_between_rejects_nothing(
    tiny: Tiny, make_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on one of many workers that lacks the mount: its units are not to be done without their chips."""
    earth, out = tmp_path / "earth", tmp_path / "out"
    shutil.copytree(tiny.root, earth)
    request = make_request(catalog=str(earth))
    publish = receipt.publish

    def publish_and_unmount(*args: Any) -> None:
        publish(*args)
        if earth.exists():
            earth.rename(tmp_path / "away")

    with monkeypatch.context() as patch:
        patch.setattr(receipt, "publish", publish_and_unmount)
        with pytest.raises(UnitsFailed, match=r"2 of 3 units failed.*\n.*is its disk mounted\?"):
            build(request, str(out), workers=0)
    assert receipt.done(Store.at(out)) == {"u00000"}
    (tmp_path / "away").rename(earth)
    build(request, str(out), workers=0)
    build(request, str(tmp_path / "calm"), workers=0)
    assert harness.tree(out) == harness.tree(tmp_path / "calm")


def test_a_receipt_that_another_command_took_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"receipts/u00007\.json.*run the same command again"):
        receipt.load(Store.at(tmp_path), "u00007")
