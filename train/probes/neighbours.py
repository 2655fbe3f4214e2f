"""Probes that learn nothing: nearest neighbours, and retrieval of one sensor by the other.

Axes: N training samples, M test samples, D width, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 1024
"""Test samples at once: the similarities of all of them may not fit."""


def nearest(
    train_ND: Tensor, labels_N: Tensor, test_MD: Tensor, *, own_M: Tensor, k: int, temperature: float = 0.07
) -> Tensor:
    """Class of each test sample by its `k` nearest training samples (M,).

    Cosine similarity, each neighbour's vote weighted by exp(similarity / temperature) (Wu et al. 2018; DINO).

    Args:
        train_ND: features.
        labels_N: int64 classes.
        test_MD: features.
        own_M: where each test sample stands among the training samples, or -1; it has no vote for itself.
        k: neighbours.
        temperature: the smaller, the more the nearest count.
    """
    train_ND, count = functional.normalize(train_ND, dim=1), min(k, len(train_ND) - int((own_M >= 0).any()))
    classes = int(labels_N.max()) + 1
    found = []
    for rows_MD, own in zip(
        torch.split(functional.normalize(test_MD, dim=1), _ROWS), torch.split(own_M, _ROWS), strict=True
    ):
        similarity_MN = rows_MD @ train_ND.T
        similarity_MN[own >= 0, own[own >= 0]] = -torch.inf
        similarity, place = similarity_MN.topk(count, dim=1)
        votes_MC = torch.zeros(len(rows_MD), classes, dtype=similarity.dtype)
        votes_MC.scatter_add_(1, labels_N[place], (similarity / temperature).exp())
        found.append(votes_MC.argmax(dim=1))
    return torch.cat(found)


def recall(queries_ND: Tensor, gallery_ND: Tensor, *, at: Sequence[int]) -> dict[int, float]:
    """Share of queries whose own row of the gallery is among the most similar, by how many are looked at.

    Of equally similar rows the own one comes last: features that are all the same find nothing.
    """
    gallery_ND = functional.normalize(gallery_ND, dim=1)
    ranks = []
    for first, rows_MD in enumerate(torch.split(functional.normalize(queries_ND, dim=1), _ROWS)):
        similarity_MN = rows_MD @ gallery_ND.T
        own = torch.arange(len(rows_MD))
        mine_M1 = similarity_MN[own, own + first * _ROWS][:, None]
        ranks.append((similarity_MN >= mine_M1).sum(dim=1) - 1)
    rank_N = torch.cat(ranks)
    return {k: float((rank_N < k).double().mean()) for k in at}
