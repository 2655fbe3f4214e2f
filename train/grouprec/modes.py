"""What a run computes, as a value; and the named modes.

`paper`        the method as printed: adaptive density, exploring, merging, splitting; all users pulled to all centres
`reference`    what the released code does, its saturating scorer and fixed centres included, to reproduce its figures
`recommended`  what helps, each decision from itr.md, section 6
`ungrouped`    `recommended` without its groups: what they are worth
`bpr`          plain BPR matrix factorisation: what the others are to be compared with
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.errors import UsageError
from train.grouprec.density import DensityConfig
from train.grouprec.gim import GimConfig
from train.grouprec.identify import IdentifyConfig
from train.grouprec.names import Mode, ScorerName
from train.grouprec.pretext import PretextConfig
from train.grouprec.rowwise import OptimizerName

Together = Literal["mean", "scores", "misery", "center"]
"""A group is scored by its members' mean vector · mean score · lowest score · the pseudo-group nearest to the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupingConfig:
    """Pseudo-groups, and what is learned from them."""

    identify: IdentifyConfig = field(default_factory=IdentifyConfig)
    """How they are found."""
    pretext: PretextConfig = field(default_factory=PretextConfig)
    """The losses."""
    warmup: int = 5
    """Epochs of BPR before they are looked for."""
    every: int = 20
    """Epochs after which they are looked for again."""
    steps: int = 1
    """Of the losses, over all users, before each epoch's pairs."""
    joint: bool = True
    """One step on the sum of the losses with the memory of BPR's optimizer; otherwise a step and a memory for each."""
    learned: bool = True
    """Centres are learned, too; in the released code the optimizer never hears of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """A run."""

    mode: Mode
    """Where it comes from."""
    grouping: GroupingConfig | None = field(default_factory=GroupingConfig)
    """None: plain BPR."""
    width: int = 32
    """D, of all vectors."""
    layers: int = 0
    """Of LightGCN; 0: matrix factorisation."""
    scorer: ScorerName = "dot"
    """Of a user and an item."""
    temperature: float = 1.0
    """Of BPR: above 1 softer."""
    optimizer: OptimizerName = "adam"
    """Of everything."""
    forgetful: bool = False
    """BPR's optimizer begins anew in each epoch, as in the released code."""
    lr: float = 2e-3
    """Learning rate."""
    batch: int = 2048
    """Pairs of a step, over all ranks."""
    negatives: int = 2
    """Drawn for each positive, anew in each epoch."""
    epochs: int = 300
    """At most."""
    select: bool = True
    """Hold one item of each user out, and keep the epoch that ranks them best; otherwise the last epoch is kept."""
    select_every: int = 5
    """Epochs."""
    patience: int = 20
    """Epochs without a better one after which the run ends, where epochs are compared."""
    together: Together = "mean"
    """How a group is scored."""
    warm_members: bool = True
    """Members without items do not count in a group, unless all are so."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        counts = {name: getattr(self, name) for name in ("width", "batch", "negatives", "epochs", "select_every")}
        for name, value in counts.items():
            if value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: use 1 or more.")
        if not 0 < self.lr < math.inf or self.temperature <= 0 or self.layers < 0:
            raise UsageError(
                f"lr {self.lr}, temperature {self.temperature}, layers {self.layers}: "
                "use a positive rate and temperature, and no negative layers."
            )


PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "mafengwo": {"lr": 1e-4, "negatives": 8, "epochs": 2000, "pull_weight": 0.01},
    "camra2011": {"lr": 1e-3, "negatives": 2, "epochs": 30, "pull_weight": 10.0},
}
"""By the folder's name. Source: itr.md, section 4."""


def reference(data: str) -> FitConfig:
    """What the released code does. Source: itr.md, sections 2 to 4, marked [code]."""
    gim = GimConfig(
        density=DensityConfig(with_self=True, strict=True),
        explore=True,
        fixed_mix=True,
        insert=False,
        revisit=False,
        merge_again=True,
        max_steps=20,
        cover=1.0,
    )
    pretext = PretextConfig(
        pull="all", pull_weight=10, membership="far_mean", target="binary", fit_weight=10, diagonal=True
    )
    grouping = GroupingConfig(
        identify=IdentifyConfig(gim=gim, smallest=1, warm_only=False),
        pretext=pretext,
        warmup=0,
        joint=False,
        learned=False,
    )
    return replace(_published("reference", data, grouping), scorer="mlp_sigmoid", forgetful=True)


def paper(data: str) -> FitConfig:
    """The method as printed, on the released code's schedule, which is not printed. Source: itr.md, [paper]."""
    gim = GimConfig(explore=True, cover=1.0)
    weight = float(PUBLISHED.get(data, PUBLISHED["camra2011"])["pull_weight"])
    pretext = PretextConfig(pull="all", pull_weight=weight, membership="near_mean", target="count", fit_weight=10)
    grouping = GroupingConfig(
        identify=IdentifyConfig(gim=gim, smallest=1, warm_only=False), pretext=pretext, warmup=0, joint=False
    )
    return _published("paper", data, grouping)


def recommended(data: str) -> FitConfig:  # noqa: ARG001 - one setting for all data
    """What helps on held-out items of the training data, wherever it is from.

    Large batches, since each step spreads all vectors over the graph: a quarter of the time of batches of 2,048.
    """
    return FitConfig(mode="recommended", layers=3, batch=8192, lr=6e-3, epochs=1000, patience=60)


def ungrouped(data: str) -> FitConfig:
    """The recommended model and training, without groups."""
    return replace(recommended(data), mode="ungrouped", grouping=None)


def bpr(data: str) -> FitConfig:  # noqa: ARG001 - one setting for all data
    """Plain BPR matrix factorisation."""
    return FitConfig(mode="bpr", grouping=None)


MODES: Mapping[Mode, Callable[[str], FitConfig]] = {
    "paper": paper,
    "reference": reference,
    "recommended": recommended,
    "ungrouped": ungrouped,
    "bpr": bpr,
}


def _published(mode: Mode, data: str, grouping: GroupingConfig) -> FitConfig:
    chosen = PUBLISHED.get(data, PUBLISHED["camra2011"])
    return FitConfig(
        mode=mode,
        grouping=grouping,
        optimizer="rmsprop",
        lr=float(chosen["lr"]),
        batch=512,
        negatives=int(chosen["negatives"]),
        epochs=int(chosen["epochs"]),
        select=False,
        warm_members=False,
    )
