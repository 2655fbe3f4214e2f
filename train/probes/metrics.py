"""Scores of predictions and of clusterings.

Axes: N samples, C classes, K clusters.
"""

import torch
from torch import Tensor


def accuracy(predicted_N: Tensor, labels_N: Tensor) -> float:
    """Share of samples that are right."""
    return float((predicted_N == labels_N).double().mean())


def mean_average_precision(scores_NC: Tensor, targets_NC: Tensor) -> float:
    """Mean over classes of the average precision, of classes that occur (BigEarthNet's macro mAP).

    Args:
        scores_NC: larger is more likely.
        targets_NC: 1 where a sample is of a class.
    """
    columns = [column for column in range(targets_NC.shape[1]) if targets_NC[:, column].any()]
    return sum(average_precision(scores_NC[:, one], targets_NC[:, one]) for one in columns) / len(columns)


def average_precision(scores_N: Tensor, targets_N: Tensor) -> float:
    """Precision at each score that occurs, weighted by the recall it adds: equal scores count together."""
    values, order = scores_N.sort(descending=True)
    hits_N = targets_N[order].double().cumsum(0)
    last_N = torch.cat((values[1:] != values[:-1], torch.tensor([True])))
    found, seen = hits_N[last_N], torch.arange(1, len(values) + 1, dtype=torch.float64)[last_N]
    added = found.diff(prepend=torch.zeros(1, dtype=torch.float64))
    return float((added * found / seen).sum() / hits_N[-1])


def confusion(first_N: Tensor, second_N: Tensor) -> Tensor:
    """How often each pair of numbers meets, (K, C) int64."""
    rows, columns = int(first_N.max()) + 1, int(second_N.max()) + 1
    return torch.bincount(first_N * columns + second_N, minlength=rows * columns).reshape(rows, columns)


def matched_accuracy(clusters_N: Tensor, labels_N: Tensor) -> float:
    """Accuracy under the best one-to-one assignment of clusters to classes."""
    table_KC = confusion(clusters_N, labels_N)
    side = max(table_KC.shape)
    square = torch.zeros(side, side, dtype=torch.float64)
    square[: table_KC.shape[0], : table_KC.shape[1]] = table_KC.double()
    chosen = assignment((-square).tolist())
    return sum(float(square[row, column]) for row, column in enumerate(chosen)) / len(labels_N)


def mutual_information(clusters_N: Tensor, labels_N: Tensor) -> float:
    """Normalised by the mean of the two entropies: 1 where clusters are classes, 0 where they are independent."""
    joint_KC = confusion(clusters_N, labels_N).double() / len(labels_N)
    rows_K, columns_C = joint_KC.sum(1), joint_KC.sum(0)
    together = _entropy(rows_K) + _entropy(columns_C) - _entropy(joint_KC.flatten())
    mean = (_entropy(rows_K) + _entropy(columns_C)) / 2
    return together / mean if mean > 0 else 1.0


def _entropy(shares: Tensor) -> float:
    return float(-torch.xlogy(shares, shares).sum())


def assignment(cost: list[list[float]]) -> list[int]:
    """The column of each row that makes the sum of a square cost matrix smallest (Kuhn 1955, Jonker and Volgenant)."""
    size = len(cost)
    row_price, column_price = [0.0] * (size + 1), [0.0] * (size + 1)
    owner = [0] * (size + 1)
    for row in range(1, size + 1):
        owner[0] = row
        _augment(cost, row_price, column_price, owner)
    chosen = [0] * size
    for column in range(1, size + 1):
        chosen[owner[column] - 1] = column - 1
    return chosen


def _augment(cost: list[list[float]], row_price: list[float], column_price: list[float], owner: list[int]) -> None:
    """Find a place for the row at column 0 along the cheapest path, and move the others."""
    size = len(cost)
    best, came_from, seen = [float("inf")] * (size + 1), [0] * (size + 1), [False] * (size + 1)
    column = 0
    while owner[column]:
        seen[column], row = True, owner[column]
        for other in range(1, size + 1):
            reduced = cost[row - 1][other - 1] - row_price[row] - column_price[other]
            if not seen[other] and reduced < best[other]:
                best[other], came_from[other] = reduced, column
        following = min((c for c in range(1, size + 1) if not seen[c]), key=lambda c: best[c])
        step = best[following]
        for other in range(size + 1):
            if seen[other]:
                row_price[owner[other]] += step
                column_price[other] -= step
            else:
                best[other] -= step
        column = following
    while column:
        owner[column] = owner[came_from[column]]
        column = came_from[column]
