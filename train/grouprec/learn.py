"""A run's steps: on what pseudo-groups say, over all users, and on pairs, a batch at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from train.grouprec import pairwise, pretext, rowwise
from train.grouprec.graph import Graph
from train.grouprec.modes import FitConfig, GroupingConfig
from train.grouprec.peers import Peers
from train.grouprec.pretext import Targets
from train.grouprec.sampling import Epoch
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
        columns = (pairs.users_P, pairs.liked_P + n_users, pairs.others_P + n_users)
        nodes_3P = torch.from_numpy(np.stack(columns))
        margins, gradient = [torch.zeros(0)], torch.zeros(0)
        for start in range(0, nodes_3P.shape[1], config.batch):
            margin_B, gradient = self._step(state, nodes_3P[:, start : start + config.batch])
            margins.append(margin_B)
        loss = self.peers.total(softplus(torch.cat(margins)).sum())
        return float(loss) / max(nodes_3P.shape[1], 1), float(torch.linalg.vector_norm(gradient))

    def _step(self, state: State, nodes_3B: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from a batch; this rank's margins, and the gradient by the vectors that moved."""
        count, config = nodes_3B.shape[1], self.config
        own_3B = nodes_3B[:, self.peers.share(count)]
        nodes = own_3B.flatten()
        vectors_3BD = self.graph.spread(state.table_ND).index_select(0, nodes).view(3, -1, config.width)
        found = pairwise.gradient(
            vectors_3BD[0],
            vectors_3BD[1:],
            state.head_1W,
            config.scorer,
            temperature=config.temperature,
            pairs=count,
        )
        by_vectors = torch.cat((found.user_BD, found.items_2BD.view(-1, config.width)))
        gradient = self._move_rows(state, nodes, by_vectors, most=3 * -(-count // self.peers.world_size))
        if config.scorer != "dot":
            memory = state.memory("head", state.head_1W, config)
            rowwise.step(state.head_1W, memory, None, self.peers.total(found.head_1W), lr=config.lr)
        return found.margin_B, gradient

    def _move_rows(self, state: State, nodes: Tensor, by_vectors: Tensor, *, most: int) -> Tensor:
        """Move the vectors of a batch of all ranks, of which none has more than `most` here; the gradient."""
        config, table = self.config, state.table_ND
        memory = state.memory("table", table, config)
        nodes, by_vectors = self.peers.rows(nodes, by_vectors, most)
        if config.layers:
            gradient = self.graph.spread(torch.zeros_like(table).index_add_(0, nodes, by_vectors))
            rowwise.step(table, memory, None, gradient, lr=config.lr)
            return gradient
        rows, at = torch.unique(nodes, return_inverse=True)
        summed = by_vectors.new_zeros(len(rows), config.width)
        summed.scatter_add_(0, at.unsqueeze(1).expand_as(by_vectors), by_vectors)
        rowwise.step(table, memory, rows, summed, lr=config.lr)
        return summed

    def from_groups(self, state: State, grouping: GroupingConfig, targets: Targets) -> tuple[float, float]:
        """One step on the pretext losses of all users; both before it."""
        config = grouping.pretext
        spread = self.graph.spread(state.table_ND).clone().requires_grad_()
        centers = state.center_GD.clone().requires_grad_()
        own_U = state.assignment_U
        users = slice(0, self.n_users)
        pulled = own_U >= 0 if config.pull == "nearest" else users
        pull = pretext.pull_and_repulsion(spread[users][pulled], centers, own_U[pulled], config)
        fit = pretext.fit_groups(centers, spread[self.n_users :], targets)
        parts = {"pull": config.pull_weight * pull, "fit": config.fit_weight * fit}
        wholes = {"table": parts["pull"] + parts["fit"]} if grouping.joint else parts
        for name, loss in wholes.items():
            by_vectors, by_centers = torch.autograd.grad(loss, (spread, centers), retain_graph=True)
            self._move_table(state, name, by_vectors)
            if grouping.learned:
                memory = state.memory("centers", state.center_GD, self.config)
                rowwise.step(state.center_GD, memory, None, by_centers, lr=self.config.lr)
        return float(pull.detach()), float(fit.detach())

    def _move_table(self, state: State, loss: str, by_vectors: Tensor) -> None:
        """Move what a loss is about: users, items, or all; each loss with a memory of its own."""
        rows = {"pull": slice(0, self.n_users), "fit": slice(self.n_users, None)}.get(loss, slice(None))
        part = state.table_ND[rows]
        gradient = self.graph.spread(by_vectors)[rows]
        rowwise.step(part, state.memory(loss, part, self.config), None, gradient, lr=self.config.lr)
