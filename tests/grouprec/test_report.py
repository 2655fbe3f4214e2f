"""The page needs nothing else, says what its numbers say, and tells when ties decide and when groups bring nothing."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest

from pipeline.store import Store
from train.grouprec import findings, planted_check, report, tabulate
from train.grouprec.evaluate import Result
from train.grouprec.fit import Report
from train.grouprec.modes import recommended
from train.grouprec.outcome import Grouping, Outcome
from train.grouprec.ties import Figures

pytestmark = pytest.mark.train


def _figures(value: float) -> Figures:
    return Figures(hr={"5": value, "10": value}, ndcg={"5": value, "10": value})


@pytest.fixture
def outcome_of() -> Callable[..., Outcome]:
    """An outcome of a method whose figures are all one value, and another one in the published order."""

    def make(method: str, value: float, *, published: float | None = None, seed: int = 0) -> Outcome:
        first = value if published is None else published
        result = Result(
            who="group",
            protocol="listed",
            without_leaked=False,
            rows=7,
            ties=1 if published is None else 90,
            expected=_figures(value),
            first=_figures(first),
            last=_figures(2 * value - first),
            argsort=_figures(first),
        )
        return Outcome(
            method=method,
            data="<some> data",
            seed=seed,
            config=recommended("x"),
            protocols=("listed",),
            results=(result,),
            grouping=Grouping(identifier="gim", sizes=(5, 2), silhouette=0.5, adjusted_rand=None),
            epochs=(),
            kept_epoch=3,
            seconds=1.5,
            memory_mb=100.0,
        )

    return make


class _Tags(HTMLParser):
    """Every tag that opens is closed in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "polyline", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_refers_to_nothing(outcome_of: Callable[..., Outcome], tmp_path: Path) -> None:
    checks = [planted_check._one("gim", 3, 0.3, 1)]
    report.publish(Store.at(str(tmp_path)), [outcome_of("reference", 0.05, published=0.9)], checks, ["1 row is bad."])
    page = (tmp_path / "report.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "&lt;some&gt; data" in page
    assert "<some>" not in page
    assert all(text in page for text in ("0.050", "0.900", "1 row is bad.", "3 groups, noise 0.3", "5, 2", "90.0"))
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["outcomes"][0]["results"][0]["expected"]["hr"]["5"] == 0.05


def _report(epoch: int, value: float | None) -> Report:
    return Report(
        epoch=epoch,
        bpr=1 / epoch,
        pull=None,
        fit=None,
        groups=0,
        validation=value,
        pairs=1,
        grad_norm=0.0,
        drawn="",
        seconds=1.0,
    )


def test_curves_say_their_ranges_and_mark_the_epoch_that_was_kept(outcome_of: Callable[..., Outcome]) -> None:
    epochs = tuple(_report(epoch, value) for epoch, value in ((1, 0.1), (2, None), (3, 0.5), (4, 0.3)))
    drawn = report._convergence(replace(outcome_of("bpr", 0.4), epochs=epochs))
    assert "loss 1.000 to 0.250, validation NDCG@10 0.100 to 0.500, epoch 3 kept" in drawn
    assert f'd="M{report._WIDTH * 3 / 4:.1f} 0' in drawn


def test_a_browser_shows_it(outcome_of: Callable[..., Outcome], tmp_path: Path) -> None:
    epochs = tuple(_report(epoch, value) for epoch, value in ((1, 0.1), (2, None), (3, 0.5), (4, 0.3)))
    one = replace(outcome_of("reference", 0.05, published=0.9), epochs=epochs)
    html = report.page([one, outcome_of("bpr", 0.4)], [planted_check._one("gim", 3, 0.3, 1)], ["1 row is bad."])
    seen, complaints, _ = browser.look(html, tmp_path, widths=(400, 1280))
    assert complaints == []
    for one_width in seen:
        assert one_width.width <= one_width.window, "wider than its window"
        assert "Time and memory" in one_width.text


def test_a_page_about_nothing_is_a_page() -> None:
    tags = _Tags()
    tags.feed(report.page([], [], []))
    assert tags.open == []


def test_what_ties_decide_is_said(outcome_of: Callable[..., Outcome]) -> None:
    lines = tabulate.lines([outcome_of("reference", 0.05, published=0.9), outcome_of("bpr", 0.4)])
    (said,) = findings.gaps(lines)
    assert "reference: NDCG@5 reads 0.900" in said
    assert "0.050 over a random order" in said


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(0.0, "nothing beyond the noise"), (0.1, "a gain"), (-0.1, "a loss"), (0.001, "nothing beyond")],
)
def test_what_groups_bring_is_said(outcome_of: Callable[..., Outcome], gain: float, verdict: str) -> None:
    seeds = [0.40, 0.41, 0.42]
    outcomes = [outcome_of("ungrouped", value, seed=at) for at, value in enumerate(seeds)]
    outcomes += [outcome_of("recommended", value + gain, seed=at) for at, value in enumerate(seeds)]
    (said,) = findings.worth(tabulate.lines(outcomes))
    assert verdict in said


def test_the_best_is_named_with_those_that_are_no_worse(outcome_of: Callable[..., Outcome]) -> None:
    near = [outcome_of("a", value, seed=at) for at, value in enumerate((0.40, 0.42))]
    near += [outcome_of("b", value, seed=at) for at, value in enumerate((0.41, 0.42))]
    (said,) = findings.best(tabulate.lines([*near, outcome_of("c", 0.1)]))
    assert "best is b with 0.415" in said
    assert "no worse as far as the seeds tell: a." in said


def test_lines_are_means_over_seeds(outcome_of: Callable[..., Outcome]) -> None:
    one, other = outcome_of("a", 0.2), replace(outcome_of("a", 0.4), seed=1)
    (line,) = tabulate.lines([one, other])
    assert line.figures["expected"][0].mean == pytest.approx(0.3)
    assert line.figures["expected"][0].seeds == 2
    assert tabulate.warnings([outcome_of("r", 0.05, published=0.9)])[0].startswith("r, group, listed")
