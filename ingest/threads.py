"""Work that threads do, told in order. For what releases the interpreter's lock: reading, hashing, blosc."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_order(work: Callable[[A], B], items: Iterable[A], *, threads: int) -> Iterator[B]:
    """`work` of every item, in order, a bounded number of them at a time."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * max(1, threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
