"""What a store moved, counted: for the rows of a run, not for decisions."""

from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True, kw_only=True, eq=False)
class Traffic:
    """Counts since a store was opened, over all of its threads."""

    bytes_read: int = 0
    """Bytes."""
    requests: int = 0
    """Reads that were answered."""
    retries: int = 0
    """Operations that failed on their way and were tried again."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __reduce__(self) -> tuple[type["Traffic"], tuple[()]]:
        """Counts stay in their process."""
        return Traffic, ()

    def read(self, size: int) -> None:
        """Count a read of `size` bytes."""
        with self._lock:
            self.bytes_read += size
            self.requests += 1

    def add(self, *, bytes_read: int, requests: int, retries: int) -> None:
        """Count what another process read."""
        with self._lock:
            self.bytes_read += bytes_read
            self.requests += requests
            self.retries += retries

    def retried(self) -> None:
        """Count a failure."""
        with self._lock:
            self.retries += 1
