"""How many dimensions features use: a collapse shows here long before labels could tell.

Axes: N samples, D width.
"""

import math

import torch
from torch import Tensor

_EPS = 1e-7


def rank_me(values_ND: Tensor) -> float:
    """Effective rank, 1 to min(N, D): e to the entropy of the singular values (RankMe, Garrido et al. 2023).

    Neither centred nor scaled, as published. NaN where a feature is not finite.
    """
    if not values_ND.isfinite().all():
        return math.nan
    values = torch.linalg.svdvals(values_ND.double())
    shares = values / values.sum().clamp(min=torch.finfo(torch.float64).tiny) + _EPS
    return float((-(shares * shares.log()).sum()).exp())
