"""What is seen while a build works: one live bar on a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ingest.build import UnitDone
from ingest.cost import Assumptions, unit_reads
from ingest.plan import IngestPlan, Unit
from pipeline.errors import redact

Style = Literal["auto", "plain", "json"]
_EVERY_S = 5.0
"""Seconds between two plain lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one unit reads, by the plan's arithmetic."""

    bytes: int = 0
    """As stored."""
    requests: int = 0
    """Ranges."""


@dataclass(slots=True, kw_only=True)
class Tale:
    """How far a build has come."""

    units: int = 0
    """Planned."""
    before: int = 0
    """Units that were done by an earlier run."""
    done: int = 0
    """Units, those done before included."""
    failed: int = 0
    """Units."""
    counts: Counter[str] = field(default_factory=Counter)
    """Chips of this run: `accepted`, or the reason of rejection."""
    read: int = 0
    """Bytes that the finished units read, by the plan's arithmetic."""
    requests: int = 0
    """Ranges that the finished units read, by the plan's arithmetic."""
    written: int = 0
    """Bytes of shards."""
    retries: int = 0
    """Reads of the finished units that were made again, because a server failed or throttled."""
    held_s: float = 0.0
    """Seconds that workers waited for such servers, over all threads."""
    began_s: float = 0.0
    """Of a clock that only goes forward."""

    def add(self, done: UnitDone, load: Load) -> None:
        """Count a finished unit."""
        self.done += 1
        self.counts += done.counts
        self.read += load.bytes
        self.requests += load.requests
        self.written += done.bytes
        self.retries += done.held.retries
        self.held_s += done.held.seconds

    def seconds_left(self, now_s: float) -> float | None:
        """At the speed so far; None before the first unit."""
        ours = self.done - self.before
        return (now_s - self.began_s) / ours * (self.units - self.done - self.failed) if ours else None

    def as_json(self, now_s: float) -> dict[str, Any]:
        """Everything, for a machine."""
        elapsed_s, left_s = max(now_s - self.began_s, 1e-9), self.seconds_left(now_s)
        return {
            "units": self.units,
            "done": self.done,
            "failed": self.failed,
            "accepted": self.counts["accepted"],
            "rejected": {name: n for name, n in sorted(self.counts.items()) if name != "accepted"},
            "bytes_read": self.read,
            "requests": self.requests,
            "retries": self.retries,
            "held_s": round(self.held_s, 1),
            "bytes_written": self.written,
            "mb_per_s": round((self.read + self.written) / elapsed_s / 1e6, 3),
            "seconds": round(elapsed_s, 3),
            "eta_s": None if left_s is None else round(left_s, 1),
        }

    def detail(self, now_s: float) -> str:
        """Everything that a bar does not show, for a person."""
        elapsed_s = max(now_s - self.began_s, 1e-9)
        moved = (
            f"about {self.read / 1e6:.1f} MB in {self.requests:,} requests read · {self.written / 1e6:.1f} MB written"
        )
        parts = [moved, f"{(self.read + self.written) / elapsed_s / 1e6:.1f} MB/s"]
        parts += [f"{n} {what}" for what, n in sorted(self.counts.items())]
        parts += [f"{self.retries} reads repeated, {self.held_s:.0f} s held up"] if self.retries else []
        return " · ".join([*parts, f"{_counted(self.failed, 'unit')} failed"] if self.failed else parts)


class BuildProgress:
    """Tells of a build on standard error."""

    def __init__(self, style: Style = "auto") -> None:
        """`auto` is a live bar on a terminal and plain lines elsewhere."""
        self._console = Console(stderr=True)
        self._style: Literal["bar", "plain", "json"] = (
            ("bar" if self._console.is_terminal else "plain") if style == "auto" else style
        )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[detail]}"), console=self._console, transient=True)
        self._task: TaskID | None = None
        self._tale = Tale()
        self._loads: dict[str, Load] = {}
        self._said_s = 0.0

    def __enter__(self) -> "BuildProgress":
        """Start the display."""
        self._said_s = time.monotonic()
        if self._style == "bar":
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        if self._style == "bar":
            self._bar.stop()
        elif self._style == "json" and self._tale.units:
            self._line("end", ok=error is None)

    def planned(self, plan: IngestPlan, finished: int) -> None:
        """Show how much there is to do."""
        self._loads = {unit.unit_id: _load(unit, plan) for unit in plan.units}
        self._tale = Tale(units=len(plan.units), before=finished, done=finished, began_s=time.monotonic())
        if self._style == "json":
            self._line("planned", chips=len(plan.tasks))
            return
        self._task = self._bar.add_task("units", total=self._tale.units, completed=finished, detail="")
        again = f", {finished} done before" if finished else ""
        chips, units = _counted(len(plan.tasks), "chip"), _counted(self._tale.units, "unit")
        self._console.print(f"plan: {chips} in {units}{again}", highlight=False)

    def unit_done(self, done: UnitDone) -> None:
        """Count a finished unit."""
        self._tale.add(done, self._loads.get(done.unit_id, Load()))
        self._show("unit", unit=done.unit_id)

    def unit_failed(self, unit_id: str, error: Exception) -> None:
        """Count a unit that failed; it is told of in the end, too."""
        self._tale.failed += 1
        self._show("failed", unit=unit_id, error=redact(str(error)))

    def _show(self, event: str, **more: object) -> None:
        now_s = time.monotonic()
        if self._style == "json":
            self._line(event, **more)
        elif self._style == "bar" and self._task is not None:
            self._bar.update(self._task, completed=self._tale.done, detail=self._tale.detail(now_s))
        elif now_s - self._said_s > _EVERY_S:
            self._said_s = now_s
            left_s = self._tale.seconds_left(now_s)
            left = "" if left_s is None else f" · {left_s:.0f} s left"
            sys.stderr.write(f"units {self._tale.done}/{self._tale.units} · {self._tale.detail(now_s)}{left}\n")

    def _line(self, event: str, **more: object) -> None:
        told = {"event": event, **more, **self._tale.as_json(time.monotonic())}
        sys.stderr.write(json.dumps(told) + "\n")
        sys.stderr.flush()


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _load(unit: Unit, plan: IngestPlan) -> Load:
    reads = list(unit_reads(unit, plan, Assumptions()))
    return Load(bytes=sum(one.bytes for one in reads), requests=sum(one.requests for one in reads))
