"""All that changes while a run learns: vectors, pseudo-groups, the optimizer's memories, the best epoch so far."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from train.grouprec import pairwise, rowwise
from train.grouprec.identify import PseudoGroups
from train.grouprec.interactions import Dataset
from train.grouprec.modes import FitConfig
from train.grouprec.pretext import Targets
from train.grouprec.rowwise import Moments


@dataclass(slots=True, kw_only=True)
class State:
    """Between two epochs."""

    table_ND: Tensor
    """Vectors of users, then of items."""
    head_1W: Tensor
    """The scorer's weights."""
    center_GD: Tensor
    """Of pseudo-groups, as they are learned."""
    assignment_U: Tensor
    """Pseudo-group of each user when they were last looked for; -1 for none."""
    targets: Targets | None = None
    """What the members of pseudo-groups have; memberships are of the time when the groups were looked for."""
    memories: dict[str, Moments] = field(default_factory=dict)
    """By name of the tensor, or of the loss."""
    epochs: int = 0
    """Done."""
    best_epoch: int = 0
    """The best on validation."""
    best_value: float = -1.0
    """What it reached."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the best epoch."""

    def tensors(self) -> dict[str, Tensor]:
        """What is evaluated and exported."""
        return {
            "table": self.table_ND,
            "head": self.head_1W,
            "centers": self.center_GD,
            "assignment": self.assignment_U,
        }

    def memory(self, name: str, parameter: Tensor, config: FitConfig) -> Moments:
        """The optimizer's memory of a tensor; a new one where there is none."""
        if name not in self.memories:
            self.memories[name] = rowwise.moments(parameter, config.optimizer)
        return self.memories[name]

    def groups(self) -> PseudoGroups:
        """The pseudo-groups."""
        return PseudoGroups(centers_GD=self.center_GD.numpy(), assignment_U=self.assignment_U.numpy())


def begin(data: Dataset, config: FitConfig, *, seed: int) -> State:
    """First vectors: uniform as Xavier and Glorot have them, users and items apart. No groups."""
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.empty(count, config.width) for count in (data.n_users, data.n_items)]
    for table in tables:
        torch.nn.init.xavier_uniform_(table, generator=generator)
    return State(
        table_ND=torch.cat(tables),
        head_1W=pairwise.head(config.scorer, config.width, generator),
        center_GD=torch.zeros(0, config.width),
        assignment_U=torch.from_numpy(np.full(data.n_users, -1)),
    )
