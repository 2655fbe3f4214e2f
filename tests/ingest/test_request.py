"""What a request may say."""

import json
from collections.abc import Callable
from datetime import date

import pytest

from ingest.areas.aoi import DateRange
from ingest.catalogs.profiles import profile_of
from ingest.parsing import parse_bands, parse_gap, parse_s1, parse_s2, parse_tracks
from ingest.request import Request, check, s1_dates
from pipeline import record
from pipeline.bands import S2_NAMES
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest
ANY = profile_of("catalog.json")


@pytest.mark.parametrize(("text", "hours"), [("3d", 72), ("12h", 12), ("0.5d", 12), ("1.5h", 1.5), (" 2d ", 48)])
def test_gap(text: str, hours: float) -> None:
    assert parse_gap(text, "--max-gap") == hours


@pytest.mark.parametrize("text", ["", "3", "d", "-1d", "3w", "3 d", "1e3h", "3d4h", "nanh", "infd", "0d", "0h"])
def test_bad_gap(text: str) -> None:
    with pytest.raises(UsageError, match="--max-gap"):
        parse_gap(text, "--max-gap")


def test_s1() -> None:
    assert parse_s1("rtc", ANY) == ("sentinel-1-rtc",)
    assert parse_s1("grd, rtc,", ANY) == ("sentinel-1-grd", "sentinel-1-rtc")


@pytest.mark.parametrize("text", ["", ",", "slc", "rtc,slc", "RTC"])
def test_bad_s1(text: str) -> None:
    with pytest.raises(UsageError, match="--s1"):
        parse_s1(text, ANY)


@pytest.mark.parametrize("catalog", ["earth-search", "cdse"])
def test_catalogs_without_gamma0_say_so(catalog: str) -> None:
    with pytest.raises(UsageError, match=rf"{catalog} has grd only"):
        parse_s1("rtc", profile_of(catalog))


@pytest.mark.parametrize(
    ("catalog", "text", "collection"),
    [
        ("planetary-computer", "l2a", "sentinel-2-l2a"),
        ("earth-search", "l2a", "sentinel-2-c1-l2a"),
        ("earth-search", "l1c", "sentinel-2-l1c"),
        ("earth-search", "sentinel-2-l2a", "sentinel-2-l2a"),
        ("https://example.org/stac", " mine ", "mine"),
    ],
)
def test_s2(catalog: str, text: str, collection: str) -> None:
    assert parse_s2(text, profile_of(catalog)) == collection


@pytest.mark.parametrize("text", ["", " ", "l1c"])
def test_bad_s2(text: str) -> None:
    with pytest.raises(UsageError, match="--s2"):
        parse_s2(text, profile_of("planetary-computer"))


@pytest.mark.parametrize(
    ("field", "flag"),
    [("max_cloud_percent", "--max-cloud"), ("max_nodata_percent", "--max-nodata"), ("val_percent", "--val")],
)
@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan")])
def test_percentages(field: str, flag: str, value: float, make_request: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match=flag):
        check(make_request(**{field: value}))


def test_a_good_request_is_itself_and_round_trips(make_request: Callable[..., Request]) -> None:
    request = make_request(max_cloud_percent=0, val_percent=100, dates=DateRange(start=date(2023, 1, 1), end=None))
    assert check(request) is request
    assert record.loads(Request, record.dumps(request), where="request") == request
    assert record.from_json(Request, json.loads(record.dumps(request)), where="request") == request


@pytest.mark.parametrize("chip_px", [0, 7, 4096])
def test_chip_size(chip_px: int, make_request: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match="--chip-px"):
        check(make_request(chip_px=chip_px))


@pytest.mark.parametrize("hours", [1.0, 12.0, 23.0, 25.0, 72.0])
def test_radar_is_looked_for_beyond_the_dates(hours: float, make_request: Callable[..., Request]) -> None:
    """Every instant within the gap of a scene on the first or last day is inside."""
    days = DateRange(start=date(2023, 6, 10), end=date(2023, 6, 12))
    wide = s1_dates(make_request(dates=days, max_gap_hours=hours))
    assert wide.start is not None
    assert wide.end is not None
    assert (days.start - wide.start).days * 24 >= hours  # type: ignore[operator]
    assert (wide.end - days.end).days * 24 >= hours  # type: ignore[operator]
    assert (wide.end - days.end).days * 24 <= hours + 48  # type: ignore[operator]
    assert s1_dates(make_request()) == DateRange(start=None, end=None)


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [(date(1, 1, 2), None, 72.0), (None, date(9999, 12, 30), 72.0), (date(2023, 1, 1), None, 1e9)],
)
def test_the_end_of_the_calendar_is_no_crash(
    start: date | None, end: date | None, hours: float, make_request: Callable[..., Request]
) -> None:
    wide = s1_dates(make_request(dates=DateRange(start=start, end=end), max_gap_hours=hours))
    assert start is None or wide.start is None or wide.start <= start
    assert end is None or wide.end is None or wide.end >= end


def test_bands_come_in_storage_order() -> None:
    assert parse_bands("b8a, B02,", "sentinel-2-c1-l2a") == ("B02", "B8A")
    assert parse_bands("", "sentinel-2-l2a") == S2_NAMES
    with pytest.raises(UsageError, match="B10 is a band of Level-1C"):
        parse_bands("B02,B10", "sentinel-2-l2a")


def test_level_1c_has_thirteen_bands_in_the_order_of_published_statistics() -> None:
    """B1 to B8, B8A, B9, B10, B11, B12: fMoW-Sentinel's order, which SatMAE's constants follow."""
    names = parse_bands("", "sentinel-2-l1c")
    assert names == ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
    assert parse_bands("B12,B10", "sentinel-2-l1c") == ("B10", "B12")
    assert [name for name in names if name != "B10"] == list(S2_NAMES)


def test_a_stack_has_a_date(make_request: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match="--frames 0"):
        check(make_request(kind="stack", frames=0))


def test_tracks() -> None:
    assert parse_tracks("117, 44,44,") == (44, 117)
    assert parse_tracks("") == ()


@pytest.mark.parametrize("text", ["0", "176", "44;117", "-1", "4.5", "ascending"])
def test_bad_tracks(text: str) -> None:
    with pytest.raises(UsageError, match="--tracks"):
        parse_tracks(text)
