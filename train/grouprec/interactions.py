"""Who has what: sets of (row, column) pairs in compressed rows, and what is evaluated on.

Axes: U users, I items, G groups, E pairs, R test rows, N negatives of a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""Numbers of users, items or groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A set of (row, column) pairs: users' items, groups' members."""

    n_rows: int
    """Rows, empty ones included."""
    n_columns: int
    """Columns, unused ones included."""
    keys_E: Ints
    """`row * n_columns + column`, ascending, each once."""
    starts: Ints
    """(n_rows + 1,) Row r holds the keys from `starts[r]` to `starts[r + 1]`."""

    @staticmethod
    def of(rows: Ints, columns: Ints, shape: tuple[int, int]) -> "Pairs":
        """The set of pairs of two arrays of one length; repeated pairs collapse to one."""
        keys = np.unique(rows.astype(np.int64) * shape[1] + columns)
        starts = np.searchsorted(keys, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        return Pairs(n_rows=shape[0], n_columns=shape[1], keys_E=keys, starts=starts)

    def __len__(self) -> int:
        return len(self.keys_E)

    @property
    def counts(self) -> Ints:
        """(n_rows,) Pairs of each row."""
        return np.diff(self.starts)

    def split(self) -> tuple[Ints, Ints]:
        """Rows and columns, (E,) each, ordered by row, then column."""
        return self.keys_E // self.n_columns, self.keys_E % self.n_columns

    def row(self, row: int) -> Ints:
        """Columns of one row, ascending."""
        return self.keys_E[self.starts[row] : self.starts[row + 1]] - row * self.n_columns

    def has(self, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
        """Whether each pair is in the set, by binary search; `rows` and `columns` broadcast."""
        if not len(self):
            return np.zeros(np.broadcast_shapes(rows.shape, columns.shape), np.bool_)
        keys = rows * self.n_columns + columns
        at = np.searchsorted(self.keys_E, keys).clip(max=len(self) - 1)
        found: NDArray[np.bool_] = self.keys_E[at] == keys
        return found

    def without(self, dropped: NDArray[np.bool_]) -> "Pairs":
        """The set less some of its pairs; `dropped` is (E,)."""
        rows, columns = self.split()
        return Pairs.of(rows[~dropped], columns[~dropped], (self.n_rows, self.n_columns))

    def transposed(self) -> "Pairs":
        """The set with rows and columns exchanged."""
        rows, columns = self.split()
        return Pairs.of(columns, rows, (self.n_columns, self.n_rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Test rows: for each a user or group, one held-out item, and items to rank it among."""

    ids_R: Ints
    """Users or groups."""
    positives_R: Ints
    """Items."""
    negatives_RN: Ints
    """Items, defects included; N is 0 where none are listed."""

    def __len__(self) -> int:
        return len(self.ids_R)

    def where(self, kept_R: NDArray[np.bool_] | slice) -> "Cases":
        """Some of the rows."""
        return Cases(
            ids_R=self.ids_R[kept_R], positives_R=self.positives_R[kept_R], negatives_RN=self.negatives_RN[kept_R]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What users, items and groups are called outside: number i is `users[i]`."""

    users: NDArray[np.object_] | Ints
    """(U,)"""
    items: NDArray[np.object_] | Ints
    """(I,)"""
    groups: NDArray[np.object_] | Ints
    """(G,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Interactions and all that is measured with them. Only `user_items` is trained on."""

    user_items: Pairs
    """(U, I) Training positives."""
    members: Pairs
    """(G, U) True membership, for evaluation only; G is 0 where there is none."""
    group_items: Pairs
    """(G, I) Groups' training positives: never trained on, known to be leaked into tests."""
    user_cases: Cases
    """Held-out items of users."""
    group_cases: Cases
    """Held-out items of groups."""
    names: Names
    """What the numbers stand for."""

    @property
    def n_users(self) -> int:
        """U."""
        return self.user_items.n_rows

    @property
    def n_items(self) -> int:
        """I."""
        return self.user_items.n_columns

    @property
    def n_groups(self) -> int:
        """G."""
        return self.members.n_rows


def no_cases() -> Cases:
    """Nothing to test."""
    empty = np.zeros(0, np.int64)
    return Cases(ids_R=empty, positives_R=empty, negatives_RN=np.zeros((0, 0), np.int64))
