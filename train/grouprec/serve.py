"""Recommend from a trained run: to a user, to any users together, to a discovered group; and export the groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from train.grouprec.baselines import Popularity
from train.grouprec.fit import Trainer
from train.grouprec.interactions import Ints
from train.grouprec.scoring import VectorScorer
from train.grouprec.ties import Floats

_SHOWN = 10
"""Names in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Items for somebody."""

    who: str
    """As it was asked for."""
    items: tuple[str, ...]
    """Names, the best first."""
    scores: tuple[float, ...]
    """Of the items."""
    notes: tuple[str, ...]
    """What was left out, and why."""


class Server:
    """Answers from one run. Nothing is learned here: groups of any members are scored at once."""

    def __init__(self, trainer: Trainer) -> None:
        """Look the names up."""
        self._data, self._groups = trainer.data, trainer.state.groups()
        self._scorer: VectorScorer = trainer.scorer()
        self._warm_U = trainer.data.user_items.counts > 0
        self._number_of = {str(name): number for number, name in enumerate(trainer.data.names.users)}
        self._popular_I = Popularity.of(trainer.data).counts_I.astype(np.float32)

    def recommend(self, who: str, top: int) -> Recommendation:
        """Items that not all of them have.

        Args:
            who: `user:NAME`, `members:NAME,NAME,...` or `group:NUMBER`, of the exported groups.
            top: how many.

        Raises:
            UsageError: it is none of these, or there is no such group.
        """
        kind, _, text = who.partition(":")
        if kind == "group":
            return self._answer(who, self._group(text), top, [])
        names = [text] if kind == "user" else [name.strip() for name in text.split(",") if name.strip()]
        if kind not in ("user", "members") or not names or not text:
            raise UsageError(f"--recommend {who!r}: use user:NAME, members:NAME,NAME or group:NUMBER.")
        known = [self._number_of[name] for name in names if name in self._number_of]
        notes = _note(sorted(set(names) - self._number_of.keys()), "unknown and ignored")
        members = np.unique(np.array(known, np.int64))
        cold = members[~self._warm_U[members]]
        notes += _note([str(self._data.names.users[user]) for user in cold.tolist()], "without items and ignored")
        return self._answer(who, members[self._warm_U[members]], top, notes)

    def export(self, top: int) -> list[dict[str, Any]]:
        """The discovered groups: number, size, members, and top items with their scores."""
        exported = []
        for group, size in enumerate(self._groups.sizes.tolist()):
            members = np.flatnonzero(self._groups.assignment_U == group)
            best = self._answer(f"group:{group}", members, top, [])
            names = self._data.names.users[members].tolist()
            exported.append(
                {"group": group, "size": size, "members": names, "items": best.items, "scores": best.scores}
            )
        return exported

    def _group(self, text: str) -> Ints:
        count = len(self._groups.centers_GD)
        if not text.isdigit() or int(text) >= count:
            raise UsageError(f"--recommend group:{text}: there are {count} groups, from 0. Choose one of groups.json.")
        return np.flatnonzero(self._groups.assignment_U == int(text))

    def _answer(self, who: str, members: Ints, top: int, notes: Sequence[str]) -> Recommendation:
        scores_I, notes = self._popular_I, list(notes)
        if len(members):
            scores_I = self._scores(members)
        else:
            notes.append("nobody is left who has items: these are the most popular ones.")
        free_I = self._had_by_all(members)
        order = np.lexsort((-self._popular_I, -scores_I))  # of equal scores the more popular first
        best = order[~free_I[order]][:top]
        return Recommendation(
            who=who,
            items=tuple(str(name) for name in self._data.names.items[best]),
            scores=tuple(scores_I[best].astype(float).tolist()),
            notes=tuple(notes),
        )

    def _scores(self, members: Ints) -> Floats:
        scores_1I: Floats = self._scorer.jointly(members, np.arange(self._data.n_items)[None])
        return scores_1I.reshape(-1)

    def _had_by_all(self, members: Ints) -> np.ndarray:
        counts = np.zeros(self._data.n_items, np.int64)
        for user in members.tolist():
            counts[self._data.user_items.row(user)] += 1
        had: np.ndarray = (counts == len(members)) & (len(members) > 0)
        return had


def _note(names: Sequence[str], what: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{', '.join(names[:_SHOWN])}{more}: {what}."]
