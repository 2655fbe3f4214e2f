"""What can be said of features while a model trains: numbers by name, on rank 0, without touching any random state.

Axes: N training samples, M validation samples, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from train.probes import heads
from train.probes.labels import Labels
from train.probes.metrics import accuracy
from train.probes.neighbours import nearest, recall
from train.probes.spectrum import rank_me

RECALLS = (1, 10)
NEIGHBOURS = 20
PROJECTED = ("s1_projected", "s2_projected")
"""Features that CROMA's contrastive loss compares."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """What probes with labels rest on."""

    labels: Labels
    """Classes."""
    train_ND: Tensor
    """Features of the training samples."""


def unlabelled(features: Mapping[str, Tensor]) -> dict[str, float]:
    """Effective ranks, and for CROMA the retrieval of each sensor's image by the other's, both ways.

    Args:
        features: (M, D) float32 each, on the CPU: `s1`, `s2`, `joint`, and `PROJECTED`, as far as the model has them.
    """
    values = {f"rank_me/{name}": rank_me(part) for name, part in features.items() if name not in PROJECTED}
    if PROJECTED[0] in features:
        s1_MD, s2_MD = (features[name] for name in PROJECTED)
        for name, queries, gallery in (("s1_to_s2", s1_MD, s2_MD), ("s2_to_s1", s2_MD, s1_MD)):
            values |= {f"recall@{k}/{name}": share for k, share in recall(queries, gallery, at=RECALLS).items()}
    return values


def labelled(known: Labelled, val_MD: Tensor, *, seed: int) -> dict[str, float]:
    """Top-1 accuracy of the nearest training samples and of a linear probe, on samples that have a class."""
    labels = known.labels
    train, val = labels.train_N >= 0, labels.val_M >= 0
    train_ND, classes_N, val_MD, wanted = known.train_ND[train], labels.train_N[train], val_MD[val], labels.val_M[val]
    nobody = torch.full((len(val_MD),), -1)
    found = nearest(train_ND, classes_N, val_MD, own_M=nobody, k=NEIGHBOURS)
    logits = heads.linear_probe(train_ND, classes_N, val_MD, classes=labels.classes, seed=seed)
    return {f"knn@{NEIGHBOURS}": accuracy(found, wanted), "linear": heads.score(logits, wanted)}
