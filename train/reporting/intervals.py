"""How sure a share is that some samples give."""

from math import sqrt

_Z = 1.959963984540054
"""Of 95 %."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share among `count` samples (Wilson 1927); 0 to 1 where there are none."""
    if count < 1:
        return 0.0, 1.0
    square = _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
