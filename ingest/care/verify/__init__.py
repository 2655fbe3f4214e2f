"""Is a finished data set what its manifest says? Every object against every other, streamed and in parallel.

Shards are read whole: size, SHA-256, and each member's place and checksum in the index. Receipts, index, manifest,
statistics and the table of chips must say the same. One sample of each shard is decoded; `deep` decodes all of them,
compares each with its row of the cube, and measures the statistics again.

Not covered, because nothing repeats it: `created_by` in the manifest, the cube's titles, and the hrefs in the plan.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ingest import cube
from ingest.care.verify import whole
from ingest.care.verify.chip_table import ChipTable
from ingest.care.verify.finding import COPY, Finding
from ingest.care.verify.known import Checked, Known
from ingest.care.verify.rows import missing_cube_shards
from ingest.care.verify.units import check_unit
from ingest.plan import IngestPlan
from ingest.receipt import Outcome, Receipt
from ingest.threads import in_order
from pipeline import manifest
from pipeline.errors import ContractError, UsageError, VersionMismatch
from pipeline.manifest import MANIFEST_NAME, Manifest, ShardEntry
from pipeline.store import Store

FOREIGN_NAME = "foreign.json"
"""Stands in data sets that `train/index.py` made of other people's tars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out about a data set."""

    findings: tuple[Finding, ...]
    """What is wrong; empty where nothing is."""
    units: int
    """Units that were checked."""
    shards: int
    """Shards that were read whole."""
    samples: int
    """Samples in them."""
    decoded: int
    """Samples that were decoded."""
    has_plan: bool
    """Whether the plan was there to compare with."""


def verify(
    store: Store, *, deep: bool = False, threads: int = 4, on_unit: Callable[[int, int], None] | None = None
) -> Verdict:
    """Check the data set in `store`.

    Args:
        store: where it lies.
        deep: decode every sample, compare it with the cube, and measure the statistics again.
        threads: units that are checked at a time; each holds a block of a shard and a few samples.
        on_unit: told how many units are checked, and of how many.

    Raises:
        UsageError: there is no finished data set.
        VersionMismatch: it is of another format version.
        SourceError: the store kept failing.
    """
    if store.exists(FOREIGN_NAME):
        raise UsageError(f"{store.url} was indexed by train/index.py; verify knows what ingest wrote. Index it again.")
    try:
        data = manifest.load(store)
    except VersionMismatch:
        raise
    except ContractError as error:
        wrong = Finding(where=MANIFEST_NAME, problem=str(error), remedy=f"{COPY}, or remove it and build again")
        return Verdict(findings=(wrong,), units=0, shards=0, samples=0, decoded=0, has_plan=False)
    return _verify(store, data, deep=deep, threads=threads, on_unit=on_unit or (lambda _done, _of: None))


def _verify(store: Store, data: Manifest, *, deep: bool, threads: int, on_unit: Callable[[int, int], None]) -> Verdict:
    index, findings = whole.read_index(store, data)
    plan, more = whole.read_plan(store, data)
    group, cube_rows, strange = whole.open_cube(store, data)
    findings += more + strange
    if plan is not None and group is not None:
        findings += whole.check_coordinates(group, plan)
    if not findings:
        findings += whole.check_croissant(store, data)
    units = whole.unit_ids(data, plan, store)
    findings += whole.strangers(store, data, units)
    known = Known(
        store=store,
        manifest=data,
        index=index,
        spans={} if index is None else whole.spans_of(index),
        planned={} if plan is None else {unit.unit_id: unit for unit in plan.units},
        cube=group,
        cube_rows=cube_rows,
        deep=deep,
    )
    ours, decoded = _units(known, units, plan, threads=threads, on_unit=on_unit)
    return Verdict(
        findings=(*findings, *ours),
        units=len(units),
        shards=len(data.shards),
        samples=sum(entry.samples for entry in data.shards),
        decoded=decoded,
        has_plan=plan is not None,
    )


def _units(
    known: Known, units: list[str], plan: IngestPlan | None, *, threads: int, on_unit: Callable[[int, int], None]
) -> tuple[list[Finding], int]:
    """Findings of all units and of their sum, and how many samples were decoded."""
    findings: list[Finding] = []
    entries, table = whole.by_unit(known.manifest), ChipTable(known.store)
    present = {} if known.cube is None else _present(known)
    receipts: list[Receipt] = []
    decoded = 0
    work = partial(_one, known=known, entries=entries)
    for done, checked in enumerate(in_order(work, units, threads=threads), 1):
        findings += checked.findings
        findings += missing_cube_shards(checked, known, present)
        decoded += checked.decoded
        if checked.receipt is None:
            table.skip(known.planned.get(checked.unit_id))
        else:
            table.compare(checked.unit_id, checked.receipt.outcomes)
            receipts.append(checked.receipt)
        on_unit(done, len(units))
    if len(receipts) == len(units):  # otherwise their sum says nothing
        counted = Counter(one.reason or "accepted" for done in receipts for one in done.outcomes)
        findings += whole.check_counts(known.manifest, counted)
        findings += whole.check_stats(known.store, receipts)
        table.end(plan, _outcomes(receipts))
    return [*findings, *table.findings], decoded


def _outcomes(receipts: Iterable[Receipt]) -> list[tuple[Outcome, ...]]:
    return [done.outcomes for done in receipts]


def _present(known: Known) -> dict[str, set[int]]:
    """Zarr shards that are there; a label that is 0 everywhere is not written at all."""
    names = [spec.name for spec in known.manifest.members if spec.name != "label"]
    return {name: cube.shard_numbers(known.store, name) for name in names}


def _one(unit_id: str, *, known: Known, entries: Mapping[str, Sequence[ShardEntry]]) -> Checked:
    return check_unit(unit_id, entries.get(unit_id, []), known)
