"""The training: pseudo-groups now and then, steps on what they say, and an epoch of BPR. Read `Trainer.epoch` first.

On the CPU only: a step moves a few hundred rows, and what a GPU would save is less than what calling it costs.
"""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipeline.index import crc32c
from train.grouprec import evaluate, identify, pairwise, pretext, rowwise, sampling, ties
from train.grouprec.graph import Graph
from train.grouprec.interactions import Cases, Dataset, Pairs
from train.grouprec.modes import FitConfig, GroupingConfig
from train.grouprec.peers import Peers
from train.grouprec.pretext import Targets
from train.grouprec.scoring import VectorScorer
from train.grouprec.sphere import Vectors
from train.grouprec.state import begin
from train.grouprec.tables import hold_out

_VALIDATED = 10_000
"""Users whose held-out item decides which epoch is kept, at most."""
_NEGATIVES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an epoch went."""

    epoch: int
    """From 1."""
    bpr: float
    """Mean over the pairs."""
    pull: float | None
    """Of the last step; None without pseudo-groups."""
    fit: float | None
    """The same."""
    groups: int
    """Pseudo-groups."""
    validation: float | None
    """NDCG@10 of the held-out items, tie-aware; None where it was not taken."""
    pairs: int
    """That were learned from."""
    grad_norm: float
    """By the vectors, in the last step."""
    drawn: str
    """Hex. Checksum of the negatives: a resumed run draws the same."""
    seconds: float
    """All of it but validation."""


class Trainer:
    """A run on one data set."""

    def __init__(self, data: Dataset, config: FitConfig, *, seed: int, peers: Peers | None = None) -> None:
        """Hold items out, and draw first vectors."""
        self.data, self.config, self.seed = data, config, seed
        self.peers = peers or Peers()
        self.positives, self.held = _split(data, seed) if config.select else (data.user_items, None)
        self.warm_U = self.positives.counts > 0
        self.graph = Graph.of(self.positives, config.layers)
        self.state = begin(data, config, seed=seed)

    def epoch(self) -> Report:
        """One epoch.

        Raises:
            UsageError: the training diverged.
        """
        state, grouping, started = self.state, self.config.grouping, perf_counter()
        number = state.epochs
        if grouping is not None and number >= grouping.warmup and (number - grouping.warmup) % grouping.every == 0:
            self._look_for_groups(grouping)
        losses = None
        if grouping is not None and state.targets is not None:
            for _ in range(grouping.steps):
                losses = self._learn_from_groups(grouping, state.targets)
        pairs = sampling.epoch(self.positives, self.config.negatives, seed=self.seed, number=number)
        loss, grad_norm = self._learn_from_pairs(pairs)
        state.epochs = number + 1
        seconds = perf_counter() - started
        return Report(
            epoch=state.epochs,
            bpr=loss,
            pull=losses[0] if losses else None,
            fit=losses[1] if losses else None,
            groups=len(state.center_GD),
            validation=self._validate(),
            pairs=len(pairs.users_P),
            grad_norm=grad_norm,
            drawn=f"{crc32c(pairs.others_P.tobytes()):08x}",
            seconds=seconds,
        )

    @property
    def done(self) -> bool:
        """Whether no epoch is left, or the last good one is too long ago."""
        state, config = self.state, self.config
        stale = 0 < state.best_epoch <= state.epochs - config.patience
        return state.epochs >= config.epochs or (config.select and stale)

    def run(self) -> list[Report]:
        """All epochs that are left, and what they gave."""
        reports = []
        while not self.done:
            reports.append(self.epoch())
        self.finish()
        return reports

    def finish(self) -> None:
        """Go back to the best epoch, where epochs were compared."""
        state = self.state
        if state.best:
            state.table_ND, state.head_1W = state.best["table"], state.best["head"]
            state.center_GD, state.assignment_U = state.best["centers"], state.best["assignment"]

    def vectors(self) -> tuple[Vectors, Vectors]:
        """Of users and items, as they are scored."""
        spread = self.graph.spread(self.state.table_ND).numpy()
        return spread[: self.data.n_users], spread[self.data.n_users :]

    def scorer(self) -> VectorScorer:
        """What is evaluated."""
        user_UD, item_ID = self.vectors()
        counted = self.warm_U if self.config.warm_members else np.ones(self.data.n_users, np.bool_)
        return VectorScorer(
            user_UD=user_UD,
            item_ID=item_ID,
            head_1W=self.state.head_1W,
            scorer=self.config.scorer,
            members=self.data.members,
            counted_U=counted,
            center_GD=self.state.center_GD.numpy(),
            together=self.config.together,
        )

    def _look_for_groups(self, grouping: GroupingConfig) -> None:
        vectors_UD, seed = self.vectors()[0], self.seed * 1_000_003 + self.state.epochs
        found = identify.identify(vectors_UD, self.warm_U, grouping.identify, seed=seed)
        self.state.center_GD = torch.from_numpy(found.centers_GD)
        self.state.assignment_U = torch.from_numpy(found.assignment_U)
        self.state.memories.pop("centers", None)
        self.state.targets = None
        if len(found.centers_GD):
            self.state.targets = pretext.make_targets(found, vectors_UD, self.positives, grouping.pretext)

    def _learn_from_groups(self, grouping: GroupingConfig, targets: Targets) -> tuple[float, float]:
        """One step on the pretext losses of all users; both before it."""
        config = grouping.pretext
        spread = self.graph.spread(self.state.table_ND).clone().requires_grad_()
        centers = self.state.center_GD.clone().requires_grad_()
        own_U = self.state.assignment_U
        users = slice(0, self.data.n_users)
        pulled = own_U >= 0 if config.pull == "nearest" else users
        pull = pretext.pull_and_repulsion(spread[users][pulled], centers, own_U[pulled], config)
        fit = pretext.fit_groups(centers, spread[self.data.n_users :], targets)
        parts = {"pull": config.pull_weight * pull, "fit": config.fit_weight * fit}
        wholes = {"table": parts["pull"] + parts["fit"]} if grouping.joint else parts
        for name, loss in wholes.items():
            by_vectors, by_centers = torch.autograd.grad(loss, (spread, centers), retain_graph=True)
            self._move_table(name, by_vectors, name)
            if grouping.learned:
                memory = self.state.memory("centers", self.state.center_GD, self.config)
                rowwise.step(self.state.center_GD, memory, None, by_centers, lr=self.config.lr)
        return float(pull.detach()), float(fit.detach())

    def _move_table(self, memory: str, by_vectors: Tensor, loss: str) -> None:
        rows = {"pull": slice(0, self.data.n_users), "fit": slice(self.data.n_users, None)}.get(loss, slice(None))
        gradient = self.graph.spread(by_vectors)
        table = self.state.table_ND
        memories = self.state.memory(memory, table[rows], self.config)
        rowwise.step(table[rows], memories, None, gradient[rows], lr=self.config.lr)

    def _learn_from_pairs(self, pairs: sampling.Epoch) -> tuple[float, float]:
        """An epoch; its mean loss, and the length of its last gradient."""
        config, state, n_users = self.config, self.state, self.data.n_users
        if config.forgetful:
            for name in ("table", "head"):
                state.memories.pop(name, None)
        columns = (pairs.users_P, pairs.liked_P + n_users, pairs.others_P + n_users)
        nodes_3P = torch.from_numpy(np.stack(columns))
        margins, gradient = [torch.zeros(0)], torch.zeros(0)
        for start in range(0, nodes_3P.shape[1], config.batch):
            margin_B, gradient = self._step(nodes_3P[:, start : start + config.batch])
            margins.append(margin_B)
        loss = self.peers.total(softplus(torch.cat(margins)).sum())
        return float(loss) / max(nodes_3P.shape[1], 1), float(torch.linalg.vector_norm(gradient))

    def _step(self, nodes_3B: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from a batch; this rank's margins, and the gradient by the vectors that moved."""
        count, config, state = nodes_3B.shape[1], self.config, self.state
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
        gradient = self._move_rows(nodes, by_vectors, most=3 * -(-count // self.peers.world_size), count=count)
        if config.scorer != "dot":
            memory = state.memory("head", state.head_1W, config)
            rowwise.step(state.head_1W, memory, None, self.peers.total(found.head_1W), lr=config.lr)
        return found.margin_B, gradient

    def _move_rows(self, nodes: Tensor, by_vectors: Tensor, *, most: int, count: int) -> Tensor:
        config, table = self.config, self.state.table_ND
        memory = self.state.memory("table", table, config)
        if config.layers == 0 and config.decay:
            by_vectors = by_vectors + config.decay / count * table[nodes]
        nodes, by_vectors = self.peers.rows(nodes, by_vectors, most)
        if config.layers:
            whole = torch.zeros_like(table).index_add_(0, nodes, by_vectors)
            gradient = self.graph.spread(whole)
            if config.decay:
                gradient.index_add_(0, nodes, table[nodes], alpha=config.decay / count)
            rowwise.step(table, memory, None, gradient, lr=config.lr)
            return gradient
        rows, at = torch.unique(nodes, return_inverse=True)
        summed = by_vectors.new_zeros(len(rows), config.width)
        summed.scatter_add_(0, at.unsqueeze(1).expand_as(by_vectors), by_vectors)
        rowwise.step(table, memory, rows, summed, lr=config.lr)
        return summed

    def _validate(self) -> float | None:
        """NDCG@10 of the held-out items, now and then; keeps the tensors of the best epoch."""
        state, config = self.state, self.config
        if self.held is None or (state.epochs % config.select_every and state.epochs != config.epochs):
            return None
        found = evaluate.stand(self.scorer(), "user", self.held, self.positives, protocol="listed")
        value = ties.figures(found, "expected").ndcg["10"]
        grouped = config.grouping is None or len(state.center_GD)  # a run for groups does not end before there are any
        if value > state.best_value and grouped:
            state.best_epoch, state.best_value = state.epochs, value
            state.best = {name: tensor.clone() for name, tensor in state.tensors().items()}
        return value


def _split(data: Dataset, seed: int) -> tuple[Pairs, Cases | None]:
    """Training positives, and held-out ones of some users among other items; None where nobody has two.

    The other items are such as the test has: where negatives are listed, any at all, training items among them, as in
    both benchmarks; otherwise items that the user lacks.
    """
    random, positives = np.random.default_rng((seed, 0x5E1EC7)), data.user_items
    cases, kept = hold_out(positives, seed=seed)
    chosen = np.sort(random.permutation(len(cases))[:_VALIDATED])
    chosen = chosen[positives.counts[cases.ids_R[chosen]] < positives.n_columns]
    if not len(chosen):
        return positives, None
    users, own = np.repeat(cases.ids_R[chosen], _NEGATIVES), np.repeat(cases.positives_R[chosen], _NEGATIVES)
    if data.user_cases.negatives_RN.size:
        drawn = (own + random.integers(1, positives.n_columns, len(own))) % positives.n_columns
    else:
        drawn = sampling.unknown(positives, users, random)
    return kept, Cases(
        ids_R=cases.ids_R[chosen], positives_R=cases.positives_R[chosen], negatives_RN=drawn.reshape(-1, _NEGATIVES)
    )
