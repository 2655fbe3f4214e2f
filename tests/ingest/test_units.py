"""Units run a bounded number at a time, wherever; a failure does not stop the others."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ingest import units
from ingest.plan import Unit
from ingest.units import WINDOW, run
from pipeline.errors import ReadError, SourceError, UsageError

pytestmark = pytest.mark.ingest
MANY = tuple(Unit(unit_id=f"u{i:05d}", first_row=0, tasks=()) for i in range(12))
ERROR = ReadError("S2A", "B02", "https://host/a.tif", "HTTP 500")


def _run(work: Callable[[Unit], Any], *, workers: int = 0, count: int = 12) -> list[Any]:
    done: list[Any] = []
    run(MANY[:count], work, workers=workers, scheduler=None, in_process=True, on_done=done.append)
    return done


def _name(unit: Unit) -> str:
    return unit.unit_id


@pytest.mark.parametrize("workers", [0, 1])
def test_every_unit_is_done_once(workers: int) -> None:
    assert sorted(_run(_name, workers=workers)) == [unit.unit_id for unit in MANY]


def test_nothing_to_do_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_on_dask", None)
    assert _run(_name, workers=2, count=0) == []


class _Failing:
    def __init__(self, *ids: str, error: Exception = ERROR) -> None:
        self.ids, self.error = ids, error

    def __call__(self, unit: Unit) -> str:
        if unit.unit_id in self.ids:
            raise self.error
        return unit.unit_id


@pytest.mark.parametrize("workers", [0, 1])
def test_one_failure_stays_of_its_kind_and_the_others_are_done(workers: int) -> None:
    done: list[str] = []
    with pytest.raises(ReadError) as caught:
        run(MANY, _Failing("u00003"), workers=workers, scheduler=None, in_process=True, on_done=done.append)
    assert str(caught.value) == str(ERROR)
    assert len(done) == 11


@pytest.mark.parametrize("workers", [0, 1])
def test_several_failures_are_counted(workers: int) -> None:
    with pytest.raises(SourceError, match=r"2 of 12 units failed; the others are kept\. The first: .*B02 of S2A"):
        _run(_Failing("u00003", "u00007"), workers=workers)


def test_a_bug_in_this_process_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        _run(_Failing("u00003", error=ZeroDivisionError()))


def test_another_error_of_ours_is_told_as_it_is() -> None:
    with pytest.raises(UsageError):
        _run(_Failing("u00003", error=UsageError("x")))


def test_a_bounded_number_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []
    most: list[int] = []
    submit = units._submit

    def counting(client: Any, work: Any, unit: Unit) -> Any:
        submitted.append(unit.unit_id)
        return submit(client, work, unit)

    monkeypatch.setattr(units, "_submit", counting)
    done: list[str] = []

    def on_done(result: str) -> None:
        most.append(len(submitted) - len(done))
        done.append(result)

    run(MANY, _name, workers=1, scheduler=None, in_process=True, on_done=on_done)
    assert max(most) <= WINDOW
    assert submitted == [unit.unit_id for unit in MANY]


def test_another_cluster_on_the_machine_is_no_warning() -> None:
    """dask's default port for its page is taken wherever a second build runs; warnings are errors here."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # taken already: as good
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        assert len(_run(_name, workers=1)) == 12


def _buggy(unit: Unit) -> str:
    if unit.unit_id.endswith("1"):
        raise TypeError("a bug")
    return unit.unit_id


def test_a_bug_is_no_failed_unit() -> None:
    done: list[str] = []
    units_ = [Unit(unit_id=f"u{i}", first_row=0, tasks=()) for i in range(3)]
    with pytest.raises(TypeError, match="a bug"):
        units.run(units_, _buggy, workers=1, scheduler=None, in_process=True, on_done=done.append)
    assert sorted(done) == ["u0", "u2"]
