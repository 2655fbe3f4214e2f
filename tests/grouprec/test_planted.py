"""Planted groups are there: points lie around their directions, users like what their group likes."""

import numpy as np
import pytest

from train.grouprec import planted
from train.grouprec.planted import Planted

pytestmark = pytest.mark.train


def test_points_lie_as_far_from_their_direction_as_the_noise_says() -> None:
    points, groups = planted.points((400, 300, 300), 0.5, width=64)
    means = np.stack([points[groups == group].mean(axis=0) for group in range(3)])
    assert np.bincount(groups).tolist() == [400, 300, 300]
    assert np.linalg.norm(means, axis=1) == pytest.approx(np.ones(3), abs=0.05)
    assert np.linalg.norm(points - means[groups], axis=1).mean() == pytest.approx(0.5, abs=0.02)


def test_users_like_what_their_group_likes() -> None:
    data, groups = planted.dataset(Planted(users=300, items=200, groups=4, per_user=30, noise=0.2))
    users, items = data.user_items.split()
    assert (items % 4 == groups[users]).mean() > 0.7
    assert np.array_equal(data.members.split()[0], np.repeat(np.arange(4), 75))
    assert len(data.user_cases) == 300
    popular = np.bincount(items, minlength=200)
    assert popular[:4].mean() > 3 * popular[-4:].mean()


def test_the_seed_decides() -> None:
    plan = Planted(users=50, items=20, groups=2, per_user=5)
    first, again = planted.dataset(plan)[0], planted.dataset(plan)[0]
    assert np.array_equal(first.user_items.keys_E, again.user_items.keys_E)
