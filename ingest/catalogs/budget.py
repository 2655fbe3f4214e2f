"""How fast a host may be asked, and how often again: a token bucket that busy answers slow down.

One budget a host and process: all searches and tokens of a run share it, whatever thread they come from.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

RETRIES = 50.0
"""Failed requests to one host that may be tried again before all give up; five good answers earn one back."""
SLOWEST_PER_S = 0.1
"""Requests in a second, however often a host says that it is busy."""


@dataclass(slots=True, kw_only=True, eq=False)
class Budget:
    """What is left to ask one host. Safe to use from many threads."""

    most_per_s: float
    """Requests in a second, at most; also how many may go at once after a rest."""
    now: Callable[[], float] = time.monotonic
    """Seconds of a clock that never goes back."""
    sleep: Callable[[float], None] = time.sleep
    """Waits so many seconds."""
    rate_per_s: float = field(init=False)
    """Requests in a second, at present."""
    _retries: float = field(init=False, default=RETRIES)
    _tokens: float = field(init=False)
    _counted_s: float = field(init=False)
    _not_before_s: float = field(init=False)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        self.rate_per_s = self._tokens = self.most_per_s
        self._counted_s = self._not_before_s = self.now()

    def wait(self) -> None:
        """Until the next request may go."""
        with self._lock:
            now = self.now()
            earned = (now - self._counted_s) * self.rate_per_s
            self._tokens, self._counted_s = min(max(1.0, self.most_per_s), self._tokens + earned) - 1, now
            pause_s = max(-self._tokens / self.rate_per_s, self._not_before_s - now)
        if pause_s > 0:
            self.sleep(pause_s)

    def answered(self) -> None:
        """A good answer: go a little faster again."""
        with self._lock:
            self.rate_per_s = min(self.most_per_s, self.rate_per_s + self.most_per_s / 50)
            self._retries = min(RETRIES, self._retries + 0.2)

    def failed(self, *, pause_s: float, busy: bool) -> bool:
        """Nobody asks for `pause_s` seconds, and half as fast where the host is busy; whether to try again."""
        with self._lock:
            if busy:
                self.rate_per_s = max(SLOWEST_PER_S, self.rate_per_s / 2)
            self._not_before_s = max(self._not_before_s, self.now() + pause_s)
            self._retries -= 1
            return self._retries >= 0
