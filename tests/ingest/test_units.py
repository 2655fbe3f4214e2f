"""Units run a bounded number at a time, wherever; a failure does not stop the others."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingest import units
from ingest.plan import Unit
from ingest.units import TOLD, WINDOW, run
from pipeline.errors import ReadError, UnitsFailed, UsageError

pytestmark = pytest.mark.ingest
MANY = tuple(Unit(unit_id=f"u{i:05d}", first_row=0, tasks=()) for i in range(12))
ERROR = ReadError("S2A", "B02", "https://host/a.tif", "HTTP 500")


def _run(work: Callable[[Unit], Any], *, workers: int = 0, count: int = 12) -> list[Any]:
    done: list[Any] = []
    _begin(MANY[:count], work, workers=workers, on_done=done.append)
    return done


def _begin(todo: Sequence[Unit], work: Callable[[Unit], Any], *, workers: int = 1, **how: Any) -> None:
    run(todo, work, **{"workers": workers, "scheduler": None, "task_bytes": 1, "in_process": True, **how})


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
def test_a_failure_is_told_with_its_unit_scene_and_band_and_the_others_are_done(workers: int) -> None:
    done: list[str] = []
    with pytest.raises(UnitsFailed) as caught:
        _begin(MANY, _Failing("u00003"), workers=workers, on_done=done.append)
    assert "1 of 12 units failed" in str(caught.value)
    assert "\n  u00003  B02 of S2A: HTTP 500 (https://host/a.tif)\n" in str(caught.value)
    assert caught.value.unit_ids == ("u00003",)
    assert len(done) == 11


@pytest.mark.parametrize("workers", [0, 1])
def test_several_failures_are_counted(workers: int) -> None:
    with pytest.raises(UnitsFailed, match=r"2 of 12 units failed; the others are kept") as caught:
        _run(_Failing("u00007", "u00003"), workers=workers)
    assert caught.value.unit_ids == ("u00003", "u00007")


def test_a_long_list_is_cut() -> None:
    todo = [Unit(unit_id=f"u{i:05d}", first_row=0, tasks=()) for i in range(TOLD + 5)]
    with pytest.raises(UnitsFailed) as caught:
        _begin(todo, _Failing(*(unit.unit_id for unit in todo)), workers=0, on_done=lambda _: None)
    assert "u00019" in str(caught.value)
    assert "u00020" not in str(caught.value)
    assert "and 5 more" in str(caught.value)
    assert len(caught.value.unit_ids) == TOLD + 5


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

    _begin(MANY, _name, on_done=on_done)
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
        _begin(units_, _buggy, on_done=done.append)
    assert sorted(done) == ["u0", "u2"]
