"""k-means, deterministic by seed.

Axes: N samples, K clusters, D width.
"""

import torch
from torch import Tensor

_ROUNDS = 100


def kmeans(features_ND: Tensor, *, clusters: int, seed: int, tries: int = 10) -> Tensor:
    """Cluster of each sample (N,): the best of several starts from k-means++ (Arthur and Vassilvitskii 2007)."""
    generator = torch.Generator().manual_seed(seed)
    runs = [_lloyd(features_ND, _spread(features_ND, clusters, generator)) for _ in range(tries)]
    return min(runs, key=lambda run: run[0])[1]


def _spread(features_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """First centres (K, D): each next one is drawn by its squared distance from those before it."""
    chosen = [int(torch.randint(len(features_ND), (1,), generator=generator))]
    for _ in range(clusters - 1):
        far_N = torch.cdist(features_ND, features_ND[chosen]).min(dim=1).values.square()
        weights = far_N if far_N.sum() > 0 else torch.ones_like(far_N)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return features_ND[chosen].clone()


def _lloyd(features_ND: Tensor, centres_KD: Tensor) -> tuple[float, Tensor]:
    """Sum of squared distances, and the cluster of each sample."""
    nearest_N = torch.full((len(features_ND),), -1)
    for _ in range(_ROUNDS):
        distance_N, found_N = torch.cdist(features_ND, centres_KD).min(dim=1)
        if torch.equal(found_N, nearest_N):
            break
        nearest_N = found_N
        for cluster in torch.unique(nearest_N).tolist():
            centres_KD[cluster] = features_ND[nearest_N == cluster].mean(dim=0)
    return float(distance_N.square().sum()), nearest_N
