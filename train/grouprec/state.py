"""All that changes while a run learns: vectors, pseudo-groups, the optimizer's memories, the best epoch so far."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from train.grouprec import pairwise, rowwise
from train.grouprec.identify import PseudoGroups
from train.grouprec.interactions import Dataset, Ints
from train.grouprec.modes import FitConfig
from train.grouprec.pretext import Targets
from train.grouprec.rowwise import Moments
from train.grouprec.sphere import Vectors

Array = NDArray[Any]
"""Float32, or numbers."""


@dataclass(slots=True, kw_only=True)
class State:
    """Between two epochs."""

    table_ND: Vectors
    """Vectors of users, then of items."""
    head_1W: Vectors
    """The scorer's weights."""
    center_GD: Vectors
    """Of pseudo-groups, as they are learned."""
    assignment_U: Ints
    """Pseudo-group of each user when they were last looked for; -1 for none."""
    targets: Targets | None = None
    """What the members of pseudo-groups have; memberships are of the time when the groups were looked for."""
    memories: dict[str, Moments] = field(default_factory=dict)
    """By name of the array, or of the loss."""
    epochs: int = 0
    """Done."""
    best_epoch: int = 0
    """The best on validation."""
    best_value: float = -1.0
    """What it reached."""
    best: dict[str, Array] = field(default_factory=dict)
    """Arrays of the best epoch."""

    def arrays(self) -> dict[str, Array]:
        """What is evaluated and exported."""
        return {
            "table": self.table_ND,
            "head": self.head_1W,
            "centers": self.center_GD,
            "assignment": self.assignment_U,
        }

    def memory(self, name: str, parameter: Vectors, config: FitConfig) -> Moments:
        """The optimizer's memory of an array; a new one where there is none."""
        if name not in self.memories:
            self.memories[name] = rowwise.moments(parameter, config.optimizer)
        return self.memories[name]

    def groups(self) -> PseudoGroups:
        """The pseudo-groups."""
        return PseudoGroups(centers_GD=self.center_GD, assignment_U=self.assignment_U)


def begin(data: Dataset, config: FitConfig, *, seed: int) -> State:
    """First vectors: uniform as Xavier and Glorot have them, users and items apart. No groups."""
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.empty(count, config.width) for count in (data.n_users, data.n_items)]
    for table in tables:
        torch.nn.init.xavier_uniform_(table, generator=generator)
    return State(
        table_ND=torch.cat(tables).numpy(),
        head_1W=pairwise.head(config.scorer, config.width, generator),
        center_GD=np.zeros((0, config.width), np.float32),
        assignment_U=np.full(data.n_users, -1),
    )
