"""Samples → tar shards of one unit; receipts of all units → the finished data set.

In: what `assemble` made. Out: `shards/SPLIT/UNIT-NNNN.tar` and a receipt; at the end index, statistics, chip table and
manifest. Bytes depend on the plan and the pixels alone: not on workers, order, kills or retries.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from ingest import chips, croissant, receipt
from ingest.assemble import Made
from ingest.measure import Tally
from ingest.plan import SHARD_BYTES, IngestPlan, Unit
from ingest.receipt import Outcome, Receipt
from ingest.request import Request
from pipeline import index, manifest, stats
from pipeline.bands import S1_NAMES
from pipeline.codec import Codec, encode, specs
from pipeline.errors import UsageError
from pipeline.index import INDEX_NAME, IndexRow, MemberRef
from pipeline.manifest import FORMAT_VERSION, Manifest, ShardEntry, Stats
from pipeline.shard import pack
from pipeline.store import Store

PACKAGE = "sentinel-pretrain"


def write_unit(store: Store, unit: Unit, made: Sequence[Made], *, request: Request, fingerprint: str) -> Receipt:
    """Write the unit's shards and return its receipt, not yet published."""
    entries: list[ShardEntry] = []
    rows: list[IndexRow] = []
    for split in ("train", "val"):
        accepted = [item for item in made if item.sample is not None and item.task.split == split]
        for number, batch in enumerate(_batches(accepted, request.codec)):
            name = f"shards/{split}/{unit.unit_id}-{number:04d}.tar"
            data, places = pack([(item.task.key, members) for item, members in batch])
            store.publish(name, data)
            entries.append(
                ShardEntry(path=name, split=split, samples=len(batch), bytes=len(data), sha256=manifest.sha256(data))
            )
            rows += [_row(item, name, place) for (item, _), place in zip(batch, places, strict=True)]
    first = next((item.sample for item in made if item.sample is not None), None)
    tally = Tally(s2_bands=request.s2_bands)
    for item in made:
        if item.sample is not None and item.task.split == "train":
            tally.add(item.sample)
    return Receipt(
        unit_id=unit.unit_id,
        plan_fingerprint=fingerprint,
        shards=tuple(entries),
        rows=tuple(rows),
        outcomes=tuple(_outcome(item) for item in made),
        members=() if first is None else specs(first),
        s2=tally.s2,
        s1=tally.s1,
    )


def finish(store: Store, plan: IngestPlan) -> Manifest:
    """Publish index, statistics, chip table and, last, the manifest of a plan whose units are all done.

    Raises:
        UsageError: no chip was accepted, or a unit is of another plan.
    """
    receipts = [receipt.load(store, unit.unit_id) for unit in plan.units]
    fingerprint = plan.fingerprint
    strange = [done.unit_id for done in receipts if done.plan_fingerprint != fingerprint]
    if strange:
        raise UsageError(f"{store.url} holds units of another plan: {strange[:5]}. Give another --out.")
    receipt.refuse_empty(store, receipts)
    rows = sorted((row for done in receipts for row in done.rows), key=lambda row: row.shard)
    shards = sorted((entry for done in receipts for entry in done.shards), key=lambda entry: entry.path)
    outcomes = [outcome for done in receipts for outcome in done.outcomes]
    data = index.to_parquet(rows)
    built = Manifest(
        format_version=FORMAT_VERSION,
        kind=plan.request.kind,
        codec=plan.request.codec,
        members=next((done.members for done in receipts if done.members), ()),
        s2_bands=plan.request.s2_bands,
        s1_bands=S1_NAMES if plan.request.s1 else (),
        chip_px=plan.request.chip_px,
        shards=tuple(shards),
        counts=count(outcomes),
        plan_fingerprint=fingerprint,
        index_sha256=manifest.sha256(data),
        created_by=f"{PACKAGE} {version(PACKAGE)}",
    )
    table = chips.to_geoparquet(plan, outcomes)
    store.publish(chips.NAME, table)
    store.publish(croissant.NAME, croissant.dumps(built, {INDEX_NAME: data, chips.NAME: table}))
    merged = Stats(
        s2=stats.merge([done.s2 for done in receipts if done.s2]),
        s1=stats.merge([done.s1 for done in receipts if done.s1]),
    )
    manifest.publish(store, built, data, stats=merged)
    for folder in ("", receipt.FOLDER, "shards/train", "shards/val"):
        store.sweep(folder)
    return built


def count(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """Chips by outcome: `accepted`, or the reason of rejection."""
    return dict(sorted(Counter(outcome.reason or "accepted" for outcome in outcomes).items()))


def _batches(made: Sequence[Made], codec: Codec) -> Iterator[list[tuple[Made, dict[str, bytes]]]]:
    """Encoded samples, cut where a shard is full."""
    batch: list[tuple[Made, dict[str, bytes]]] = []
    size = 0
    for item in made:
        if item.sample is None:
            continue
        members = encode(item.sample, codec)
        batch.append((item, members))
        size += sum(len(data) for data in members.values())
        if size >= SHARD_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _row(item: Made, shard: str, members: Mapping[str, MemberRef]) -> IndexRow:
    if item.sample is None:
        raise AssertionError  # a rejected chip is in no shard
    meta = item.sample.meta
    lon, lat = item.task.cell.center_lonlat
    return IndexRow(
        shard=shard,
        key=item.task.key,
        split=item.task.split,
        group=item.task.group,
        lon=lon,
        lat=lat,
        time=meta.acquired[0],
        gap_hours=meta.gap_hours,
        cloud=item.quality.cloud_fraction,
        shift=None if meta.shift_px is None else meta.shift_px[:2],
        members=members,
    )


def _outcome(item: Made) -> Outcome:
    return Outcome(
        key=item.task.key,
        reason=item.quality.reason,
        valid_fraction=item.quality.valid_fraction,
        cloud_fraction=item.quality.cloud_fraction,
    )
