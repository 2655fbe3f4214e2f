"""Adaptive density: how many others lie near a vector, at the radius that flatters it most.

Exact where all others are counted; sampled where only some are, and the counts scaled. Either way one block of
`sphere.CHUNK_BYTES` is held, never a matrix of all pairs: memory is O(N + S), time O(N S D).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.grouprec import sphere
from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

EXACT_UP_TO = 20_000
"""Vectors. Above it the density is sampled: the exact one costs their square."""
SAMPLE = 2048
"""Vectors that are counted instead of all. Source: itr.md, section 7."""
_SMALLEST = 1e-6
"""Of a radius: below it float32 distances are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityConfig:
    """What is counted."""

    shares: tuple[float, ...] = (0.1, 0.2, 0.3)
    """q: radii, as shares of the way from the nearest to the farthest other."""
    with_self: bool = False
    """A vector counts as its own nearest, as in the released code: then all radii begin at 0."""
    strict: bool = False
    """Only others nearer than the radius count, not those at it, as in the released code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Of each vector."""

    mu_N: NDArray[np.float64]
    """Others within the radius, per area of a disc of it."""
    radius_N: NDArray[np.float32]
    """Cosine distance."""


def reference(count: int, random: np.random.Generator) -> Ints:
    """Which vectors are counted: all, or a sample; ascending."""
    if count <= EXACT_UP_TO:
        return np.arange(count)
    return np.sort(random.choice(count, SAMPLE, replace=False))


def density(x_ND: Vectors, reference_S: Ints, config: DensityConfig) -> Density:
    """Of every vector, against those of the reference.

    Args:
        x_ND: unit vectors.
        reference_S: ascending numbers of the vectors that are counted.
        config: what is counted.

    Source: itr.md, section 2.2. The area is that of a disc whatever D is, as printed.
    """
    mu_N, radius_N = np.empty(len(x_ND)), np.empty(len(x_ND), np.float32)
    counted_SD = x_ND[reference_S]
    for rows in sphere.chunks(len(x_ND), len(reference_S)):
        dis = sphere.distances(x_ND[rows], counted_SD)
        own = _own(np.arange(rows.start, rows.stop), reference_S)
        mu_N[rows], radius_N[rows] = _block(dis, own, len(x_ND), config)
    return Density(mu_N=mu_N, radius_N=radius_N)


def newcomer(x_D: Vectors, others_ND: Vectors, count: int, config: DensityConfig) -> tuple[float, float]:
    """Density and radius of a vector that is none of the others.

    Args:
        x_D: the vector.
        others_ND: that are counted, of `count`.
        count: how many there are.
        config: what is counted.
    """
    nobody = np.zeros(0, np.int64)
    mu, radius = _block(sphere.distances(x_D[None], others_ND), (nobody, nobody), count + 1, config)
    return float(mu[0]), float(radius[0])


def _own(rows: Ints, reference_S: Ints) -> tuple[Ints, Ints]:
    """Where a block holds the distance of a vector to itself."""
    at = np.searchsorted(reference_S, rows).clip(max=max(len(reference_S) - 1, 0))
    found = np.flatnonzero(reference_S[at] == rows)
    return found, at[found]


def _block(
    dis: NDArray[np.float32], own: tuple[Ints, Ints], count: int, config: DensityConfig
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Density and radius of the rows of a block of distances, those at `own` to itself; `dis` is overwritten."""
    seen = np.full(len(dis), dis.shape[1])
    if config.with_self:
        dis[own] = 0
    else:
        seen[own[0]] -= 1
        dis[own] = -np.inf
    farthest = np.where(seen > 0, dis.max(axis=1), 0)
    if not config.with_self:
        dis[own] = np.inf
    closest = np.where(seen > 0, dis.min(axis=1), 0)
    others = count if config.with_self else count - 1
    best_mu, best_radius = np.full(len(dis), -1.0), np.zeros(len(dis), np.float32)
    for share in config.shares:
        radius = (closest + share * (farthest - closest)).astype(np.float32)
        near = np.count_nonzero(dis < radius[:, None] if config.strict else dis <= radius[:, None], axis=1)
        mu = near * (others / np.maximum(seen, 1)) / (np.pi * np.maximum(radius, _SMALLEST).astype(np.float64) ** 2)
        better = mu > best_mu
        best_mu[better], best_radius[better] = mu[better], radius[better]
    return best_mu, best_radius
