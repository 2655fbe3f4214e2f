"""Groups that were planted are found; the same seed finds the same; edges do not break. Acceptance tests 4 and 10."""

import resource
import time
from dataclasses import replace

import numpy as np
import pytest

from train.grouprec import gim, identify, planted, sphere
from train.grouprec.agreement import adjusted_rand, silhouette
from train.grouprec.density import DensityConfig
from train.grouprec.gim import GimConfig
from train.grouprec.identify import IdentifyConfig
from train.grouprec.names import IDENTIFIERS, Identifier
from train.grouprec.sphere import Vectors

pytestmark = pytest.mark.train
CODE = GimConfig(
    density=DensityConfig(with_self=True, strict=True),
    explore=True,
    fixed_mix=True,
    insert=False,
    revisit=False,
    merge_again=True,
    max_steps=20,
    cover=1.0,
)


def _sizes(groups: int, users: int = 2000) -> tuple[int, ...]:
    return tuple(len(part) for part in np.array_split(np.arange(users), groups))


def _found(x: Vectors, config: IdentifyConfig, seed: int = 0) -> identify.PseudoGroups:
    return identify.identify(x, np.ones(len(x), np.bool_), config, seed=seed)


@pytest.mark.parametrize("identifier", IDENTIFIERS)
@pytest.mark.parametrize("groups", [5, 15])
def test_planted_groups_are_found_exactly(groups: int, identifier: Identifier) -> None:
    """None of them is told how many there are."""
    for seed in range(3):
        x, planted_N = planted.points(_sizes(groups), 0.3, seed=seed)
        found = _found(x, IdentifyConfig(identifier=identifier), seed)
        assert len(found.centers_GD) == groups
        assert adjusted_rand(found.assignment_U, planted_N) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("groups", [5, 15])
def test_blurred_groups_are_found_by_kmeans(groups: int) -> None:
    """Noise 0.6: GIM finds several times too many groups; k-means by silhouette is not told their number, either."""
    for seed in range(3):
        x, planted_N = planted.points(_sizes(groups), 0.6, seed=seed)
        found = _found(x, IdentifyConfig(identifier="kmeans"), seed)
        assert adjusted_rand(found.assignment_U, planted_N) >= 0.95
        assert len(found.centers_GD) == groups


def test_the_released_code_finds_nothing_on_planted_groups() -> None:
    """Source: itr.md, section 9.3: k' 1 and ARI .00, since a ball that begins at 0 holds everything."""
    x, planted_N = planted.points(_sizes(15), 0.3)
    assert adjusted_rand(_found(x, IdentifyConfig(gim=CODE, smallest=1)).assignment_U, planted_N) < 0.2


def test_turns_decide_the_number_of_groups_of_the_released_code() -> None:
    """Source: itr.md, section 2.2: 13 to 15 at the start, whatever the data."""
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((1000, 32)).astype(np.float32)
        assert 13 <= len(gim.centers(x, CODE, np.random.default_rng(seed))) <= 15


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_the_seed_decides(identifier: Identifier) -> None:
    x, _ = planted.points(_sizes(7, 400), 0.8)
    config = IdentifyConfig(identifier=identifier, gim=GimConfig(explore=True))
    first, again = _found(x, config, 3), _found(x, config, 3)
    assert np.array_equal(first.centers_GD, again.centers_GD)
    assert np.array_equal(first.assignment_U, again.assignment_U)


@pytest.mark.parametrize("identifier", IDENTIFIERS)
@pytest.mark.parametrize("x", [np.ones((1, 4)), np.ones((6, 4)), np.zeros((6, 4)), np.zeros((1, 4))])
def test_one_user_equal_users_and_zeros_are_one_group(identifier: Identifier, x: Vectors) -> None:
    found = _found(x.astype(np.float32), IdentifyConfig(identifier=identifier, gim=GimConfig(explore=True)))
    assert len(found.centers_GD) == 1
    assert found.assignment_U.tolist() == [0] * len(x)
    assert np.isfinite(found.centers_GD).all()


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_no_users_are_no_groups(identifier: Identifier) -> None:
    found = identify.identify(
        np.ones((3, 4), np.float32), np.zeros(3, np.bool_), IdentifyConfig(identifier=identifier), seed=0
    )
    assert found.centers_GD.shape == (0, 4)
    assert found.assignment_U.tolist() == [-1, -1, -1]
    assert found.sizes.tolist() == []


def test_users_without_items_are_in_no_group() -> None:
    x, _ = planted.points(_sizes(3, 60), 0.2)
    warm = np.arange(60) % 2 == 0
    found = identify.identify(x, warm, IdentifyConfig(), seed=0)
    assert (found.assignment_U[~warm] == -1).all()
    assert found.sizes.sum() == 30
    everyone = identify.identify(x, warm, IdentifyConfig(warm_only=False), seed=0)
    assert (everyone.assignment_U >= 0).all()


def test_small_groups_join_the_nearest() -> None:
    x, planted_N = planted.points((100, 3, 100), 0.1)
    found = _found(x, IdentifyConfig(smallest=5, gim=GimConfig(cover=1.0)))
    assert (found.sizes >= 5).all()
    assert found.sizes.sum() == 203
    assert len(_found(x, IdentifyConfig(smallest=1, gim=GimConfig(cover=1.0))).centers_GD) == len(found.centers_GD) + 1
    assert adjusted_rand(found.assignment_U[planted_N != 1], planted_N[planted_N != 1]) == 1


def test_merges_are_mutual() -> None:
    """A plain loop over the printed rule, one turn: those in the ball of the densest, and it in theirs."""
    x = sphere.units(planted.points((20, 30), 0.7, width=8)[0])
    from train.grouprec.density import density

    found = density(x, np.arange(50), DensityConfig())
    densest = int(np.argmax(found.mu_N))
    inside = [
        x[at]
        for at in range(50)
        if at == densest or 1 - x[densest] @ x[at] <= min(found.radius_N[at], found.radius_N[densest])
    ]
    (center,) = gim.centers(x, GimConfig(max_steps=1), np.random.default_rng(0))
    assert center == pytest.approx(np.mean(inside, axis=0), abs=1e-6)


def test_exploring_adds_centres_between_vectors() -> None:
    x, _ = planted.points(_sizes(4, 200), 0.4)
    config = GimConfig(explore=True, max_steps=10)
    with_it = gim.centers(x, config, np.random.default_rng(0))
    without = gim.centers(x, replace(config, explore=False), np.random.default_rng(0))
    assert len(with_it) <= 10
    assert len(with_it) != len(without) or not np.array_equal(with_it, without)


def test_drift_leaves_unchanged_users_where_they_are_and_finds_new_groups() -> None:
    x, planted_N = planted.points(_sizes(4, 400), 0.2)
    old = planted_N < 3
    before = identify.identify(x[old], np.ones(int(old.sum()), np.bool_), IdentifyConfig(), seed=0)
    today = np.concatenate([x[old], x[~old]])
    changed = np.arange(400) >= old.sum()
    after = identify.drifted(before, today, changed, IdentifyConfig(), seed=0)
    assert np.array_equal(after.assignment_U[~changed], before.assignment_U)
    assert len(after.centers_GD) == len(before.centers_GD) + 1
    assert adjusted_rand(after.assignment_U, np.concatenate([planted_N[old], planted_N[~old]])) == 1
    assert identify.drifted(before, x[old], changed[: old.sum()], IdentifyConfig(), seed=0) is before


def test_a_few_strays_are_no_group() -> None:
    x, _ = planted.points((50, 50, 2), 0.2)
    before = _found(x[:-2], IdentifyConfig())
    after = identify.drifted(before, x, np.arange(102) >= 100, IdentifyConfig(), seed=0)
    assert len(after.centers_GD) == len(before.centers_GD)
    assert (after.assignment_U >= 0).all()


def test_drift_lets_changed_users_move() -> None:
    x, planted_N = planted.points((50, 50), 0.2)
    before = _found(x, IdentifyConfig())
    moved = x.copy()
    moved[0] = x[np.flatnonzero(planted_N != planted_N[0])].mean(axis=0)
    after = identify.drifted(before, moved, np.arange(100) == 0, IdentifyConfig(), seed=0)
    assert after.assignment_U[0] == 1 - before.assignment_U[0]
    assert np.array_equal(after.assignment_U[1:], before.assignment_U[1:])


def test_sampled_and_exact_densities_find_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = planted.points(_sizes(10, 5000), 0.3)
    exact = _found(x, IdentifyConfig())
    monkeypatch.setattr("train.grouprec.density.EXACT_UP_TO", 1000)
    assert adjusted_rand(_found(x, IdentifyConfig()).assignment_U, exact.assignment_U) >= 0.99


@pytest.mark.slow
def test_a_hundred_thousand_users_take_seconds_and_little_memory() -> None:
    """Under 15 CPU-seconds and 1 GB extra. Source: itr.md, section 10, test 10."""
    x, planted_N = planted.points(_sizes(15, 100_000), 0.3)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = _found(x, IdentifyConfig())
    assert time.process_time() - began < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
    assert adjusted_rand(found.assignment_U, planted_N) >= 0.99


def test_silhouette_is_that_of_a_plain_loop() -> None:
    x, own = planted.points((6, 5, 1), 0.7, width=4)
    unit = sphere.units(x)
    parts = []
    for at in range(12):
        mean_to = {
            group: np.mean([1 - unit[at] @ unit[other] for other in range(12) if own[other] == group and other != at])
            for group in range(3)
            if any(own[other] == group and other != at for other in range(12))
        }
        inner, outer = mean_to.pop(own[at], None), min(mean_to.values())
        parts.append(0 if inner is None else (outer - inner) / max(inner, outer))
    assert silhouette(x, own) == pytest.approx(np.mean(parts), abs=1e-5)
    assert silhouette(x, np.zeros(12, np.int64)) is None


def test_adjusted_rand_counts_pairs() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 3, 30), random.integers(0, 4, 30)
    pairs = [(one[a] == one[b], other[a] == other[b]) for a in range(30) for b in range(a)]
    both, first, second = (sum(x and y for x, y in pairs), sum(x for x, _ in pairs), sum(y for _, y in pairs))
    expected = first * second / len(pairs)
    assert adjusted_rand(one, other) == pytest.approx((both - expected) / ((first + second) / 2 - expected))
    assert adjusted_rand(one, (one + 1) % 3) == 1


def test_nearest_and_means_are_those_of_plain_loops() -> None:
    x, _ = planted.points((40,), 2.0, width=5)
    centers = x[[3, 17, 30]]
    found = sphere.nearest(x, centers)
    cosines = [[v @ c / np.linalg.norm(v) / np.linalg.norm(c) for c in centers] for v in x]
    assert found.tolist() == np.argmax(cosines, axis=1).tolist()
    found[:5] = -1
    means = sphere.means(x, found, 4)
    assert means[:3] == pytest.approx(np.stack([x[found == group].mean(axis=0) for group in range(3)]), abs=1e-6)
    assert means[3].tolist() == [0] * 5
