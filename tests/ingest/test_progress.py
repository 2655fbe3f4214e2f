"""What is told while a build works: plain lines without a terminal, and JSON lines for machines."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest import progress
from ingest.build import UnitDone
from ingest.cli import app
from ingest.cost import Assumptions, unit_reads
from ingest.pixels.faults import Held
from ingest.planner import make_plan
from ingest.progress import BuildProgress, Load
from ingest.request import Request

pytestmark = pytest.mark.ingest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a build is told; its only item may be changed."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(
    make_request: Callable[..., Request],
    capsys: pytest.CaptureFixture[str],
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = make_plan(make_request())
    monkeypatch.setattr(progress, "_load", lambda unit, plan: Load(bytes=2_000_000, requests=1_500))
    with BuildProgress() as bar:
        bar.planned(plan, 1)
        for unit_id, held in (("u00001", Held()), ("u00002", Held(retries=3, seconds=4.2))):
            clock[0] += 7
            bar.unit_done(UnitDone(unit_id=unit_id, counts=Counter(accepted=4, cloud=2), bytes=1_500_000, held=held))
        clock[0] += 1
        bar.unit_done(UnitDone(unit_id="u00000", counts=Counter(), bytes=0))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "plan: 18 chips in 3 units, 1 done before",
        "units 2/3 · about 2.0 MB in 1,500 requests read · 1.5 MB written · 0.5 MB/s · 4 accepted · 2 cloud · 7 s left",
        (
            "units 3/3 · about 4.0 MB in 3,000 requests read · 3.0 MB written · 0.5 MB/s · 8 accepted · 4 cloud · "
            "3 reads repeated, 4 s held up · 0 s left"
        ),
    ]


def test_machines_get_a_line_for_every_event(
    make_request: Callable[..., Request], capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    plan = make_plan(make_request())
    with BuildProgress("json") as told:
        told.planned(plan, 0)
        clock[0] += 2
        told.unit_done(
            UnitDone(
                unit_id="u00000",
                counts=Counter(accepted=4, cloud=2),
                bytes=1_000_000,
                held=Held(retries=2, seconds=1.5),
            )
        )
        told.unit_failed("u00001", OSError("no https://host/a.tif?sig=hunter2"))
        clock[0] += 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "hunter2" not in err
    planned, unit, failed, end = (json.loads(line) for line in err.splitlines())
    assert (planned["event"], planned["chips"], planned["units"], planned["eta_s"]) == ("planned", 18, 3, None)
    reads = list(unit_reads(plan.units[0], plan, Assumptions()))
    expected = sum(read.bytes for read in reads)
    assert unit == {
        "event": "unit", "unit": "u00000", "units": 3, "done": 1, "failed": 0, "accepted": 4, "rejected": {"cloud": 2},
        "bytes_read": expected, "requests": sum(read.requests for read in reads), "retries": 2, "held_s": 1.5,
        "bytes_written": 1_000_000, "mb_per_s": round((expected / 1e6 + 1) / 2, 3),
        "seconds": 2.0, "eta_s": 4.0,
    }  # fmt: skip
    assert (failed["event"], failed["unit"], failed["failed"], failed["eta_s"]) == ("failed", "u00001", 1, 2.0)
    assert (end["event"], end["ok"], end["seconds"]) == ("end", True, 4.0)


def test_the_command_tells_of_units_that_fail(tiny: Any, tmp_path: Path) -> None:
    catalog = Path(shutil.copytree(tiny.root, tmp_path / "catalog"))
    next(catalog.rglob("S2-1/B04.tif")).write_bytes(b"no image")
    flags = ["--aoi", tiny.aoi, "--catalog", str(catalog), "--chip-px", "24", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["build-shards", *flags, "--workers", "0", "--progress", "json"])
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert lines[0]["event"] == "planned"
    assert sorted(line["event"] for line in lines[1:-1]) in (["failed", "unit", "unit"], ["unit"] * 3)
    assert lines[-1]["event"] == "end"
    assert lines[-1]["done"] + lines[-1]["failed"] == 3


def test_quick_builds_say_little(make_request: Callable[..., Request], capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress() as bar:
        bar.planned(make_plan(make_request()), 0)
        bar.unit_done(UnitDone(unit_id="u00000", counts=Counter(accepted=6), bytes=1))
    assert capsys.readouterr().err.splitlines() == ["plan: 18 chips in 3 units"]
    alone = make_plan(make_request())
    alone = replace(alone, units=(replace(alone.units[0], tasks=alone.units[0].tasks[:1]),))
    with BuildProgress() as bar:
        bar.planned(alone, 0)
    assert capsys.readouterr().err.splitlines() == ["plan: 1 chip in 1 unit"]
