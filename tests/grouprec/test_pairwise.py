"""BPR's gradient against autograd, row-wise optimizers against torch's, LightGCN against dense matrices."""

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from train.grouprec import learn, pairwise, planted, rowwise, sampling
from train.grouprec.graph import Graph
from train.grouprec.interactions import Pairs
from train.grouprec.names import SCORERS, ScorerName
from train.grouprec.planted import Planted

pytestmark = pytest.mark.train


def _score(product: torch.Tensor, head: torch.Tensor, scorer: ScorerName) -> torch.Tensor:
    if scorer == "dot":
        return product.sum(-1)
    parts = head[0].split([8 * product.shape[-1], 8, 8, 1])
    raw = torch.relu(product @ parts[0].view(8, -1).T + parts[1]) @ parts[2] + parts[3]
    return torch.sigmoid(raw) if scorer == "mlp_sigmoid" else raw


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_is_autograds(scorer: ScorerName, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 6, 5, generator=generator).requires_grad_()
    head = torch.from_numpy(pairwise.head(scorer, 5, generator)).requires_grad_()
    scores = _score(vectors[0] * vectors[1:], head, scorer)
    loss = softplus((scores[1] - scores[0]) / temperature)
    wanted = torch.autograd.grad(loss.sum() / 12, (vectors, head), allow_unused=True)
    arrays = vectors.detach().numpy(), head.detach().numpy()
    found = pairwise.gradient(*arrays, scorer, temperature=temperature, pairs=12)
    torch.testing.assert_close(torch.from_numpy(pairwise.softplus(found.margin_B)), loss)
    torch.testing.assert_close(torch.from_numpy(found.vectors_3BD), wanted[0])
    if scorer != "dot":
        torch.testing.assert_close(torch.from_numpy(found.head_1W), wanted[1])


def test_a_sigmoid_saturates_in_float32() -> None:
    """What makes the ties: 17 and above are all 1."""
    assert torch.sigmoid(torch.tensor([17.0, 20.0, 30.0])).tolist() == [1.0, 1.0, 1.0]


def test_rmsprop_by_rows_is_torchs_rmsprop() -> None:
    """Rows without a gradient stay, and their mean square decays until they are touched again."""
    random = np.random.default_rng(0)
    ours = random.standard_normal((7, 3)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    optimizer, memory = torch.optim.RMSprop([theirs], lr=0.05), rowwise.moments(ours, "rmsprop")
    for number in range(12):
        rows = None if number == 6 else np.sort(random.choice(7, 3, replace=False))
        gradient = random.standard_normal((7 if rows is None else 3, 3)).astype(np.float32)
        whole = np.zeros((7, 3), np.float32)
        whole[... if rows is None else rows] = gradient
        theirs.grad = torch.from_numpy(whole)
        optimizer.step()
        rowwise.step(ours, memory, rows, gradient, lr=0.05)
    torch.testing.assert_close(torch.from_numpy(ours), theirs.detach())


def test_adam_of_all_rows_is_torchs_adam_and_of_some_its_sparse_adam() -> None:
    random = np.random.default_rng(0)
    start = random.standard_normal((7, 3)).astype(np.float32)
    for whole in (True, False):
        ours, theirs = start.copy(), torch.nn.Parameter(torch.from_numpy(start.copy()))
        make = torch.optim.Adam if whole else torch.optim.SparseAdam
        optimizer, memory = make([theirs], lr=0.05), rowwise.moments(ours, "adam")
        for _ in range(8):
            rows = np.arange(7) if whole else np.sort(random.choice(7, 3, replace=False))
            gradient = random.standard_normal((len(rows), 3)).astype(np.float32)
            parts = torch.from_numpy(rows[None]), torch.from_numpy(gradient.copy())
            sparse = torch.sparse_coo_tensor(*parts, (7, 3), check_invariants=False)
            theirs.grad = sparse.to_dense() if whole else sparse
            optimizer.step()
            rowwise.step(ours, memory, None if whole else rows, gradient, lr=0.05)
        torch.testing.assert_close(torch.from_numpy(ours), theirs.detach())


def test_a_node_gets_the_sum_of_its_gradients() -> None:
    random = np.random.default_rng(0)
    nodes, by_vectors = random.integers(0, 6, 40), random.standard_normal((40, 3)).astype(np.float32)
    wanted = np.zeros((9, 3), np.float32)
    np.add.at(wanted, nodes, by_vectors)
    rows, found = learn._by_row(nodes, by_vectors, np.full(9, -1))
    assert sorted(rows.tolist()) == sorted(set(nodes.tolist()))
    assert found == pytest.approx(wanted[rows], abs=1e-5)


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
    torch.testing.assert_close(torch.from_numpy(Graph.of(data.user_items, 2).spread(table.numpy())), wanted)
    same = table.numpy()
    assert Graph.of(data.user_items, 0).spread(same) is same


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
