"""Which failures are worth another try, how long to wait, and when a host is left alone."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from ingest.pixels import faults
from ingest.pixels.faults import (
    HOLD_S,
    LIMIT,
    PATIENCE_S,
    TRIES,
    Answer,
    GaveUp,
    Held,
    Hosts,
    classify,
    patiently,
    retry_after_s,
)
from pipeline.errors import SourceError

pytestmark = pytest.mark.ingest
HREF = "https://user:hunter2@host:444/a.tif?sig=hunter2"


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("HTTP response code: 404", "gone"),
        ("HTTP response code: 410", "gone"),
        ("/data/a.tif: No such file or directory", "gone"),
        ("a.tif, band 1: IReadBlock failed at X offset 0, Y offset 2: TIFFReadEncodedTile() failed.", "damaged"),
        ("'/vsicurl/http://host/a.tif' not recognized as being in a supported file format.", "damaged"),
        ("HTTP response code: 403", "failed"),
        ("HTTP response code: 4040", "failed"),
        ("HTTP response code: 503", "failed"),
        ("CURL error: Empty reply from server", "failed"),
        ("CURL error: Operation too slow. Less than 1000 bytes/sec transferred the last 30 seconds", "failed"),
        ("Too many open files", "failed"),
        ("something new", "failed"),
    ],
)
def test_classify(why: str, kind: str) -> None:
    assert classify(why) == kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        # a date by the server's clock, which may be years off ours
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_pause_is_what_was_asked_for_or_doubles_and_has_an_end() -> None:
    for attempt in range(4):
        assert all(2**attempt <= faults.pause_s(attempt, None) <= 1.25 * 2**attempt for _ in range(50))
    assert all(7 <= faults.pause_s(0, 7.0) <= 8.75 for _ in range(50))
    assert faults.pause_s(0, 86400.0) <= 1.25 * PATIENCE_S
    assert faults.pause_s(99, None) <= 1.25 * PATIENCE_S
    assert len({faults.pause_s(0, 7.0) for _ in range(50)}) > 40  # many workers must not come back at once


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Time that passes by sleeping only, new hosts, and what a server answers when asked."""
    now: dict[str, Any] = {"s": 0.0, "answer": Answer(well=False, wait_s=None)}
    monkeypatch.setattr(time, "monotonic", lambda: now["s"])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.update(s=now["s"] + seconds))
    monkeypatch.setattr(faults, "HOSTS", Hosts())
    monkeypatch.setattr(faults, "ask", lambda href: now["answer"])
    return now


def _reads(*outcomes: str) -> tuple[Callable[[bool], str], list[bool]]:
    """A read that fails with each message in turn and then for ever with the last; an empty one is a success."""
    fresh: list[bool] = []

    def read(again: bool) -> str:
        fresh.append(again)
        if why := outcomes[min(len(fresh), len(outcomes)) - 1]:
            raise OSError(why)
        return "pixels"

    return read, fresh


def _read(*outcomes: str, href: str = HREF) -> tuple[str | GaveUp, list[bool]]:
    read, fresh = _reads(*outcomes)
    try:
        return patiently(read, href, errors=(OSError,)), fresh
    except GaveUp as error:
        return error, fresh


def test_a_read_is_repeated_with_nothing_remembered(clock: dict[str, Any]) -> None:
    result, fresh = _read("HTTP response code: 503", "IReadBlock failed", "")
    assert (result, fresh) == ("pixels", [False, True, True])
    assert 1 + 2 <= clock["s"] <= 1.25 * 3


def test_what_failing_servers_cost_is_counted_until_it_is_taken(clock: dict[str, Any]) -> None:
    faults.HOLDUP.take()
    _read("HTTP response code: 503", "IReadBlock failed", "")
    _read("HTTP response code: 503", "")
    held = faults.HOLDUP.take()
    assert (held.retries, held.seconds) == (3, pytest.approx(clock["s"]))
    assert faults.HOLDUP.take() == Held()


def test_the_server_says_how_long_to_wait(clock: dict[str, Any]) -> None:
    clock["answer"] = Answer(well=False, wait_s=20.0)
    assert _read("HTTP response code: 429", "")[0] == "pixels"
    assert 20 <= clock["s"] <= 25


@pytest.mark.parametrize(
    ("why", "well", "href", "tries", "permanent"),
    [
        ("HTTP response code: 404", False, HREF, 1, True),
        ("HTTP response code: 503", False, HREF, TRIES, False),
        ("HTTP response code: 403", False, HREF, TRIES, False),
        ("IReadBlock failed", True, HREF, TRIES, True),
        ("IReadBlock failed", False, HREF, TRIES, False),  # the server fails, too: it may be its answers
        ("IReadBlock failed", True, "/data/a.tif", 1, True),
        ("Too many open files", True, "/data/a.tif", 1, False),
    ],
)
def test_what_is_permanent(  # noqa: PLR0917
    why: str, well: bool, href: str, tries: int, permanent: bool, clock: dict[str, Any]
) -> None:
    clock["answer"] = Answer(well=well, wait_s=None)
    result, fresh = _read(why, href=href)
    assert isinstance(result, GaveUp)
    assert (len(fresh), result.permanent) == (tries, permanent)
    assert why in str(result)


def test_a_file_that_failed_once_in_another_way_is_not_called_damaged(clock: dict[str, Any]) -> None:
    clock["answer"] = Answer(well=True, wait_s=None)
    result, _ = _read("IReadBlock failed", "HTTP response code: 503", "IReadBlock failed")
    assert isinstance(result, GaveUp)
    assert not result.permanent


def test_a_dead_host_is_left_alone_and_asked_again_later(clock: dict[str, Any]) -> None:
    tries = [len(_read("CURL error: timed out")[1]) for _ in range(LIMIT + 5)]
    assert tries == [TRIES] * LIMIT + [0] * 5
    result, _ = _read("")
    assert isinstance(result, SourceError)
    assert not result.permanent
    assert "host:444 failed 3 reads in a row" in str(result)
    assert "hunter2" not in str(result)
    assert _read("", href="https://other/a.tif")[0] == "pixels"
    clock["s"] += HOLD_S
    assert [len(_read("CURL error: timed out")[1]) for _ in range(2)] == [1, 0]  # one question, and then rest again
    clock["s"] += HOLD_S
    assert _read("")[0] == "pixels"
    assert len(_read("CURL error: timed out")[1]) == TRIES


def test_files_that_are_gone_or_damaged_say_nothing_against_their_host(clock: dict[str, Any]) -> None:
    clock["answer"] = Answer(well=True, wait_s=None)
    for _ in range(LIMIT + 1):
        assert len(_read("HTTP response code: 404")[1]) == 1
        assert len(_read("IReadBlock failed")[1]) == TRIES


def test_a_bug_is_not_tried_again(clock: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        patiently(lambda fresh: 1 // 0, HREF, errors=(OSError,))  # type: ignore[arg-type, return-value]
