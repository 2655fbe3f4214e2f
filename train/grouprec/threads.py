"""One thread for all that is computed: runs repeat to the bit, and no thread waits for another in a loop.

Why: a step multiplies matrices of a few thousand numbers. Split over threads it takes longer, and while the other
thread has no core to run on, the waiting one takes processor time: k-means took six times as much on a busy machine.
Two threads that add to one row do it in any order, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, numpy's and torch's matrix products have one thread; also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _controller() -> ThreadpoolController:
    """Knows the libraries that are loaded; looking for them takes milliseconds."""
    return ThreadpoolController()
