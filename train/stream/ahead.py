"""Which shards a rank reads from now and next: what is told to a source that fetches them ahead of need."""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from train.stream.config import Share
from train.stream.lanes import Plan
from train.stream.samples import Samples

_LOOKS = 16
"""How often the plan is asked within the time that it looks ahead: a shard between two looks is not fetched ahead."""


class Ahead:
    """Looks as far ahead as a window of each lane lasts: while one is read, the next one comes."""

    def __init__(self, samples: Samples, plan: Plan, share: Share, want: Callable[[Iterable[str]], None]) -> None:
        """Nothing is asked for yet; `want` is who will be told."""
        self._want, self._plan, self._share = want, plan, share
        self._matters = samples.source.reads_ahead
        self._names = samples.shards
        self._stride = max(1, self.steps(samples, plan) // _LOOKS)
        self._looks: deque[tuple[int, list[int]]] = deque()

    @staticmethod
    def steps(samples: Samples, plan: Plan) -> int:
        """Steps that a window of two shards lasts, at most as many as an epoch has."""
        shards = max(1, sum(size > 0 for size in samples.shard_sizes))
        window = 2 * plan.lanes * samples.samples / shards
        return max(1, int(min(window, samples.samples) / plan.global_batch))

    def tell(self, step: int) -> None:
        """Tell what is read from `step` on, where the source does anything about it."""
        if not self._matters:
            return
        last = self._looks[-1][0] if self._looks else None
        first = step if last is None else last + self._stride
        new = range(first, step + (_LOOKS + 1) * self._stride, self._stride)
        self._looks.extend((look, self._shards(look)) for look in new)
        gone = 0
        while len(self._looks) > 1 and self._looks[1][0] <= step - self._share.prefetch:
            self._looks.popleft()
            gone += 1
        if gone or new:
            self._want(self._names[number] for number in dict.fromkeys(self._numbers()))

    def _numbers(self) -> Iterable[int]:
        return chain.from_iterable(shards for _, shards in self._looks)

    def _shards(self, step: int) -> list[int]:
        if self._plan.steps is not None and step >= self._plan.steps:
            return []
        return self._plan.shards(step, self._share.rank, self._share.world_size)


def working_set(samples: Samples, plan: Plan, share: Share, step: int) -> int:
    """Bytes of the shards that a rank has in use at once, about."""
    last = step + Ahead.steps(samples, plan)
    near = {*plan.shards(step, share.rank, share.world_size), *plan.shards(last, share.rank, share.world_size)}
    sizes = {entry.path: entry.bytes for entry in samples.known.shards}
    return sum(sizes[samples.shards[number]] for number in near)
