"""Names of Major-TOM's 10 km grid cells: a second address of a place, to join data sets by. Not the grid of ours.

The grid as published with Major TOM Core (Francis and Czerkawski, 2024): a sphere of the equatorial radius is cut into
rows of equal height, each row into columns of equal width, none longer than 10 km; both count from (0, 0), a cell is
named by its south-west corner.
"""

import math

RADIUS_KM = 6378.137
"""The sphere's."""
SPACING_KM = 10.0
"""Longest side of a cell."""
_ROWS = math.ceil(math.pi * RADIUS_KM / SPACING_KM)


def cell_name(lon: float, lat: float) -> str:
    """Name of the cell that holds a point: `U`p or `D`own of the equator, `R`ight or `L`eft of Greenwich.

    >>> cell_name(103.75, 17.9)
    '199U_1099R'
    """
    row = math.floor(lat * _ROWS / 180)
    parallel = math.cos(math.radians(row * 180 / _ROWS))
    columns = max(1, math.ceil(2 * math.pi * RADIUS_KM * parallel / SPACING_KM))
    column = math.floor(((lon + 180) % 360 - 180) * columns / 360)
    return f"{_side(row, 'U', 'D')}_{_side(column, 'R', 'L')}"


def _side(index: int, upper: str, lower: str) -> str:
    return f"{index}{upper}" if index >= 0 else f"{-index}{lower}"
