"""Trained vectors → scores of items for users, for groups of known members, and for anyone together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.grouprec import sphere
from train.grouprec.interactions import Ints, Pairs
from train.grouprec.modes import Together
from train.grouprec.names import ScorerName
from train.grouprec.pairwise import sigmoid, weights
from train.grouprec.sphere import Vectors
from train.grouprec.ties import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorScorer:
    """Scores by vectors. All in float32, as trained: a sigmoid saturates there."""

    user_UD: Vectors
    """Of users."""
    item_ID: Vectors
    """Of items."""
    head_1W: Vectors
    """Weights of the network; none for inner products."""
    scorer: ScorerName
    """Of a user and an item."""
    members: Pairs
    """(G, U) Who is scored together."""
    counted_U: NDArray[np.bool_]
    """Which members count, unless none of a group does."""
    center_GD: Vectors
    """Of pseudo-groups, for `center`."""
    together: Together
    """How members become one score."""

    def users(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Scores."""
        return self.score(self.user_UD[ids_B][:, None], self.item_ID[items_BC])

    def groups(self, ids_B: Ints, items_BC: Ints) -> Floats:
        """(B, C) Scores."""
        rows = [
            self.jointly(self.members.row(group), items[None])[0]
            for group, items in zip(ids_B.tolist(), items_BC, strict=True)
        ]
        return np.stack(rows)

    def jointly(self, members: Ints, items_1C: Ints) -> Floats:
        """(1, C) Scores for some users together; for nobody all items are alike."""
        members = members[self.counted_U[members]] if self.counted_U[members].any() else members
        if not len(members):
            return np.zeros(items_1C.shape, np.float32)
        user_MD, item_1CD = self.user_UD[members], self.item_ID[items_1C]
        if self.together in ("scores", "misery"):
            scores_MC = self.score(user_MD[:, None], item_1CD)
            joined: Floats = scores_MC.mean(axis=0) if self.together == "scores" else scores_MC.min(axis=0)
            return joined[None]
        mean_1D = user_MD.mean(axis=0, keepdims=True)
        if self.together == "center" and len(self.center_GD):
            mean_1D = self._center_near(mean_1D)
        return self.score(mean_1D[:, None], item_1CD)

    def score(self, user: Vectors, item: Vectors) -> Floats:
        """(...) Scores of vectors, (..., D), that broadcast.

        Source: itr.md, section 2.1.
        """
        product: Floats = user * item
        if self.scorer == "dot":
            summed: Floats = product.sum(axis=-1)
            return summed
        first, biases, second, bias = weights(self.head_1W, product.shape[-1])
        raw: Floats = np.maximum(product @ first.T + biases[:, 0], 0) @ second + bias
        if self.scorer == "mlp":
            return raw
        return sigmoid(raw)

    def _center_near(self, mean_1D: Vectors) -> Vectors:
        """The nearest centre, made as long as the mean: scores were not trained on the scale of unit vectors' means."""
        center_1D = sphere.units(self.center_GD[sphere.nearest(mean_1D, self.center_GD)])
        scaled: Vectors = center_1D * np.linalg.norm(mean_1D)
        return scaled
