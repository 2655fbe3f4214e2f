"""A task that does not fit is refused before anything is done, and the message says what would help."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
from tiny_earth import Tiny

from ingest import memory
from ingest.build import build
from ingest.memory import PROCESS_BYTES, SLACK, check_remote, machine_bytes, worker_bytes
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest
GIB = 2**30


@pytest.mark.parametrize(("workers", "share"), [(0, 8), (1, 8), (2, 4)])
def test_a_worker_gets_its_share_at_most(workers: int, share: int) -> None:
    assert worker_bytes(3 * GIB, workers=workers, machine_bytes=8 * GIB) == share * GIB


def test_a_worker_gets_no_more_than_it_can_need() -> None:
    need = GIB + PROCESS_BYTES
    assert worker_bytes(GIB, workers=2, machine_bytes=512 * GIB) == SLACK * need


@pytest.mark.parametrize(
    ("workers", "advice"),
    [(4, "Lower --workers to 3, or lower --chip-px or --frames"), (1, ""), (0, "")],
)
def test_what_fits_exactly_fits_and_a_byte_more_is_refused(workers: int, advice: str) -> None:
    count = max(1, workers)
    task = 2 * GIB - PROCESS_BYTES
    assert worker_bytes(task, workers=workers, machine_bytes=count * 2 * GIB) == 2 * GIB
    with pytest.raises(UsageError, match=r"a task takes 2048 MiB, and \d of them have \d+ MiB each") as caught:
        worker_bytes(task + 1, workers=workers, machine_bytes=count * 2 * GIB)
    assert (advice or "Take a larger machine, or lower --chip-px or --frames") in str(caught.value)


def test_a_worker_that_is_too_small_is_named() -> None:
    check_remote(GIB, {"a": 0, "b": GIB + PROCESS_BYTES})
    with pytest.raises(UsageError, match=r"thread of worker tcp://b has 512 MiB \(2 of 3 workers are too small\)"):
        check_remote(GIB, {"tcp://a": GIB, "tcp://b": GIB // 2, "tcp://c": 0})


def test_the_machine_s_memory_is_the_container_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUPS", (str(limit), str(tmp_path / "none")))
    assert machine_bytes() == whole
    limit.write_text("max\n")
    assert machine_bytes() == whole
    limit.write_text(f"{GIB}\n")
    assert machine_bytes() == GIB


@pytest.mark.parametrize("workers", [0, 1])
def test_a_build_that_does_not_fit_makes_nothing(
    workers: int, make_request: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUPS", (str(tmp_path / "limit"),))
    (tmp_path / "limit").write_text(str(PROCESS_BYTES))
    with pytest.raises(UsageError, match="a task takes"):
        build(make_request(), str(tmp_path / "out"), workers=workers)
    assert not list((tmp_path / "out").glob("receipts/*"))
    (tmp_path / "limit").unlink()
    build(make_request(), str(tmp_path / "out"), workers=0)


def test_too_many_workers_are_one_message(tiny: Tiny, tmp_path: Path) -> None:
    what = ["--aoi", tiny.aoi, "--catalog", str(tiny.root), "--chip-px", "24", "--out", str(tmp_path / "out")]
    with pytest.raises(
        AssertionError, match=r"ingest: a task takes \d+ MiB, and 5000 of them have \d MiB each\. Lower"
    ):
        harness.run("-m", "ingest.cli", "build-shards", *what, "--workers", "5000")
