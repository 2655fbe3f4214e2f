"""Which attempt at a run may write: the newest one. An earlier attempt that still lives (a zombie) is refused.

Each attempt claims the next number by a file that only one writer can create; no clock is asked. Before an attempt
writes anything of a checkpoint it looks whether a higher number was claimed since.
"""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from pipeline import record
from pipeline.errors import StreamError
from pipeline.store import Store

FOLDER = "attempts"
_NAME = re.compile(r"(\d{6})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One attempt's right to write."""

    store: Store
    """The run's folder."""
    attempt: int
    """From 1, in the order in which attempts began."""

    def check(self) -> None:
        """Raise StreamError where a later attempt has begun."""
        newest = max(numbers(self.store), default=0)
        if newest > self.attempt:
            raise StreamError(
                f"attempt {newest} at {self.store.url} has begun since, and this is attempt {self.attempt}: it "
                "writes nothing more. Leave it to the newer one."
            )


def claim(store: Store, say: Callable[[str], None], *, first_step: int = 0) -> Fence:
    """The right to write into `store`, which earlier attempts lose by it.

    Args:
        store: the run's folder.
        say: told where attempts at the same time are not noticed.
        first_step: steps done when the attempt begins; kept for people.

    Raises:
        SourceError: the store kept failing.
    """
    about = record.dumps({"host": platform.node(), "process": os.getpid(), "first_step": first_step})
    if not store.creates_once(f"{FOLDER}/probe-{uuid4().hex}"):
        say(
            f"{store.url} cannot create a file only once: two runs that write into it at the same time are noticed "
            "late or not at all. Start one at a time."
        )
    attempt = max(numbers(store), default=0) + 1
    while not store.create(f"{FOLDER}/{attempt:06d}.json", about):
        attempt += 1
    return Fence(store=store, attempt=attempt)


def numbers(store: Store) -> list[int]:
    """Attempts that have begun."""
    return [int(match[1]) for name in store.names(FOLDER) if (match := _NAME.fullmatch(name))]
