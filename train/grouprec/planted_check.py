"""What each identifier makes of planted groups, and whether it finds their number: the claim before any real data.

Source: itr.md, section 9.3.
"""

from dataclasses import dataclass

import numpy as np

from train.grouprec import identify, planted
from train.grouprec.agreement import adjusted_rand
from train.grouprec.identify import IdentifyConfig
from train.grouprec.names import IDENTIFIERS, Identifier

CASES = ((5, 0.3), (15, 0.3), (5, 0.6), (15, 0.6), (10, 1.0))
"""Groups, and noise as `planted.points` has it."""
_USERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedCheck:
    """One identifier on one case."""

    identifier: Identifier
    """It is not told how many groups there are."""
    groups: int
    """Planted."""
    noise: float
    """Expected distance of a vector from its group's direction, whose length is 1."""
    found: tuple[int, ...]
    """Groups found, by seed."""
    adjusted_rand: tuple[float, ...]
    """Agreement, by seed."""


def check(seeds: int = 3) -> list[PlantedCheck]:
    """All identifiers on all cases."""
    return [_one(identifier, groups, noise, seeds) for groups, noise in CASES for identifier in IDENTIFIERS]


def _one(identifier: Identifier, groups: int, noise: float, seeds: int) -> PlantedCheck:
    sizes = tuple(len(part) for part in np.array_split(np.arange(_USERS), groups))
    counts, agreements = [], []
    for seed in range(seeds):
        vectors, truth = planted.points(sizes, noise, seed=seed)
        everyone = np.ones(_USERS, np.bool_)
        found = identify.identify(vectors, everyone, IdentifyConfig(identifier=identifier), seed=seed)
        counts.append(len(found.centers_GD))
        agreements.append(adjusted_rand(found.assignment_U, truth))
    return PlantedCheck(
        identifier=identifier, groups=groups, noise=noise, found=tuple(counts), adjusted_rand=tuple(agreements)
    )
