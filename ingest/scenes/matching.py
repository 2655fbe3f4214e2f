"""One-to-one assignment of moments to moments: the most pairs, and of those the least total distance. Pure."""

from collections.abc import Sequence

Score = tuple[int, float]
"""Pairs made, and minus their total distance: the larger is the better."""


def match(distances: Sequence[Sequence[float | None]]) -> list[int | None]:
    """The column of each row, each column at most once.

    Rows and columns stand in order of time, so an optimum without crossings exists (crossed pairs uncrossed are never
    further apart), and it is found as the edit distance is: row by row, in rows x columns steps.

    Args:
        distances: (R, C); None where a row and a column must not meet.
    """
    rows, columns = len(distances), len(distances[0]) if distances else 0
    best: list[list[Score]] = [[(0, 0.0)] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        for j in range(columns):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], _with(best[i][j], distances[i][j]))
    found: list[int | None] = [None] * rows
    i, j = rows, columns
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found[i] = j
    return found


def _with(score: Score, distance: float | None) -> Score:
    return score if distance is None else (score[0] + 1, score[1] - distance)
