"""What a person sees without a terminal: plain lines on standard error."""

from collections import Counter
from collections.abc import Callable

import pytest

from ingest import progress
from ingest.build import UnitDone
from ingest.planner import make_plan
from ingest.progress import BuildProgress
from ingest.request import Request

pytestmark = pytest.mark.ingest


def test_plain_lines(
    make_request: Callable[..., Request], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", -1.0)
    plan = make_plan(make_request())
    with BuildProgress() as bar:
        bar.planned(plan, 1)
        for unit_id in ("u00001", "u00002"):
            bar.unit_done(UnitDone(unit_id=unit_id, counts=Counter(accepted=4, cloud=2), bytes=1_500_000))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "plan: 18 chips in 3 units, 1 done before",
        "units 2/3 · 1.5 MB · 4 accepted · 2 cloud",
        "units 3/3 · 3.0 MB · 8 accepted · 4 cloud",
    ]


def test_quick_builds_say_little(make_request: Callable[..., Request], capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress() as bar:
        bar.planned(make_plan(make_request()), 0)
        bar.unit_done(UnitDone(unit_id="u00000", counts=Counter(accepted=6), bytes=1))
    assert capsys.readouterr().err.splitlines() == ["plan: 18 chips in 3 units"]
