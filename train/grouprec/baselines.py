"""Scorers without training by gradient: popularity and EASE. A group's score is the mean of its members'."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from train.grouprec.interactions import Dataset, Ints, Pairs
from train.grouprec.ties import Floats

_DENSE_BYTES = 4 << 30
"""EASE refuses to hold more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """Every user and group likes what most users have."""

    counts_I: Ints
    """Users that have an item."""

    @staticmethod
    def of(data: Dataset) -> "Popularity":
        """From the training positives."""
        return Popularity(counts_I=data.user_items.transposed().counts)

    def users(self, ids_B: Ints, items_BC: Ints) -> Floats:  # noqa: ARG002 - the scorers' signature
        """(B, C) Scores."""
        return self.counts_I[items_BC].astype(np.float32)

    groups = users


@dataclass(frozen=True, slots=True, kw_only=True)
class Ease:
    """The shallow linear autoencoder of Steck (2019), in closed form."""

    scores_UI: NDArray[np.float32]
    """Of every user and item."""
    members: Pairs
    """(G, U)"""

    @staticmethod
    def of(data: Dataset, *, penalty: float = 200.0) -> "Ease":
        """From the training positives.

        With X (U, I), K = X X' + penalty 1 and P = (X' X + penalty 1)^-1 the scores are X - (X P) / diag(P) by column.
        X P = K^-1 X, so that the smaller of U and I decides the cost.

        Raises:
            UsageError: the scores of all users and items do not fit into a few gigabytes.
        """
        if 8 * data.n_users * data.n_items > _DENSE_BYTES:
            raise UsageError(
                f"EASE holds {data.n_users} x {data.n_items} scores, over {_DENSE_BYTES >> 30} GB. Leave it out."
            )
        warm = np.flatnonzero(data.user_items.counts)
        dense = np.zeros((data.n_users, data.n_items))
        dense[data.user_items.split()] = 1.0
        scores = np.zeros(dense.shape, np.float32)
        scores[warm] = _solved(dense[warm], penalty)
        return Ease(scores_UI=scores, members=data.members)

    def users(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Scores."""
        return self.scores_UI[ids_B[:, None], items_BC]

    def groups(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Means of the members' scores; 0 for a group without members."""
        scores_BC = np.zeros(items_BC.shape, np.float32)
        for row, (group, items) in enumerate(zip(ids_B.tolist(), items_BC, strict=True)):
            members = self.members.row(group)
            if len(members):
                scores_BC[row] = self.scores_UI[members[:, None], items].mean(axis=0)
        return scores_BC


def _solved(x_UI: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    n_users, n_items = x_UI.shape
    if n_users < n_items:
        kernel = x_UI @ x_UI.T + penalty * np.eye(n_users)
        xp_UI = np.linalg.solve(kernel, x_UI)
        diagonal_I = (1 - (x_UI * xp_UI).sum(axis=0)) / penalty
    else:
        inverse = np.linalg.inv(x_UI.T @ x_UI + penalty * np.eye(n_items))
        xp_UI, diagonal_I = x_UI @ inverse, np.diag(inverse)
    scores: NDArray[np.float64] = x_UI - xp_UI / diagonal_I
    return scores
