"""How the C library keeps memory, of this process."""

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_KEPT_BLOCK, _KEPT_TOTAL = 32 << 20, 256 << 20
"""Bytes. The largest blocks that are kept (glibc allows no more), and how many at the end of the heap."""


def keep_freed_memory() -> None:
    """Let the C library keep what was freed: batches and activations are given back and asked for again at every step.

    By default glibc returns such blocks to the system, and each is paid for in page faults when it comes back: reading
    takes twice the time, and a training step a tenth more (measured on two cores).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_TOTAL)
