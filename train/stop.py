"""SIGTERM and SIGUSR1: finish the step, save, and leave with a code that says: start me again with --resume."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from pipeline.errors import PretrainError

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, run it again."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they take a machine away (Kubernetes and Slurm's --signal)."""

_LAUNCHED = "TORCHELASTIC_RUN_ID"
"""Set for ranks that torchrun or `accelerate launch` started."""


class Stopped(PretrainError):
    """The run was asked to stop, and everything up to there is saved."""

    exit_code = EXIT_CODE


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.made = False

    def make(self, number: int, _: FrameType | None) -> None:
        """A signal's handler; a second one of the same kind is not waited for.

        Under torchrun it is. Slurm signals every process of a step, and the launcher passes on what it heard: its ranks
        hear everything twice. It kills those that take longer than 30 seconds.
        """
        self.made = True
        if _LAUNCHED not in os.environ:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Within, the signals only make a request."""
    request = StopRequest()
    if current_thread() is not main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.make) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
