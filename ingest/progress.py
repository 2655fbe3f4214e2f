"""What a person sees while a build works: one live bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ingest.build import UnitDone
from ingest.plan import IngestPlan

_EVERY_S = 5.0
"""Seconds between two plain lines."""


class BuildProgress:
    """Counts units, chips and bytes of a build, on standard error."""

    def __enter__(self) -> "BuildProgress":
        """Start the display."""
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[detail]}"), console=self._console, transient=True)
        self._task: TaskID | None = None
        self._counts: Counter[str] = Counter()
        self._bytes = self._units = self._done = 0
        self._said_s = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        if self._console.is_terminal:
            self._bar.stop()

    def planned(self, plan: IngestPlan, finished: int) -> None:
        """Show how much there is to do."""
        self._units, self._done = len(plan.units), finished
        self._task = self._bar.add_task("units", total=self._units, completed=finished, detail="")
        again = f", {finished} done before" if finished else ""
        self._console.print(f"plan: {len(plan.tasks)} chips in {self._units} units{again}", highlight=False)

    def unit_done(self, done: UnitDone) -> None:
        """Count a finished unit."""
        self._counts += done.counts
        self._bytes += done.bytes
        self._done += 1
        detail = f"{self._bytes / 1e6:.1f} MB · " + " · ".join(
            f"{n} {what}" for what, n in sorted(self._counts.items())
        )
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, detail=detail)
        if not self._console.is_terminal and time.monotonic() - self._said_s > _EVERY_S:
            self._said_s = time.monotonic()
            sys.stderr.write(f"units {self._done}/{self._units} · {detail}\n")
