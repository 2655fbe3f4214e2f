"""Clusters that persist: hand-made cases, and scikit-learn where it is installed."""

import numpy as np
import pytest

from train.grouprec import hdbscan, planted, sphere
from train.grouprec.agreement import adjusted_rand

pytestmark = pytest.mark.train


def test_the_spanning_tree_is_as_short_as_kruskals() -> None:
    x = sphere.units(planted.points((15, 10), 0.8, width=4)[0])
    core = hdbscan._core(x, 3)
    lengths, _ = hdbscan._spanning(x, core)
    reach = np.maximum(np.sqrt(2 * sphere.distances(x, x)), np.maximum(core[:, None], core))
    parts, total = {at: {at} for at in range(25)}, 0.0
    for length, one, other in sorted((reach[a, b], a, b) for a in range(25) for b in range(a)):
        if parts[one] is not parts[other]:
            total += length
            merged = parts[one] | parts[other]
            parts |= dict.fromkeys(merged, merged)
    assert lengths.sum() == pytest.approx(total, rel=1e-5)


def test_what_lies_farther_than_two_clusters_from_each_other_is_noise() -> None:
    random = np.random.default_rng(0)
    clusters = np.repeat([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0]], 40, axis=0) + 0.02 * random.standard_normal((80, 4))
    far = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0]])
    found = hdbscan.labels(sphere.units(np.concatenate([clusters, far]).astype(np.float32)), 15, 5)
    assert found[:80].tolist() in ([0] * 40 + [1] * 40, [1] * 40 + [0] * 40)
    assert found[80:].tolist() == [-1] * 3


def test_one_cluster_is_no_cluster() -> None:
    """The root is never chosen: that everything is one group is left to the caller."""
    assert (hdbscan.labels(sphere.units(np.ones((3, 4), np.float32)), 5, 3) == -1).all()


@pytest.mark.parametrize(("noise", "smallest"), [(0.3, 10), (0.7, 20), (1.0, 5), (1.2, 3)])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_labels_are_those_of_scikit_learn(noise: float, smallest: int, neighbours: int) -> None:
    """With one neighbour to the last; with more, equal distances leave a choice of trees, and single points differ."""
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is no dependency: install it to compare")
    for seed in range(5):
        x = sphere.units(planted.points((80, 60, 40, 20), noise, width=8, seed=seed)[0])
        found = hdbscan.labels(x, smallest, neighbours)
        model = cluster.HDBSCAN(min_cluster_size=smallest, min_samples=neighbours, copy=True)
        expected = model.fit(x.astype(np.float64)).labels_
        if neighbours == 1:
            assert np.array_equal(found == -1, expected == -1)
        assert adjusted_rand(found, expected) >= (1 if neighbours == 1 else 0.9)
