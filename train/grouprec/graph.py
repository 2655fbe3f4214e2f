"""LightGCN (He et al., 2020): vectors averaged over the neighbourhoods of the user-item graph. A linear, symmetric map.

Because it is linear and symmetric the gradient goes back through the same map.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.grouprec.interactions import Pairs
from train.grouprec.sphere import Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Users and items as nodes, users first."""

    edges: Tensor | None
    """(U + I, U + I) Sparse; 1/sqrt(degrees) for each interaction, both ways. None: no layers."""
    layers: int
    """How far vectors travel; 0: matrix factorisation."""

    @staticmethod
    def of(positives: Pairs, layers: int) -> "Graph":
        """The graph of training positives."""
        if not layers:
            return Graph(edges=None, layers=0)
        return Graph(edges=_edges(positives), layers=layers)

    def spread(self, table_ND: Vectors) -> Vectors:
        """(U + I, D) Mean of the vectors and of what they become in each layer."""
        if self.edges is None:
            return table_ND
        layer = torch.from_numpy(table_ND)
        total = layer.clone()
        for _ in range(self.layers):
            layer = self.edges @ layer
            total += layer
        return total.div_(self.layers + 1).numpy()


def _edges(positives: Pairs) -> Tensor:
    users, items = positives.split()
    nodes = positives.n_rows + positives.n_columns
    degrees = np.concatenate([positives.counts, positives.transposed().counts])
    weights = 1 / np.sqrt(degrees[users] * degrees[positives.n_rows + items])
    ends = (np.concatenate([users, items + positives.n_rows]), np.concatenate([items + positives.n_rows, users]))
    both = Pairs.of(*ends, (nodes, nodes))
    order = np.lexsort((users, items))
    values = np.concatenate([weights, weights[order]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its compressed rows a beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(both.starts),
            torch.from_numpy(both.split()[1]),
            torch.from_numpy(values.astype(np.float32)),
            (nodes, nodes),
        )
