"""What is wrong with a split: counted, never repaired here. The evaluation offers to work around each.

Source: itr.md, section 1, and the README of the benchmark files.
"""

from dataclasses import dataclass

import numpy as np

from pipeline import record
from train.grouprec.interactions import Cases, Dataset, Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class LineDefects:
    """What only the files show."""

    repeated_train: int = 0
    """Training lines that repeat an earlier pair."""
    unrated: int = 0
    """Training lines with rating 0, which are left out."""
    unrated_tests: int = 0
    """Test lines with rating 0, which are tested all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideDefects:
    """Of the users' files, or of the groups'."""

    own_positive: int
    """Test rows whose positive is among its own negatives."""
    train_positives: int
    """Listed negatives that are training positives of the same row."""
    repeated_negatives: int
    """Test rows that list an item twice."""
    leaked: int
    """Test rows whose pair is in training, too."""
    repeated_tests: int
    """Test rows that repeat an earlier one."""
    lines: LineDefects
    """Of the files."""
    without_items: int
    """Users without a training item, or groups none of whose members has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defects:
    """All that was found."""

    user: SideDefects
    """Of users."""
    group: SideDefects
    """Of groups."""
    cold_members: int
    """Memberships of users without a training item."""
    groups_without_members: int
    """Groups that are tested or trained on, but have no member."""
    unreachable: int
    """Group test rows whose item no member has in training: user-item data alone says little of them."""

    def sentences(self) -> list[str]:
        """For people; what was not found is not mentioned."""
        said = [
            f"{value} {what}" for value, what in ((getattr(self, name), text) for name, text in _OWN.items()) if value
        ]
        for who in ("user", "group"):
            side = getattr(self, who)
            counts = record.to_json(side) | record.to_json(side.lines)
            said += [f"{who}: {counts[name]} {text}" for name, text in _SIDE.items() if counts[name]]
        return said


_OWN = {
    "cold_members": "memberships are of users without a training item.",
    "groups_without_members": "groups have no members and cannot be scored.",
    "unreachable": "group test items are in no member's training history.",
}
_SIDE = {
    "own_positive": "test rows list their positive among their negatives.",
    "train_positives": "listed negatives are training positives of their row.",
    "repeated_negatives": "test rows list a negative twice.",
    "leaked": "test pairs are in training, too.",
    "repeated_tests": "test rows repeat an earlier one.",
    "repeated_train": "training lines repeat an earlier pair.",
    "unrated": "training lines are rated 0 and left out.",
    "unrated_tests": "test lines are rated 0 and tested all the same.",
    "without_items": "have no training item (a group: none of its members).",
}


def find(data: Dataset, *, user: LineDefects, group: LineDefects) -> Defects:
    """Count the defects of a data set, besides those of its files' lines."""
    warm = data.user_items.counts > 0
    member_of, member = data.members.split()
    history = np.bincount(member_of[warm[member]], minlength=data.n_groups)
    return Defects(
        user=_side(data.user_items, data.user_cases, user, without_items=int((~warm).sum())),
        group=_side(data.group_items, data.group_cases, group, without_items=int((history == 0).sum())),
        cold_members=int((~warm[member]).sum()),
        groups_without_members=int((data.members.counts == 0).sum()),
        unreachable=int((~reachable(data)).sum()),
    )


def leaked(cases: Cases, train: Pairs) -> np.ndarray:
    """(R,) Whether a test row's pair is in training, too."""
    return train.has(cases.ids_R, cases.positives_R)


def reachable(data: Dataset) -> np.ndarray:
    """(R,) Whether some member of a group test row's group has its item in training."""
    return np.array(
        [
            data.user_items.has(data.members.row(group), item).any()
            for group, item in zip(data.group_cases.ids_R.tolist(), data.group_cases.positives_R, strict=True)
        ],
        np.bool_,
    )


def _side(train: Pairs, cases: Cases, lines: LineDefects, *, without_items: int) -> SideDefects:
    ordered = np.sort(cases.negatives_RN, axis=1)
    keys = cases.ids_R * train.n_columns + cases.positives_R
    return SideDefects(
        own_positive=int((cases.negatives_RN == cases.positives_R[:, None]).any(axis=1).sum()),
        train_positives=int(train.has(cases.ids_R[:, None], cases.negatives_RN).sum()),
        repeated_negatives=int((ordered[:, 1:] == ordered[:, :-1]).any(axis=1).sum()),
        leaked=int(leaked(cases, train).sum()),
        repeated_tests=len(keys) - len(np.unique(keys)),
        lines=lines,
        without_items=without_items,
    )
