"""HDBSCAN (Campello, Moulavi, Sander 2013): clusters that persist longest as the distance between neighbours shrinks.

Why ours: scikit-learn would come with scipy for this alone. Distances are computed row by row as the spanning tree
grows, so memory is O(N) and time O(N² D); a test compares with scikit-learn where it is installed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.grouprec import sphere
from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

_SMALLEST = 1e-9
"""Of a distance, so that equal vectors part at a finite density."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """Single linkage: node N + t joins two others."""

    left: list[int]
    right: list[int]
    level: list[float]
    """1/distance at which a node falls apart."""
    size: list[int]
    """Vectors of every node, the N leaves included."""
    leaves: int


def labels(x_ND: Vectors, smallest: int, neighbours: int) -> Ints:
    """(N,) Clusters of unit vectors from 0, -1 for noise.

    Args:
        x_ND: unit vectors.
        smallest: vectors of a cluster.
        neighbours: that make a vector's density, itself counted.
    """
    found = np.full(len(x_ND), -1, np.int64)
    if len(x_ND) < 2:
        return found
    tree = _linkage(*_spanning(x_ND, _core(x_ND, neighbours)))
    for number, node in enumerate(_persistent(tree, smallest)):
        found[_below(tree, node)] = number
    return found


def _euclidean(cosine: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(2 * cosine)


def _core(x_ND: Vectors, neighbours: int) -> NDArray[np.float32]:
    """(N,) Distance to the last of so many neighbours, the vector itself counted."""
    rank = min(neighbours, len(x_ND)) - 1
    core = np.empty(len(x_ND), np.float32)
    for rows in sphere.chunks(len(x_ND), len(x_ND)):
        core[rows] = np.partition(sphere.distances(x_ND[rows], x_ND), rank, axis=1)[:, rank]
    return _euclidean(core)


def _spanning(x_ND: Vectors, core_N: NDArray[np.float32]) -> tuple[NDArray[np.float32], Ints]:
    """Prim's minimum spanning tree of mutual reachability.

    Returns:
        (N-1,) lengths and (N-1, 2) ends of its edges, shortest first.
    """
    count = len(x_ND)
    best, parent = np.full(count, np.inf, np.float32), np.zeros(count, np.int64)
    outside = np.ones(count, np.bool_)
    lengths, ends, at = np.empty(count - 1, np.float32), np.empty((count - 1, 2), np.int64), 0
    for edge in range(count - 1):
        outside[at] = False
        reach = np.maximum(_euclidean(sphere.distances(x_ND[at][None], x_ND)[0]), np.maximum(core_N, core_N[at]))
        closer = (reach < best) & outside
        best[closer], parent[closer] = reach[closer], at
        at = int(np.argmin(np.where(outside, best, np.inf)))
        lengths[edge], ends[edge] = best[at], (parent[at], at)
    order = np.argsort(lengths, kind="stable")
    return lengths[order], ends[order]


def _linkage(lengths: NDArray[np.float32], ends: Ints) -> _Tree:
    leaves = len(lengths) + 1
    root, size = list(range(leaves)), [1] * leaves
    left, right = [], []

    def top(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for first, second in ends.tolist():
        one, other = top(first), top(second)
        new = len(root)
        root.append(new)
        root[one] = root[other] = new
        size.append(size[one] + size[other])
        left.append(one)
        right.append(other)
    level = (1 / np.maximum(lengths, _SMALLEST)).tolist()
    return _Tree(left=left, right=right, level=level, size=size, leaves=leaves)


@dataclass(slots=True, kw_only=True)
class _Cluster:
    """A node that is born with at least the smallest size, and lives until it falls into two such."""

    node: int
    birth: float
    stability: float = 0.0
    children: tuple[int, ...] = ()


def _persistent(tree: _Tree, smallest: int) -> list[int]:
    """Nodes of the clusters whose stability exceeds that of all clusters within; never the root."""
    clusters = _condensed(tree, smallest)
    total = [cluster.stability for cluster in clusters]
    chosen = [True] * len(clusters)
    for number in reversed(range(len(clusters))):
        within = sum(total[child] for child in clusters[number].children)
        if clusters[number].children and (within > total[number] or number == 0):
            total[number], chosen[number] = within, False
    chosen[0] = False
    hidden = [False] * len(clusters)
    for number, cluster in enumerate(clusters):
        for child in cluster.children:
            hidden[child] = hidden[number] or chosen[number]
    return [
        cluster.node for cluster, good, covered in zip(clusters, chosen, hidden, strict=True) if good and not covered
    ]


def _condensed(tree: _Tree, smallest: int) -> list[_Cluster]:
    """Clusters, parents first."""
    clusters = [_Cluster(node=len(tree.size) - 1, birth=0.0)]
    for number, cluster in enumerate(clusters):  # the list grows as clusters fall apart
        heirs, level = _follow(tree, cluster, smallest)
        if heirs:
            clusters += [_Cluster(node=node, birth=level) for node in heirs]
            clusters[number].children = tuple(range(len(clusters) - 2, len(clusters)))
    return clusters


def _follow(tree: _Tree, cluster: _Cluster, smallest: int) -> tuple[tuple[int, ...], float]:
    """Walk down while vectors drop out, which adds to the stability, to where the cluster ends."""
    node = cluster.node
    while node >= tree.leaves:
        at = node - tree.leaves
        level, pair = tree.level[at], (tree.left[at], tree.right[at])
        big = tuple(part for part in pair if tree.size[part] >= smallest)
        stay = tree.size[big[0]] if len(big) == 1 else 0
        cluster.stability += (level - cluster.birth) * (tree.size[node] - stay)
        if len(big) != 1:
            return big, level
        node = big[0]
    return (), 0.0


def _below(tree: _Tree, node: int) -> list[int]:
    """Leaves of a node."""
    found, waiting = [], [node]
    while waiting:
        at = waiting.pop()
        if at < tree.leaves:
            found.append(at)
        else:
            waiting += [tree.left[at - tree.leaves], tree.right[at - tree.leaves]]
    return found
