"""What a finished unit leaves behind: its receipt, published last. The manifest is the union of the receipts."""

from dataclasses import dataclass

from pipeline import record
from pipeline.codec import MemberSpec
from pipeline.errors import ContractError
from pipeline.index import IndexRow
from pipeline.manifest import ShardEntry
from pipeline.stats import BandStats
from pipeline.store import Store

FOLDER = "receipts"


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
    """
    name = f"{FOLDER}/{unit_id}.json"
    try:
        return record.loads(Receipt, store.read(name), where=name)
    except ContractError as error:
        raise ContractError(f"{error} Remove it to make the unit again.") from error
