"""`chips.parquet` against the receipts."""

import io
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest import chips
from ingest.care.verify.finding import REBUILD, Finding
from ingest.plan import IngestPlan, Unit
from ingest.receipt import Outcome
from pipeline.store import Store


class ChipTable:
    """`chips.parquet`, compared with receipts as they come, in the order of units."""

    def __init__(self, store: Store) -> None:
        self.findings: list[Finding] = []
        self._at = 0
        self._table: pa.Table | None = None
        try:
            self._table = pq.read_table(io.BytesIO(store.read(chips.NAME)))
            self._table.select(_OUTCOME)
        except FileNotFoundError:
            self._say("it is not there")
        except (pa.ArrowInvalid, OSError, KeyError, pa.ArrowException) as error:
            self._table = None
            self._say(f"it cannot be read: {error}")

    def compare(self, unit_id: str, outcomes: Sequence[Outcome]) -> None:
        """The next rows must be `outcomes`."""
        if self._table is None:
            return
        found = self._table.slice(self._at, len(outcomes)).select(_OUTCOME).to_pylist()
        self._at += len(outcomes)
        if [tuple(row.values()) for row in found] != [_row(one) for one in outcomes]:
            self._say(f"rows {self._at - len(outcomes)} to {self._at - 1} are not those of the receipt of {unit_id}")

    def skip(self, unit: Unit | None) -> None:
        """Pass over a unit without receipt; without the plan, too, nobody knows where the next one begins."""
        if unit is None:
            self._table = None
        else:
            self._at += len(unit.tasks)

    def end(self, plan: IngestPlan | None, outcomes: Sequence[Sequence[Outcome]]) -> None:
        """All receipts were compared; with the plan the whole table is known, cells left out included."""
        if self._table is None or self.findings:
            return
        rest = self._table.slice(self._at)
        if plan is None:
            if set(rest["status"].to_pylist()) - {"left out"}:
                self._say("it has chips that are in no receipt")
            return
        wanted = chips.to_table(plan, list(chain.from_iterable(outcomes)))
        if not self._table.equals(wanted):
            differing = [name for name in wanted.column_names if not _same_column(self._table, wanted, name)]
            self._say(f"its columns {differing} are not those of the plan and the receipts")

    def _say(self, problem: str) -> None:
        self.findings.append(Finding(where=chips.NAME, problem=problem, remedy=REBUILD))


_OUTCOME = ["key", "status", "reason", "valid_fraction", "cloud_fraction"]


def _row(outcome: Outcome) -> tuple[Any, ...]:
    cloud = outcome.cloud_fraction
    status = "rejected" if outcome.reason else "accepted"
    rounded = None if cloud is None else float(np.float32(cloud))
    return outcome.key, status, outcome.reason, float(np.float32(outcome.valid_fraction)), rounded


def _same_column(a: pa.Table, b: pa.Table, name: str) -> bool:
    return name in a.column_names and bool(a[name].equals(b[name]))
