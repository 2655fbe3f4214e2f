"""Rows: written as they come, cut back on resume; curves that fail end alone."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.store import Store
from train.meter import METRICS_NAME, TIMING, Meter, Pace, Row, read_rows, steady
from train.progress import Reporter

pytestmark = pytest.mark.train


def row(step: int, **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "step": step,
        "samples": step * 4,
        "loss": 1.0 / step,
        "parts": {"mae": 0.5},
        "lr": 0.1,
        "grad_norm": 2.0,
        "batch_hash": f"{step:016x}",
        "quarantined": 0,
        "skipped": False,
        "pace": pace(0.5),
    }
    return Row(**{**fields, **changes})


def pace(seconds: float) -> Pace:
    return Pace(
        seconds=seconds,
        samples_per_s=8.0,
        data_wait_share=0.25,
        mfu=None,
        read_mb_per_s=1.0,
        cache_hit_share=None,
        retries=0,
        memory_mb=100.0,
    )


def meter(store: Store, done: int = 0) -> Meter:
    return Meter(store, resumed_step=done, say=lambda _: None)


def test_a_local_row_is_there_at_once(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    lines = meter(store)
    lines.write(row(1))
    assert [one["step"] for one in read_rows(store)] == [1]
    lines.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_remote_file_is_published_whole() -> None:
    store = Store.at("memory://meter-remote")
    lines = meter(store)
    lines.write(row(1))
    assert read_rows(store) == []
    lines.publish()
    assert [one["step"] for one in read_rows(store)] == [1]
    lines.write(row(2))
    lines.close()
    resumed = meter(store, 1)
    resumed.write(row(2))
    resumed.close()
    assert [one["step"] for one in read_rows(store)] == [1, 2]
    assert store.names() == [METRICS_NAME]


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    calm, stormy = Store.at(str(tmp_path / "calm")), Store.at(str(tmp_path / "stormy"))
    lines = meter(calm)
    for step in range(1, 7):
        lines.write(row(step))
    lines.close()
    lines = meter(stormy)
    for step in range(1, 6):
        lines.write(row(step, pace=pace(0.7)))
    with (tmp_path / "stormy" / METRICS_NAME).open("a") as file:
        file.write('{"step": 6, "sampl')
    resumed = meter(stormy, 3)
    for step in range(4, 7):
        resumed.write(row(step, pace=pace(0.9)))
    resumed.close()
    lines.close()
    assert [steady(one) for one in read_rows(stormy)] == [steady(one) for one in read_rows(calm)]
    assert read_rows(stormy) != read_rows(calm)


def test_beginning_anew_drops_all_rows(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    lines = meter(store)
    lines.write(row(1))
    lines.close()
    meter(store).close()
    assert read_rows(store) == []


def test_steady_is_all_but_timing(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    lines = meter(store)
    lines.write(row(1))
    lines.close()
    (written,) = read_rows(store)
    assert set(written) - set(steady(written)) == set(TIMING)
    assert json.loads(json.dumps(written)) == written


def test_failing_curves_do_not_stop_a_run(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store.at(str(tmp_path))
    (tmp_path / "tensorboard").write_text("in the way")
    lines = Meter(store, resumed_step=0, say=said.append)
    for step in (1, 2):
        lines.write(row(step))
    lines.close()
    assert len(said) == 1
    assert "TensorBoard failed" in said[0]
    assert [one["step"] for one in read_rows(store)] == [1, 2]


def test_only_rank_0_speaks_and_lines_are_plain_without_a_terminal() -> None:
    heard = []
    for speaks in (True, False):
        text = io.StringIO()
        reporter = Reporter(speaks=speaks, console=Console(file=text, force_terminal=False))
        reporter.facts({"lanes": 16})
        reporter.begin(0, 60)
        for step in range(1, 61):
            reporter.step(row(step))
        reporter.end()
        heard.append(text.getvalue())
    assert heard[1] == ""
    assert "\x1b" not in heard[0]
    assert "loss 0.0167" in heard[0]
    assert len(heard[0].splitlines()) <= 23


def test_a_terminal_gets_one_line() -> None:
    text = io.StringIO()
    reporter = Reporter(speaks=True, console=Console(file=text, force_terminal=True, width=100))
    reporter.begin(0, 3)
    for step in range(1, 4):
        reporter.step(row(step))
    reporter.end()
    assert "loss 0.3333" in text.getvalue()
    assert "\n\n" not in text.getvalue()


def test_curves_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = Store.at(str(tmp_path))
    for done, steps in ((0, range(1, 6)), (3, range(4, 7))):
        lines = meter(store, done)
        for step in steps:
            lines.write(row(step, loss=float(10 * done + step)))
        lines.close()
        time.sleep(1)  # files of one second are read in any order
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [
        *((n, n) for n in (1, 2, 3)),
        (4, 34),
        (5, 35),
        (6, 36),
    ]


def test_a_store_without_curves_says_so() -> None:
    said: list[str] = []
    Meter(Store.at("memory://meter-no-curves"), resumed_step=0, say=said.append).close()
    assert len(said) == 1
    assert "TensorBoard" in said[0]
