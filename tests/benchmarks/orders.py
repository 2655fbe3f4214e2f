"""What became of the samples: from the ids of each rank and batch to what is missing, repeated or unequal.

Ids are 0 to N - 1 in the first epoch, and go on counting in those that follow.
"""

from collections import Counter
from typing import Any

Order = dict[Any, list[list[int]]]
"""Sample ids by rank and batch."""


def counted(order: Order, samples: int) -> tuple[int, int]:
    """How many of the first `samples` never came, and how many came once too often; higher ids may be missing."""
    seen = Counter(one for batches in order.values() for batch in batches for one in batch)
    return len(set(range(samples)) - set(seen)), sum(times - 1 for times in seen.values())


def batches(order: Order) -> str:
    """Batches of each rank."""
    return "/".join(str(len(own)) for own in order.values())


def partial(order: Order, rows: int) -> int:
    """Batches of fewer than `rows` samples."""
    return sum(len(one) < rows for own in order.values() for one in own)


def resumed(whole: Order, first: Order, rest: Order, *, samples: int) -> str:
    """Global batches of `rest` as without the interruption behind `first`, and what both together miss or repeat."""
    stop = max(map(len, first.values()))
    wanted, found = global_batches(whole)[stop:], global_batches(rest)
    same = sum(a == b for a, b in zip(wanted, found, strict=False))
    missing, twice = counted({**{f"before {rank}": own for rank, own in first.items()}, **rest}, samples)
    return f"{same} of {len(wanted)} the same, {missing} missing, {twice} twice"


def global_batches(order: Order) -> list[list[int]]:
    """What the ranks read together, step by step."""
    steps = max(map(len, order.values()), default=0)
    return [sorted(one for own in order.values() if step < len(own) for one in own[step]) for step in range(steps)]
