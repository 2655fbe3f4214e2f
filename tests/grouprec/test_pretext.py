"""The pretext losses against their double sums, and targets on a hand-made case. Acceptance tests 2 and 3 of itr.md."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.errors import UsageError
from train.grouprec import pretext
from train.grouprec.identify import PseudoGroups
from train.grouprec.interactions import Pairs
from train.grouprec.pretext import PretextConfig, Target, Targets

pytestmark = pytest.mark.train
ALL = PretextConfig(pull="all")
NEAREST = PretextConfig(pull="nearest")


def _vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]), dtype=torch.float64)


def _plain(users: torch.Tensor, centers: torch.Tensor, own: torch.Tensor, config: PretextConfig) -> float:
    """Source: itr.md, section 3.1, term by term."""
    u, g = normalize(users, dim=1), normalize(centers, dim=1)
    pairs = [(a, int(own[a])) for a in range(len(u))] if config.pull == "nearest" else np.ndindex(len(u), len(g))
    pull = np.mean([float((u[a] - g[b]).square().sum()) for a, b in pairs])
    apart = [(a, b) for a, b in np.ndindex(len(g), len(g)) if config.diagonal or a != b]
    others = [float((g[a] - g[b]).square().sum()) for a, b in apart]
    return float(pull - np.mean(others)) if len(g) > 1 else float(pull)


@pytest.mark.parametrize("config", [ALL, NEAREST, replace(ALL, diagonal=True)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_pull_and_repulsion_is_its_double_sum(config: PretextConfig, count: int) -> None:
    users, centers, own = _vectors(11, 4), _vectors(count, 4), torch.arange(11) % count
    found = pretext.pull_and_repulsion(users, centers, own, config)
    assert float(found) == pytest.approx(_plain(users, centers, own, config), abs=1e-6)


@pytest.mark.parametrize("config", [ALL, NEAREST])
@pytest.mark.parametrize("count", [1, 3])
def test_pull_and_repulsion_has_the_gradient_of_its_differences(config: PretextConfig, count: int) -> None:
    users, centers, own = _vectors(5, 3).requires_grad_(), _vectors(count, 3).requires_grad_(), torch.arange(5) % count
    assert torch.autograd.gradcheck(lambda u, g: pretext.pull_and_repulsion(u, g, own, config), (users, centers))


def test_zero_vectors_and_one_centre_give_no_nan() -> None:
    users = torch.zeros(3, 4).requires_grad_()
    loss = pretext.pull_and_repulsion(users, torch.ones(1, 4), torch.zeros(3, dtype=torch.int64), ALL)
    (gradient,) = torch.autograd.grad(loss, users)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_fitting_groups_is_the_dense_mean_square() -> None:
    """Source: itr.md, section 3.2."""
    centers, items = _vectors(3, 4), _vectors(7, 4)
    dense = torch.zeros(3, 7, dtype=torch.float64)
    dense[[0, 0, 2], [1, 6, 3]] = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    at = dense.nonzero().T
    found = pretext.fit_groups(centers, items, Targets(groups_Z=at[0], items_Z=at[1], values_Z=dense[at[0], at[1]]))
    assert float(found) == pytest.approx(float((centers @ items.T - dense).square().mean()), abs=1e-5)


FOUR = Pairs.of(np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 2]), (4, 3))
GROUPS = PseudoGroups(centers_GD=np.eye(2, 3, dtype=np.float32), assignment_U=np.array([0, 0, 1, -1]))


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("count", [[1, 2, 0], [0, 0, 1]]),
        ("binary", [[1, 1, 0], [0, 0, 1]]),
        ("rate", [[0.5, 1, 0], [0, 0, 1]]),
    ],
)
def test_targets_of_four_users(target: Target, wanted: list[list[float]]) -> None:
    found = pretext.make_targets(GROUPS, np.eye(4, 3, dtype=np.float32), FOUR, PretextConfig(target=target))
    dense = torch.zeros(2, 3)
    dense[found.groups_Z, found.items_Z] = found.values_Z
    assert dense.tolist() == wanted


def test_memberships_by_the_mean_distance() -> None:
    """Near: below the mean of distances; far: above the mean of their squares. Source: itr.md, section 2.2."""
    users = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [-1, 0, 0]], np.float32)
    square = np.array([[2 - 2 * u @ g for g in GROUPS.centers_GD] for u in users])
    near, far = np.sqrt(square) < np.sqrt(square).mean(), square > square.mean()
    for rule, members in (("near_mean", near), ("far_mean", far)):
        config = PretextConfig(membership=rule, target="count")  # type: ignore[arg-type]
        found = pretext.make_targets(GROUPS, users, FOUR, config)
        dense = np.zeros((2, 3))
        dense[found.groups_Z.numpy(), found.items_Z.numpy()] = found.values_Z.numpy()
        matrix = np.zeros((4, 3))
        matrix[FOUR.split()] = 1
        assert dense.tolist() == (members.T.astype(float) @ matrix).tolist()


def test_too_many_memberships_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretext, "_MOST_MEMBERSHIPS", 7)
    with pytest.raises(UsageError, match="4 users times 2 centres"):
        pretext.make_targets(GROUPS, np.eye(4, 3, dtype=np.float32), FOUR, PretextConfig(membership="near_mean"))
