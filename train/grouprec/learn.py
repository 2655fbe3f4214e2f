"""A run's steps: on what pseudo-groups say, over all users, and on pairs, a batch at a time."""

from dataclasses import dataclass

import numpy as np
import torch

from train.grouprec import pairwise, pretext, rowwise
from train.grouprec.graph import Graph
from train.grouprec.interactions import Ints
from train.grouprec.modes import FitConfig, GroupingConfig
from train.grouprec.peers import Peers
from train.grouprec.pretext import Targets
from train.grouprec.sampling import Epoch
from train.grouprec.sphere import Vectors
from train.grouprec.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What does not change while a state learns."""

    config: FitConfig
    """The run."""
    graph: Graph
    """In front of every score."""
    peers: Peers
    """The ranks."""
    n_users: int
    """Rows of the table before those of items."""

    def from_pairs(self, state: State, pairs: Epoch) -> tuple[float, float]:
        """An epoch; its mean loss, and the length of its last gradient."""
        config, n_users = self.config, self.n_users
        if config.forgetful:
            for name in ("table", "head"):
                state.memories.pop(name, None)
        nodes_3P = np.stack((pairs.users_P, pairs.liked_P + n_users, pairs.others_P + n_users))
        places_N = np.empty(len(state.table_ND), np.int64)
        loss, gradient = np.zeros(1), np.zeros((0, config.width), np.float32)
        for start in range(0, nodes_3P.shape[1], config.batch):
            part, gradient = self._step(state, nodes_3P[:, start : start + config.batch], places_N)
            loss += part
        mean = float(self.peers.total(loss)[0]) / max(nodes_3P.shape[1], 1)
        return mean, float(np.linalg.norm(gradient))

    def _step(self, state: State, nodes_3B: Ints, places_N: Ints) -> tuple[float, Vectors]:
        """Learn from a batch; the sum of this rank's losses, and the gradient by the vectors that moved."""
        count, config = nodes_3B.shape[1], self.config
        nodes = nodes_3B[:, self.peers.share(count)].reshape(-1)
        vectors_3BD = self.graph.spread(state.table_ND).take(nodes, axis=0).reshape(3, -1, config.width)
        found = pairwise.gradient(
            vectors_3BD, state.head_1W, config.scorer, temperature=config.temperature, pairs=count
        )
        nodes, by_vectors = self.peers.rows(nodes, found.vectors_3BD.reshape(-1, config.width), count)
        gradient = self._move_rows(state, nodes, by_vectors, places_N)
        if config.scorer != "dot":
            memory = state.memory("head", state.head_1W, config)
            rowwise.step(state.head_1W, memory, None, self.peers.total(found.head_1W), lr=config.lr)
        return float(pairwise.softplus(found.margin_B).sum()), gradient

    def _move_rows(self, state: State, nodes: Ints, by_vectors: Vectors, places_N: Ints) -> Vectors:
        """Move the vectors of a batch of all ranks; the gradient."""
        config, table = self.config, state.table_ND
        memory = state.memory("table", table, config)
        rows: Ints | None
        rows, gradient = _by_row(nodes, by_vectors, places_N)
        if config.layers:
            everywhere = np.zeros_like(table)
            everywhere[rows] = gradient
            rows, gradient = None, self.graph.spread(everywhere)
        rowwise.step(table, memory, rows, gradient, lr=config.lr)
        return gradient

    def from_groups(self, state: State, grouping: GroupingConfig, targets: Targets) -> tuple[float, float]:
        """One step on the pretext losses of all users; both before it."""
        config = grouping.pretext
        spread = torch.from_numpy(self.graph.spread(state.table_ND).copy()).requires_grad_()
        centers = torch.from_numpy(state.center_GD.copy()).requires_grad_()
        own_U = torch.from_numpy(state.assignment_U)
        users = slice(0, self.n_users)
        pulled = own_U >= 0 if config.pull == "nearest" else users
        pull = pretext.pull_and_repulsion(spread[users][pulled], centers, own_U[pulled], config)
        fit = pretext.fit_groups(centers, spread[self.n_users :], targets)
        parts = {"pull": config.pull_weight * pull, "fit": config.fit_weight * fit}
        wholes = {"table": parts["pull"] + parts["fit"]} if grouping.joint else parts
        for name, loss in wholes.items():
            by_vectors, by_centers = torch.autograd.grad(loss, (spread, centers), retain_graph=True)
            self._move_table(state, name, by_vectors.numpy())
            if grouping.learned:
                memory = state.memory("centers", state.center_GD, self.config)
                rowwise.step(state.center_GD, memory, None, by_centers.numpy(), lr=self.config.lr)
        return float(pull.detach()), float(fit.detach())

    def _move_table(self, state: State, loss: str, by_vectors: Vectors) -> None:
        """Move what a loss is about: users, items, or all; each loss with a memory of its own."""
        rows = {"pull": slice(0, self.n_users), "fit": slice(self.n_users, None)}.get(loss, slice(None))
        part = state.table_ND[rows]
        gradient = self.graph.spread(by_vectors)[rows]
        rowwise.step(part, state.memory(loss, part, self.config), None, gradient, lr=self.config.lr)


def _by_row(nodes: Ints, by_vectors: Vectors, places_N: Ints) -> tuple[Ints, Vectors]:
    """Each node once, with the sum of its gradients.

    Why no `unique`: it sorts, for a tenth of a step. Every node's place is written down, so that the last one stays;
    the few that read another's place are added to it.

    Args:
        nodes: (R,) with repetitions.
        by_vectors: (R, D), overwritten.
        places_N: room for a number for each node there is.
    """
    own = np.arange(len(nodes))
    places_N[nodes] = own
    last = places_N.take(nodes)
    stays = last == own
    again, kept = np.flatnonzero(~stays), np.flatnonzero(stays)
    read, added = torch.from_numpy(last[again]), torch.from_numpy(by_vectors[again])
    torch.from_numpy(by_vectors).index_add_(0, read, added)  # np.add.at takes ten times as long
    return nodes[kept], by_vectors.take(kept, axis=0)
