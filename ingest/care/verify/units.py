"""One unit: receipt, shards, samples and rows of the cube against each other. Units are checked beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ingest import cube, receipt
from ingest.care.samples import Row
from ingest.care.verify.finding import Finding, make_again
from ingest.care.verify.known import Checked, Known, alike
from ingest.care.verify.rows import check_rows, row_of
from ingest.care.verify.tars import check_shard
from ingest.measure import Tally
from ingest.receipt import Receipt
from pipeline import index
from pipeline.codec import decode
from pipeline.errors import ContractError, SourceError
from pipeline.manifest import ShardEntry
from pipeline.sample import arrays, validate


def check_unit(unit_id: str, entries: Sequence[ShardEntry], known: Known) -> Checked:
    """Check the unit whose shards, as the manifest has them, are `entries`."""
    checked = Checked(unit_id=unit_id, tally=Tally(s2_bands=known.manifest.s2_bands))
    done = _receipt(checked, entries, known)
    for number, entry in enumerate(entries):
        rows = _rows(entry.path, known)
        look = _Look(checked=checked, known=known, every=known.deep, number=number)
        checked.findings += check_shard(
            known.store,
            entry,
            None if rows is None else rows.to_pylist(),
            known=known.manifest,
            unit_id=unit_id,
            look=look,
        )
    if done is not None:
        checked.findings += check_rows(unit_id, done.outcomes, known)
        checked.findings += _statistics(checked, done)
        checked.receipt = replace(done, rows=())
    return checked


def _receipt(checked: Checked, entries: Sequence[ShardEntry], known: Known) -> Receipt | None:
    unit_id, where = checked.unit_id, f"{receipt.FOLDER}/{checked.unit_id}.json"
    try:
        done = receipt.load(known.store, unit_id)
    except SourceError:
        checked.findings.append(Finding(where=where, problem="it is not there", remedy=make_again(unit_id)))
        return None
    except ContractError as error:
        checked.findings.append(Finding(where=where, problem=str(error), remedy=make_again(unit_id)))
        return None
    problems = [] if done.unit_id == unit_id else [f"it is the receipt of {done.unit_id}"]
    if done.plan_fingerprint != known.manifest.plan_fingerprint:
        problems.append(f"it is of plan {done.plan_fingerprint[:12]}, not {known.manifest.plan_fingerprint[:12]}")
    if sorted(done.shards, key=lambda entry: entry.path) != sorted(entries, key=lambda entry: entry.path):
        problems.append("its shards are not those of the manifest")
    if done.members and done.members != known.manifest.members:
        problems.append("its members are not those of the manifest")
    if not _same_rows(done, entries, known):
        problems.append("its samples are not those of the index")
    unit = known.planned.get(unit_id)
    if unit is not None and [task.key for task in unit.tasks] != [outcome.key for outcome in done.outcomes]:
        problems.append("its chips are not those of the plan")
    checked.findings += [Finding(where=where, problem=text, remedy=make_again(unit_id)) for text in problems]
    return done


def _statistics(checked: Checked, done: Receipt) -> Iterator[Finding]:
    """What the receipt says of its pixels, where all of them were measured."""
    train = sum(entry.samples for entry in done.shards if entry.split == "train")
    if train and checked.tally.samples == train:
        for name, ours, theirs in (("s2", checked.tally.s2, done.s2), ("s1", checked.tally.s1, done.s1)):
            if not alike(ours, theirs):
                problem = f"its statistics of {name} are not what its training samples give"
                where = f"{receipt.FOLDER}/{done.unit_id}.json"
                yield Finding(where=where, problem=problem, remedy=make_again(done.unit_id))


def _same_rows(done: Receipt, entries: Sequence[ShardEntry], known: Known) -> bool:
    """Whether receipt and index say the same of every sample, compared as Parquet stores it."""
    if known.index is None:
        return True
    parts = [known.index.slice(start, stop - start) for start, stop in _spans(entries, known)]
    if not done.rows or not parts:
        return not done.rows and not parts
    said = index.from_parquet(index.to_parquet(done.rows), where="receipt").sort_by("shard")
    listed = pa.concat_tables(parts).sort_by("shard")
    return bool(said.equals(listed))


def _spans(entries: Sequence[ShardEntry], known: Known) -> list[tuple[int, int]]:
    return [known.spans[entry.path] for entry in entries if entry.path in known.spans]


def _rows(shard: str, known: Known) -> pa.Table | None:
    if known.index is None:
        return None
    start, stop = known.spans.get(shard, (0, 0))
    return known.index.slice(start, stop - start)


@dataclass(slots=True, kw_only=True)
class _Look:
    """Decodes samples that are shown to it: all, or the first of each shard."""

    checked: Checked
    known: Known
    every: bool
    number: int
    """Of the shard within the unit."""
    seen: int = 0

    def __call__(self, row: Row, members: Mapping[str, bytes]) -> Iterator[Finding]:
        self.seen += 1
        if self.seen > 1 and not self.every:
            return
        known, where = self.known, f"{row['shard']} {row['key']}"
        try:
            sample = decode(row["key"], members, kind=known.manifest.kind, specs=known.manifest.members)
            validate(sample)
        except ContractError as error:
            yield Finding(where=where, problem=str(error), remedy=make_again(self.checked.unit_id))
            return
        self.checked.decoded += 1
        if not self.every:
            return
        if row["split"] == "train":
            self.checked.tally.add(sample)
        stored = known.cube_rows.get(row["key"])
        if known.cube is not None and stored is not None:
            for name, chip in row_of(known, stored).items():
                if chip is None or not np.array_equal(chip, arrays(sample)[name], equal_nan=name == "s1"):
                    what = "cannot be read" if chip is None else "is not that of the shard"
                    yield Finding(
                        where=f"{cube.CUBE_NAME}/{name} row {stored}",
                        problem=f"{name} of {row['key']} {what}",
                        remedy=make_again(self.checked.unit_id),
                    )
