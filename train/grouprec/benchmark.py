"""A folder in the format of Mafengwo and CAMRa2011 → a data set, with every known defect counted.

Reading rules of all published loaders: only ratings above 0 are trained on, while every test line is tested; repeated
pairs are one, ids count from 0, and users and groups share the items. `userFollow.txt` is not read: the method does not
use it.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.store import Store
from train.grouprec import lines
from train.grouprec.defects import Defects, LineDefects, find
from train.grouprec.interactions import Cases, Dataset, Names, Pairs
from train.grouprec.lines import Rated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The three files of users, or of groups."""

    train: Rated
    test: Rated
    cases: Cases


def read(url: str) -> tuple[Dataset, Defects]:
    """The data set in a local folder or at a URL, and what is wrong with it.

    Raises:
        UsageError: a file is missing, or a line is malformed.
    """
    store = Store.at(url)
    users, groups = _side(store, "user"), _side(store, "group")
    data = _dataset(users, groups, lines.members(store, "groupMember.txt"))
    return data, find(data, user=_lines(users, data.user_items), group=_lines(groups, data.group_items))


def _side(store: Store, who: str) -> _Side:
    train, test = lines.rated(store, f"{who}RatingTrain.txt"), lines.rated(store, f"{who}RatingTest.txt")
    listed = lines.negatives(store, f"{who}RatingNegative.txt", test)
    return _Side(train=train, test=test, cases=Cases(ids_R=test.ids, positives_R=test.items, negatives_RN=listed))


def _lines(side: _Side, positives: Pairs) -> LineDefects:
    return LineDefects(
        repeated_train=int(side.train.liked.sum()) - len(positives),
        unrated=int((~side.train.liked).sum()),
        unrated_tests=int((~side.test.liked).sum()),
    )


def _positives(train: Rated, shape: tuple[int, int]) -> Pairs:
    return Pairs.of(train.ids[train.liked], train.items[train.liked], shape)


def _dataset(users: _Side, groups: _Side, membership: tuple[np.ndarray, np.ndarray]) -> Dataset:
    n_users = _count(users.train.ids, users.test.ids, membership[1])
    n_groups = _count(groups.train.ids, groups.test.ids, membership[0])
    seen = [part for side in (users, groups) for part in (side.train.items, side.test.items, side.cases.negatives_RN)]
    n_items = _count(*seen)
    return Dataset(
        user_items=_positives(users.train, (n_users, n_items)),
        members=Pairs.of(*membership, (n_groups, n_users)),
        group_items=_positives(groups.train, (n_groups, n_items)),
        user_cases=users.cases,
        group_cases=groups.cases,
        names=Names(users=np.arange(n_users), items=np.arange(n_items), groups=np.arange(n_groups)),
    )


def _count(*ids: np.ndarray) -> int:
    return 1 + max((int(part.max()) for part in ids if part.size), default=-1)
