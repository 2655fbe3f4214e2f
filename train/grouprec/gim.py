"""The group identification module: from the densest vector on, explore, or merge those that lie in each other's balls.

The number of groups is not given; it follows from the balls, and from where the loop stops.
Source: itr.md, section 2.2, and rows 5 to 10 of the table in section 6.
"""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from train.grouprec import sphere
from train.grouprec.density import Density, DensityConfig, density, newcomer, reference
from train.grouprec.interactions import Ints
from train.grouprec.sphere import Vectors

_ROUNDING = 1e-6
"""Of float32 distances: equal vectors lie in each other's balls of radius 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GimConfig:
    """How groups are found."""

    density: DensityConfig = field(default_factory=DensityConfig)
    """What is dense."""
    explore: bool = False
    """Spend turns on new candidates between two vectors. On planted groups they blur what is found."""
    fixed_mix: bool = False
    """New candidates lie halfway, as in the released code, instead of at a normal share of mean and deviation 0.5."""
    insert: bool = True
    """New candidates take their turn by density; otherwise behind all others, as in the released code."""
    revisit: bool = True
    """A vector whose turn was spent on exploring gets another."""
    merge_again: bool = False
    """Groups may take vectors that are in another already, as in the released code."""
    max_steps: int | None = None
    """Turns; the released code has 20, and so 13 to 15 groups whatever the data. None: no limit."""
    cover: float = 0.95
    """The loop stops when this share of the vectors is in a group."""


@dataclass(slots=True, kw_only=True)
class _State:
    """Candidates, and who is next."""

    x_CD: Vectors
    radius_C: NDArray[np.float32]
    alive_C: NDArray[np.bool_]
    counted_SD: Vectors
    queue: list[tuple[float, int]]
    users: int
    random: np.random.Generator
    config: GimConfig


def centers(x_ND: Vectors, config: GimConfig, random: np.random.Generator) -> Vectors:
    """(G, D) Centres of the groups among some vectors, the densest first; none among none.

    Args:
        x_ND: vectors of any length.
        config: how groups are found.
        random: decides on exploring, and on the sample that densities are taken of.
    """
    unit_ND = sphere.units(x_ND)
    if not len(unit_ND):
        return unit_ND
    state = _start(unit_ND, config, random)
    found = [center for center in _turns(state) if center is not None]
    return np.stack(found) if found else unit_ND[:0]


def _start(unit_ND: Vectors, config: GimConfig, random: np.random.Generator) -> _State:
    counted = reference(len(unit_ND), random)
    found: Density = density(unit_ND, counted, config.density)
    queue = [(-mu, at) for at, mu in enumerate(found.mu_N.tolist())]
    heapq.heapify(queue)
    return _State(
        x_CD=unit_ND,
        radius_C=found.radius_N,
        alive_C=np.ones(len(unit_ND), np.bool_),
        counted_SD=unit_ND[counted],
        queue=queue,
        users=len(unit_ND),
        random=random,
        config=config,
    )


def _turns(state: _State) -> "list[Vectors | None]":
    """What each turn gave: a centre, or nothing."""
    config, explored, turns, previous = state.config, 0, 0, -1
    limit = math.inf if config.max_steps is None else config.max_steps
    given: list[Vectors | None] = []
    while state.queue and turns < limit and _uncovered(state):
        at = heapq.heappop(state.queue)
        explores = math.exp(-(explored**2) / (turns + 1))
        turns += 1
        if config.explore and previous >= 0 and state.random.random() < explores:
            explored += 1
            _explore(state, at, previous)
        else:
            given.append(_merge(state, at[1]))
        previous = at[1]
        _drop_dead(state)
    return given


def _uncovered(state: _State) -> bool:
    return bool(state.alive_C[: state.users].sum() > (1 - state.config.cover) * state.users)


def _drop_dead(state: _State) -> None:
    """Pass over candidates that are in a group; in the released code their turns count."""
    while not state.config.merge_again and state.queue and not state.alive_C[state.queue[0][1]]:
        heapq.heappop(state.queue)


def _explore(state: _State, at: tuple[float, int], previous: int) -> None:
    """Add a candidate between this one and the one before it."""
    config = state.config
    mix = 0.5 if config.fixed_mix else state.random.normal(0.5, 0.5)
    new_D = (mix * state.x_CD[at[1]] + (1 - mix) * state.x_CD[previous]).astype(np.float32)
    if not config.fixed_mix:
        new_D = sphere.units(new_D[None])[0]
    mu, radius = newcomer(new_D, state.counted_SD, state.users, config.density)
    number = len(state.x_CD)
    state.x_CD = np.concatenate([state.x_CD, new_D[None]])
    state.radius_C = np.append(state.radius_C, np.float32(radius))
    state.alive_C = np.append(state.alive_C, np.True_)
    heapq.heappush(state.queue, (-mu if config.insert else float(number), number))
    if config.revisit:
        heapq.heappush(state.queue, at)


def _merge(state: _State, at: int) -> Vectors | None:
    """The centre of those in each other's balls with `at`, which they leave the queue for; None where `at` has left."""
    if not state.alive_C[at]:
        return None
    inside = _mutual(state, at)
    state.alive_C[inside] = False
    center: Vectors = state.x_CD[inside].mean(axis=0, dtype=np.float64).astype(np.float32)
    return center


def _mutual(state: _State, at: int) -> Ints:
    """Who lies in the ball of `at` and has `at` in its own: merged, then split off again."""
    dis_C = sphere.distances(state.x_CD[at][None], state.x_CD)[0]
    inside_C = dis_C <= np.minimum(state.radius_C, state.radius_C[at]) + _ROUNDING
    inside_C[at] = True
    if not state.config.merge_again:
        inside_C &= state.alive_C
    return np.flatnonzero(inside_C)
