"""What a person at rank 0 sees: facts before the first step, then one moving line, or a plain line now and then.

Everything goes to stderr, as the messages of the launcher do.
"""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from train.meter import Row

_PLAIN_LINES = 20


class Reporter:
    """Speaks on rank 0 and is silent elsewhere."""

    def __init__(self, *, speaks: bool, console: Console | None = None) -> None:
        """`speaks` is true on rank 0."""
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._speaks = speaks
        self._bar: Progress | None = None
        self._every = 1

    def say(self, text: str) -> None:
        """Print a line."""
        if self._speaks:
            self._console.print(text, markup=False)

    def facts(self, facts: Mapping[str, object]) -> None:
        """Print names and values, one a line."""
        for name, value in facts.items():
            self.say(f"  {name:<20} {value}")

    def begin(self, done: int, steps: int) -> None:
        """Show the line of a run that has `done` of its `steps` behind it."""
        self._every = max(1, steps // _PLAIN_LINES)
        if self._speaks and self._console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[now]}"), console=self._console)
            self._bar.add_task("steps", total=steps, completed=done, now="")
            self._bar.start()

    def step(self, row: Row) -> None:
        """Show a step."""
        skipped = "  skipped" if row.skipped else ""
        pace = f"{row.pace.samples_per_s:.1f} samples/s  {row.pace.data_wait_share:.0%} waiting"
        now = f"loss {row.loss:.4f}  {pace}{skipped}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=row.step, now=now)
        elif row.step % self._every == 0 or row.step == 1:
            self.say(f"step {row.step}  {now}")

    def end(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
