"""BPR's gradient against autograd, row-wise optimizers against torch's, LightGCN against dense matrices."""

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from train.grouprec import pairwise, planted, rowwise, sampling
from train.grouprec.graph import Graph
from train.grouprec.interactions import Pairs
from train.grouprec.pairwise import SCORERS, ScorerName
from train.grouprec.planted import Planted

pytestmark = pytest.mark.train


def _score(product: torch.Tensor, head: torch.Tensor, scorer: ScorerName) -> torch.Tensor:
    if scorer == "dot":
        return product.sum(-1)
    first, biases, second, bias = pairwise.weights(head, product.shape[-1])
    raw = torch.relu(product @ first.T + biases[:, 0]) @ second + bias
    return torch.sigmoid(raw) if scorer == "mlp_sigmoid" else raw


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_is_autograds(scorer: ScorerName, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    user = torch.randn(6, 5, generator=generator).requires_grad_()
    items = torch.randn(2, 6, 5, generator=generator).requires_grad_()
    head = pairwise.head(scorer, 5, generator).requires_grad_()
    scores = _score(user * items, head, scorer)
    loss = softplus((scores[1] - scores[0]) / temperature)
    wanted = torch.autograd.grad(loss.sum() / 12, (user, items, head), allow_unused=True)
    with torch.no_grad():
        found = pairwise.gradient(user, items, head, scorer, temperature=temperature, pairs=12)
    torch.testing.assert_close(softplus(found.margin_B), loss)
    torch.testing.assert_close(found.user_BD, wanted[0])
    torch.testing.assert_close(found.items_2BD, wanted[1])
    if scorer != "dot":
        torch.testing.assert_close(found.head_1W, wanted[2])


def test_a_sigmoid_saturates_in_float32() -> None:
    """What makes the ties: 17 and above are all 1."""
    assert torch.sigmoid(torch.tensor([17.0, 20.0, 30.0])).tolist() == [1.0, 1.0, 1.0]


def test_rmsprop_by_rows_is_torchs_rmsprop() -> None:
    """Rows without a gradient stay, and their mean square decays until they are touched again."""
    random = np.random.default_rng(0)
    ours = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(ours.clone())
    optimizer, memory = torch.optim.RMSprop([theirs], lr=0.05), rowwise.moments(ours, "rmsprop")
    for number in range(12):
        rows = torch.from_numpy(np.sort(random.choice(7, 3, replace=False)))
        gradient = torch.from_numpy(random.standard_normal((3, 3)).astype(np.float32))
        theirs.grad = torch.zeros(7, 3).index_copy(0, rows, gradient)
        if number == 6:
            whole = torch.from_numpy(random.standard_normal((7, 3)).astype(np.float32))
            theirs.grad, rows, gradient = whole.clone(), None, whole
        optimizer.step()
        rowwise.step(ours, memory, rows, gradient, lr=0.05)
    torch.testing.assert_close(ours, theirs.detach())


def test_adam_of_all_rows_is_torchs_adam_and_of_some_its_sparse_adam() -> None:
    random = np.random.default_rng(0)
    start = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for whole in (True, False):
        ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
        make = torch.optim.Adam if whole else torch.optim.SparseAdam
        optimizer, memory = make([theirs], lr=0.05), rowwise.moments(ours, "adam")
        for _ in range(8):
            rows = torch.arange(7) if whole else torch.from_numpy(np.sort(random.choice(7, 3, replace=False)))
            gradient = torch.from_numpy(random.standard_normal((len(rows), 3)).astype(np.float32))
            sparse = torch.sparse_coo_tensor(rows[None], gradient.clone(), (7, 3), check_invariants=False)
            theirs.grad = sparse.to_dense() if whole else sparse
            optimizer.step()
            rowwise.step(ours, memory, None if whole else rows, gradient, lr=0.05)
        torch.testing.assert_close(ours, theirs.detach())


def test_vectors_spread_over_the_graph_as_over_its_dense_matrix() -> None:
    data, _ = planted.dataset(Planted(users=9, items=7, groups=2, per_user=3))
    adjacency = torch.zeros(16, 16)
    users, items = data.user_items.split()
    adjacency[users, 9 + items] = 1
    adjacency += adjacency.T.clone()
    degrees = adjacency.sum(1)
    scale = torch.where(degrees > 0, degrees, torch.inf).rsqrt()
    matrix = scale[:, None] * adjacency * scale
    table = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    wanted = (table + matrix @ table + matrix @ matrix @ table) / 3
    torch.testing.assert_close(Graph.of(data.user_items, 2).spread(table), wanted)
    assert Graph.of(data.user_items, 0).spread(table) is table


def test_negatives_are_items_that_the_user_does_not_have() -> None:
    data, _ = planted.dataset(Planted(users=40, items=12, groups=2, per_user=14))
    found = sampling.epoch(data.user_items, 3, seed=0, number=0)
    assert len(found.users_P) == 3 * len(data.user_items)
    assert data.user_items.has(found.users_P, found.liked_P).all()
    assert not data.user_items.has(found.users_P, found.others_P).any()


def test_negatives_are_uniform() -> None:
    positives = Pairs.of(np.zeros(2, np.int64), np.array([1, 4]), (1, 8))
    drawn = sampling.unknown(positives, np.zeros(60_000, np.int64), np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=8) / 60_000
    assert shares == pytest.approx([1 / 6, 0, 1 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6], abs=0.01)


def test_users_who_have_everything_are_left_out_and_nearly_everything_is_no_trap() -> None:
    rows = np.array([0] * 500 + [1] * 499)
    positives = Pairs.of(rows, np.concatenate([np.arange(500), np.arange(499)]), (2, 500))
    found = sampling.epoch(positives, 1, seed=0, number=0)
    assert set(found.users_P.tolist()) == {1}
    assert set(found.others_P.tolist()) == {499}


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    data, _ = planted.dataset(Planted(users=40, items=30, groups=2, per_user=5))
    first, again, later, other = (
        sampling.epoch(data.user_items, 2, seed=seed, number=number).others_P.tolist()
        for seed, number in ((0, 3), (0, 3), (0, 4), (1, 3))
    )
    assert first == again
    assert first not in (later, other)
