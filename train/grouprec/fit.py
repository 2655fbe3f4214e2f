"""The training: pseudo-groups now and then, steps on what they say, and an epoch of BPR. Read `Trainer.epoch` first.

The steps are those of `learn.py`. On the CPU only: a step moves a few hundred rows, and what a GPU would save is less
than what calling it costs.
"""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from pipeline.index import crc32c
from train.grouprec import evaluate, identify, pretext, sampling, ties, validation
from train.grouprec.graph import Graph
from train.grouprec.interactions import Dataset
from train.grouprec.learn import Learner
from train.grouprec.modes import FitConfig, GroupingConfig
from train.grouprec.peers import Peers
from train.grouprec.scoring import VectorScorer
from train.grouprec.sphere import Vectors
from train.grouprec.state import begin
from train.grouprec.threads import one_thread


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
        self.positives, self.held = validation.split(data, seed) if config.select else (data.user_items, None)
        self.warm_U = self.positives.counts > 0
        graph = Graph.of(self.positives, config.layers)
        self.learner = Learner(config=config, graph=graph, peers=peers or Peers(), n_users=data.n_users)
        self.state = begin(data, config, seed=seed)

    @one_thread()
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
                losses = self.learner.from_groups(state, grouping, state.targets)
        pairs = sampling.epoch(self.positives, self.config.negatives, seed=self.seed, number=number)
        loss, grad_norm = self.learner.from_pairs(state, pairs)
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
        spread = self.learner.graph.spread(self.state.table_ND)
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
            center_GD=self.state.center_GD,
            together=self.config.together,
        )

    def _look_for_groups(self, grouping: GroupingConfig) -> None:
        vectors_UD, seed = self.vectors()[0], self.seed * 1_000_003 + self.state.epochs
        found = identify.identify(vectors_UD, self.warm_U, grouping.identify, seed=seed)
        self.state.center_GD, self.state.assignment_U = found.centers_GD, found.assignment_U
        self.state.memories.pop("centers", None)
        self.state.targets = None
        if len(found.centers_GD):
            self.state.targets = pretext.make_targets(found, vectors_UD, self.positives, grouping.pretext)

    def _validate(self) -> float | None:
        """NDCG@10 of the held-out items, now and then; keeps the arrays of the best epoch."""
        state, config = self.state, self.config
        if self.held is None or (state.epochs % config.select_every and state.epochs != config.epochs):
            return None
        found = evaluate.stand(self.scorer(), "user", self.held, self.positives, protocol="listed")
        value = ties.figures(found, "expected").ndcg["10"]
        grouped = config.grouping is None or len(state.center_GD)  # a run for groups does not end before there are any
        if value > state.best_value and grouped:
            state.best_epoch, state.best_value = state.epochs, value
            state.best = {name: array.copy() for name, array in state.arrays().items()}
        return value
