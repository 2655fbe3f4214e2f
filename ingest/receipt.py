"""What a finished unit leaves behind: its receipt, published last. The manifest is the union of the receipts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.pixels.quality import UNREADABLE
from pipeline import record
from pipeline.codec import MemberSpec
from pipeline.errors import ContractError, SourceError, UsageError
from pipeline.index import IndexRow
from pipeline.manifest import ShardEntry
from pipeline.stats import BandStats
from pipeline.store import Store

FOLDER = "receipts"
_FEW = "too few dates: "
_MEND = "See that the disk is mounted and the catalog's addresses are right, and run the same command again"
_CHANGE = "Give another --out with higher --max-cloud or --max-nodata, or other dates or places"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one planned chip."""

    key: str
    """Sample key."""
    reason: str
    """Empty where it was accepted."""
    valid_fraction: float
    """Share of pixels that both sensors have."""
    cloud_fraction: float | None
    """Share of cloudy pixels; None where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One finished unit."""

    unit_id: str
    """Of the plan."""
    plan_fingerprint: str
    """Which plan."""
    shards: tuple[ShardEntry, ...]
    """Tars that it wrote."""
    rows: tuple[IndexRow, ...]
    """Samples in them, in shard order."""
    outcomes: tuple[Outcome, ...]
    """Every planned chip, in row order."""
    members: tuple[MemberSpec, ...]
    """Array members of its samples; empty without samples."""
    s2: BandStats | None
    """Of its training samples."""
    s1: BandStats | None
    """Of its training samples."""


def publish(store: Store, receipt: Receipt) -> None:
    """Say that the unit is done."""
    store.publish(f"{FOLDER}/{receipt.unit_id}.json", record.dumps(receipt))


def done(store: Store) -> set[str]:
    """Ids of the units that are done."""
    return {name.removesuffix(".json") for name in store.names(FOLDER) if name.endswith(".json")}


def load(store: Store, unit_id: str) -> Receipt:
    """The receipt of a unit that is done.

    Raises:
        ContractError: it is damaged.
        SourceError: it is gone, for another command wants the unit made again.
    """
    name = f"{FOLDER}/{unit_id}.json"
    try:
        return record.loads(Receipt, store.read(name), where=name)
    except FileNotFoundError as error:
        raise SourceError(f"{store.url}/{name} is gone: run the same command again.") from error
    except ContractError as error:
        raise ContractError(f"{error} Remove it to make the unit again.") from error


def refuse_empty(store: Store, receipts: Sequence[Receipt]) -> None:
    """Let no data set be finished that has no sample, and have units made again whose files may come back.

    One file that is gone or damaged among others stays so: its chips are rejected for good. Where nothing at all could
    be used the disk may not be mounted, or the catalog may point elsewhere.

    Raises:
        UsageError: no chip was accepted.
    """
    reasons = [outcome.reason for done in receipts for outcome in done.outcomes]
    if not all(reasons):
        return
    again = [done.unit_id for done in receipts if any(UNREADABLE in outcome.reason for outcome in done.outcomes)]
    for unit_id in again:
        store.remove(f"{FOLDER}/{unit_id}.json")
    todo = f"{_MEND}: {len(again)} units are tried anew." if again else f"{_CHANGE}."
    raise UsageError(f"none of the {len(reasons)} chips was accepted:\n{_counts(reasons)}\n{todo}")


def _counts(reasons: Sequence[str]) -> str:
    """A line for each kind of reason, the most frequent first, with one that says more."""
    kinds = Counter(map(_kind, reasons))
    lines = []
    for kind, count in kinds.most_common():
        example = next(reason for reason in reasons if _kind(reason) == kind)
        more = example[len(kind) :].removeprefix(": ")
        lines.append(f"  {count} {kind}{f' (first: {more})' if more else ''}")
    return "\n".join(lines)


def _kind(reason: str) -> str:
    """What reasons of different scenes have in common."""
    head, _, _ = reason.removeprefix(_FEW).partition(": ")
    return f"{_FEW}{head}" if reason.startswith(_FEW) else head
