"""Adaptive density against plain loops over all pairs; sampled counts against exact ones."""

import math

import numpy as np
import pytest

from train.grouprec import density, planted, sphere
from train.grouprec.density import DensityConfig
from train.grouprec.sphere import Vectors

pytestmark = pytest.mark.train


def _plain(x: Vectors, at: int, config: DensityConfig) -> tuple[float, list[float]]:
    """Density of one vector, and the radii that reach it. Source: itr.md, section 2.2."""
    dis = [max(0.0, 1 - float(x[at] @ other)) for number, other in enumerate(x) if number != at]
    if config.with_self:
        dis.append(0.0)
    found = []
    for share in config.shares:
        radius = min(dis) + share * (max(dis) - min(dis))
        near = sum(d < radius if config.strict else d <= radius for d in dis)
        found.append((near / (math.pi * radius**2), radius))
    most = max(mu for mu, _ in found)
    return most, [radius for mu, radius in found if mu == pytest.approx(most, rel=1e-4)]


@pytest.mark.parametrize(
    "config", [DensityConfig(), DensityConfig(with_self=True, strict=True), DensityConfig(shares=(0.15, 0.35))]
)
def test_density_is_that_of_a_plain_loop(config: DensityConfig) -> None:
    x = sphere.units(planted.points((30, 20), 0.8, width=8)[0])
    found = density.density(x, np.arange(50), config)
    expected = [_plain(x, at, config) for at in range(50)]
    assert found.mu_N == pytest.approx([mu for mu, _ in expected], rel=1e-3)
    for radius, (_, radii) in zip(found.radius_N, expected, strict=True):
        assert any(radius == pytest.approx(one, rel=1e-3) for one in radii)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sphere.units(planted.points((70, 30), 0.5)[0])
    whole = density.density(x, np.arange(100), DensityConfig())
    monkeypatch.setattr(sphere, "CHUNK_BYTES", 4 * 100 * 7)
    parts = density.density(x, np.arange(100), DensityConfig())
    assert parts.radius_N == pytest.approx(whole.radius_N, abs=1e-6)


def test_a_sample_estimates_the_counts() -> None:
    """At radii that hold many, the scaled count of a tenth is that of all up to its own scatter."""
    x = sphere.units(planted.points((1500, 1500), 0.6)[0])
    exact = density.density(x, np.arange(3000), DensityConfig())
    counted = np.sort(np.random.default_rng(0).choice(3000, 600, replace=False))
    sampled = density.density(x, counted, DensityConfig())
    assert np.median(sampled.mu_N / exact.mu_N) == pytest.approx(1, abs=0.3)
    assert np.corrcoef(np.argsort(np.argsort(sampled.mu_N)), np.argsort(np.argsort(exact.mu_N)))[0, 1] > 0.7


def test_a_newcomer_counts_all_others() -> None:
    x = sphere.units(planted.points((30, 20), 0.8, width=8)[0])
    mu, radius = density.newcomer(x[0], x[1:], 49, DensityConfig())
    found = density.density(x, np.arange(50), DensityConfig())
    assert (mu, radius) == pytest.approx((found.mu_N[0], found.radius_N[0]), rel=1e-4)


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 3)), np.zeros((1, 3))])
def test_edges_give_finite_densities(x: Vectors) -> None:
    found = density.density(sphere.units(x.astype(np.float32)), np.arange(len(x)), DensityConfig())
    assert np.isfinite(found.mu_N).all()
    assert np.isfinite(found.radius_N).all()
