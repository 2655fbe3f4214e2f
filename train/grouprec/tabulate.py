"""Outcomes of several methods and seeds → the lines of a table, each figure a mean with its interval over seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from train.grouprec.evaluate import Result
from train.grouprec.intervals import Interval, interval
from train.grouprec.outcome import Outcome
from train.grouprec.ties import CUTS, ORDERS, Order

FIGURES = tuple(f"{kind}@{cut}" for kind in ("HR", "NDCG") for cut in CUTS)
"""Columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One method under one protocol."""

    data: str
    """The data's name."""
    method: str
    """Mode, or baseline."""
    who: str
    """`user` or `group`."""
    protocol: str
    """Among which items."""
    without_leaked: bool
    """Rows that are in training, too, are left out."""
    rows: int
    """Test rows."""
    ties: float
    """Candidates that score as the held-out one, itself included; mean over rows and seeds."""
    figures: dict[Order, tuple[Interval, ...]]
    """By order of ties, in the order of `FIGURES`."""


def lines(outcomes: Iterable[Outcome]) -> list[Line]:
    """Methods of a protocol beside each other, in the order in which they came."""
    found: dict[tuple[str, str, str, bool, str], list[Result]] = {}
    for one in outcomes:
        for result in one.results:
            key = (one.data, result.who, result.protocol, result.without_leaked, one.method)
            found.setdefault(key, []).append(result)
    ordered = sorted(found, key=lambda key: key[:4])
    return [_line(key, found[key]) for key in ordered]


def warnings(outcomes: Iterable[Outcome]) -> list[str]:
    """What ties decide, each method once."""
    said = [
        f"{one.method}, {result.warning}"
        for one in outcomes
        for result in one.results
        if result.warning is not None and not result.without_leaked
    ]
    return list(dict.fromkeys(said))


def values(result: Result, order: Order) -> tuple[float, ...]:
    """The figures of one order of ties, as `FIGURES` names them."""
    shown = getattr(result, order)
    return (*(shown.hr[str(cut)] for cut in CUTS), *(shown.ndcg[str(cut)] for cut in CUTS))


def _line(key: tuple[str, str, str, bool, str], results: Sequence[Result]) -> Line:
    data, who, protocol, without_leaked, method = key
    return Line(
        data=data,
        method=method,
        who=who,
        protocol=protocol,
        without_leaked=without_leaked,
        rows=results[0].rows,
        ties=sum(result.ties for result in results) / len(results),
        figures={
            order: tuple(
                interval(column) for column in zip(*(values(result, order) for result in results), strict=True)
            )
            for order in ORDERS
        },
    )
