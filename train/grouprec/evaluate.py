"""A scorer's figures: of users and groups, by protocol, with and without leaked rows, for each order of ties."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from train.grouprec import candidates, names, ties
from train.grouprec.defects import leaked
from train.grouprec.interactions import Cases, Dataset, Ints, Pairs
from train.grouprec.ties import Figures, Floats, Standing

Who = Literal["user", "group"]


class Scorer(Protocol):
    """What is evaluated."""

    def users(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Scores of items for users; higher is better."""

    def groups(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Scores of items for groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of a table."""

    who: Who
    """Users or groups."""
    protocol: names.Protocol
    """Among which items."""
    without_leaked: bool
    """Rows that are in training, too, are left out."""
    rows: int
    """Test rows."""
    ties: float
    """Candidates that score as the held-out one, itself included; mean over the rows."""
    expected: Figures
    """Over a random order of ties: the honest figures."""
    first: Figures
    """The held-out item wins ties."""
    last: Figures
    """It loses them."""
    argsort: Figures
    """As published evaluators leave them: numpy's `argsort`, the held-out item listed first."""

    @property
    def gap(self) -> float:
        """Largest difference that the order of ties makes to a figure."""
        pairs = ((self.first.hr, self.last.hr), (self.first.ndcg, self.last.ndcg))
        return max(first[cut] - last[cut] for first, last in pairs for cut in first)

    @property
    def warning(self) -> str | None:
        """What to say where ties decide the figures."""
        if self.gap <= ties.SUSPICIOUS:
            return None
        return (
            f"{self.who}, {self.protocol}: the order of ties moves a figure by {self.gap:.3f} ({self.ties:.1f} of the "
            "candidates score the same as the held-out item): only the expected value tells what the scores know."
        )


def results(scorer: Scorer, data: Dataset, protocols: Iterable[names.Protocol] = ("listed",)) -> list[Result]:
    """All lines for a scorer; what has no test rows, or no listed negatives where they are asked for, is left out."""
    sides: tuple[tuple[Who, Cases, Pairs], ...] = (
        ("user", data.user_cases, data.user_items),
        ("group", data.group_cases, data.group_items),
    )
    wanted = [(*side, protocol) for side in sides for protocol in protocols]
    return [
        line
        for who, cases, known, protocol in wanted
        if len(cases) and (protocol == "full" or cases.negatives_RN.size)
        for line in _lines(scorer, who, protocol, cases=cases, known=known)
    ]


def stand(scorer: Scorer, who: Who, cases: Cases, known: Pairs, *, protocol: names.Protocol) -> Standing:
    """Where held-out items stand under a scorer.

    Raises:
        UsageError: a score is not finite.
    """
    score = scorer.users if who == "user" else scorer.groups
    return ties.joined(
        [
            ties.standing(score(batch.ids_B, batch.items_BC), batch.valid_BC)
            for batch in candidates.batches(cases, known, protocol)
        ]
    )


def _lines(scorer: Scorer, who: Who, protocol: names.Protocol, *, cases: Cases, known: Pairs) -> list[Result]:
    found = stand(scorer, who, cases, known, protocol=protocol)
    spoiled_R = leaked(cases, known)
    lines = [_result(found, who, protocol, without_leaked=False)]
    if spoiled_R.any():
        rest = Standing(**{name: getattr(found, name)[~spoiled_R] for name in Standing.__dataclass_fields__})
        lines.append(_result(rest, who, protocol, without_leaked=True))
    return lines


def _result(found: Standing, who: Who, protocol: names.Protocol, *, without_leaked: bool) -> Result:
    return Result(
        who=who,
        protocol=protocol,
        without_leaked=without_leaked,
        rows=len(found.tied_R),
        ties=float(np.mean(found.tied_R)) if len(found.tied_R) else 0.0,
        **{order: ties.figures(found, order) for order in ties.ORDERS},
    )
