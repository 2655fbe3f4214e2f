"""Memory that arrays leave behind stays with the process, for the next ones.

Arrays of a chip are larger than what the C library keeps by default: it gives each back to the system when it is freed,
and the system clears every page of the next one. Measured: an interpolated chip costs twice as much so.
"""

import ctypes

KEPT_BYTES = 64 * 2**20
"""How much the process keeps, at most, at the end of its heap."""
_LARGEST_BYTES = 32 * 2**20
"""Larger arrays are given back at once; the C library allows no more."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the settings in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Set it for this process, where its C library is glibc; elsewhere nothing happens."""
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_TRIM_THRESHOLD, KEPT_BYTES)
        change(_MMAP_THRESHOLD, _LARGEST_BYTES)
