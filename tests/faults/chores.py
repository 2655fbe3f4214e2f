"""Work that workers of the tests can be given: they import it by its name."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ingest.plan import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Note the unit in a file of its own, and take some time."""

    folder: Path
    """Where a file for each unit grows by a line each time that it is done."""
    seconds: float = 0.2
    """How long it takes."""

    def __call__(self, unit: Unit) -> str:
        (self.folder / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds)
        with (self.folder / unit.unit_id).open("a") as file:
            file.write("done\n")
        return unit.unit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly:
    """Takes its worker with it, or more memory than there is, for one unit."""

    unit_id: str
    """Which."""
    byte_count: int = 0
    """Memory to take; 0 ends the worker at once."""

    def __call__(self, unit: Unit) -> str:
        if unit.unit_id == self.unit_id:
            if not self.byte_count:
                os.kill(os.getpid(), signal.SIGKILL)
            held = bytearray(b"x" * self.byte_count)
            time.sleep(30)
            del held
        return unit.unit_id
