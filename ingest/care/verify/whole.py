"""What concerns the data set as a whole: index, plan, strangers, counts, statistics, and the table of chips."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ingest import chips, croissant, cube, planfile, receipt
from ingest.care.verify.finding import COPY, REBUILD, Finding
from ingest.plan import IngestPlan
from ingest.receipt import Receipt
from pipeline import manifest, stats
from pipeline.errors import ContractError
from pipeline.index import INDEX_NAME
from pipeline.manifest import MANIFEST_NAME, STATS_NAME, Manifest, Stats
from pipeline.store import Store


def read_index(store: Store, known: Manifest) -> tuple[pa.Table | None, list[Finding]]:
    """The index; None where it is damaged."""
    try:
        return manifest.load_index(store, known), []
    except ContractError as error:
        return None, [Finding(where=INDEX_NAME, problem=str(error), remedy=REBUILD)]


def spans_of(table: pa.Table) -> dict[str, tuple[int, int]]:
    """First row and the one behind the last of every shard."""
    names = table["shard"].to_numpy(zero_copy_only=False)
    if not len(names):
        return {}
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True]).tolist()
    return {str(names[start]): (start, stop) for start, stop in pairwise(edges)}


def read_plan(store: Store, known: Manifest) -> tuple[IngestPlan | None, list[Finding]]:
    """The plan; None where it was left out, or is damaged."""
    if not store.exists(planfile.PLAN_NAME):
        return None, []
    try:
        plan = planfile.from_parquet(store.read(planfile.PLAN_NAME))
    except ContractError as error:
        return None, [Finding(where=planfile.PLAN_NAME, problem=str(error), remedy=COPY)]
    request, problems = plan.request, []
    if plan.fingerprint != known.plan_fingerprint:
        problems.append(f"it is plan {plan.fingerprint[:12]}, the data set was made of {known.plan_fingerprint[:12]}")
    for name, wanted in (
        ("kind", request.kind),
        ("codec", request.codec),
        ("chip_px", request.chip_px),
        ("s2_bands", request.s2_bands),
    ):
        if getattr(known, name) != wanted:
            problems.append(f"{MANIFEST_NAME} says {name} {getattr(known, name)!r}, the plan {wanted!r}")
    return plan, [Finding(where=planfile.PLAN_NAME, problem=text, remedy=COPY) for text in problems]


def open_cube(store: Store, known: Manifest) -> tuple[Any, dict[str, int], list[Finding]]:
    """The cube and its rows by key; None where it cannot be read."""
    try:
        group = cube.open_rows(store)
        keys = cube.read_column(group, "key").tolist()
        shapes = cube.chip_shapes(group)
    except Exception as error:  # noqa: BLE001  damaged metadata makes zarr raise nearly anything
        problem = f"it cannot be opened ({type(error).__name__})"
        return None, {}, [Finding(where=cube.CUBE_NAME, problem=problem, remedy=COPY)]
    wanted = {spec.name: spec.shape for spec in known.members}
    problem = f"its arrays are {shapes}, the samples' {wanted}"
    wrong = [Finding(where=cube.CUBE_NAME, problem=problem, remedy=COPY)] if wanted and shapes != wanted else []
    return group, {key: row for row, key in enumerate(keys) if key}, wrong


def check_coordinates(group: Any, plan: IngestPlan) -> Iterator[Finding]:
    """The cube's coordinates against the plan."""
    for name, (values, _) in cube.coordinates(plan).items():
        try:
            same = np.array_equal(cube.read_column(group, name), values, equal_nan=values.dtype.kind == "f")
        except Exception:  # noqa: BLE001  as above
            same = False
        if not same:
            yield Finding(where=f"{cube.CUBE_NAME}/{name}", problem="it is not that of the plan", remedy=COPY)


def strangers(store: Store, known: Manifest, units: Sequence[str]) -> Iterator[Finding]:
    """Shards and receipts that nothing knows of."""
    shards, receipts = {entry.path for entry in known.shards}, {f"{unit_id}.json" for unit_id in units}
    for folder in ("shards/train", "shards/val"):
        for name in store.names(folder):
            if f"{folder}/{name}" not in shards:
                yield Finding(where=f"{folder}/{name}", problem="the manifest does not know it", remedy="Remove it")
    for name in store.names(receipt.FOLDER):
        if name not in receipts:
            where = f"{receipt.FOLDER}/{name}"
            yield Finding(where=where, problem="it is of no unit of this data set", remedy="Remove it")


def check_counts(known: Manifest, counted: Counter[str]) -> Iterator[Finding]:
    """Chips by outcome, and samples in shards, as receipts have them."""
    if dict(known.counts) != dict(counted):
        problem = f"it counts {dict(known.counts)}, the receipts {dict(sorted(counted.items()))}"
        yield Finding(where=MANIFEST_NAME, problem=problem, remedy=REBUILD)
    samples = sum(entry.samples for entry in known.shards)
    if samples != counted["accepted"]:
        problem = f"its shards hold {samples} samples, the receipts accept {counted['accepted']} chips"
        yield Finding(where=MANIFEST_NAME, problem=problem, remedy=REBUILD)


def check_stats(store: Store, receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """The statistics against the sum of the receipts, which are compared with the pixels."""
    try:
        said = manifest.load_stats(store)
    except ContractError as error:
        yield Finding(where=STATS_NAME, problem=str(error), remedy=REBUILD)
        return
    summed = Stats(
        s2=stats.merge([done.s2 for done in receipts if done.s2]),
        s1=stats.merge([done.s1 for done in receipts if done.s1]),
    )
    if said != summed:
        problem = "it is not the sum of the receipts; `--deep` says whether one of them is wrong"
        yield Finding(where=STATS_NAME, problem=problem, remedy=REBUILD)


def check_croissant(store: Store, known: Manifest) -> Iterator[Finding]:
    """The description against what it describes; files that are missing are told elsewhere."""
    try:
        files = {name: store.read(name) for name in (INDEX_NAME, chips.NAME)}
        same = store.read(croissant.NAME) == croissant.dumps(known, files)
    except FileNotFoundError as error:
        same = croissant.NAME not in str(error)
    except (OSError, pa.ArrowException):
        return
    if not same:
        yield Finding(where=croissant.NAME, problem="it does not describe this data set", remedy=REBUILD)


def unit_ids(known: Manifest, plan: IngestPlan | None, store: Store) -> list[str]:
    """The units of the data set: the plan's, or those that receipts and shards are of."""
    if plan is not None:
        return [unit.unit_id for unit in plan.units]
    return sorted(receipt.done(store) | {*map(unit_of, (entry.path for entry in known.shards))})


def unit_of(shard: str) -> str:
    """Who wrote a shard.

    >>> unit_of("shards/train/u00012-0003.tar")
    'u00012'
    """
    return shard.rpartition("/")[2].rpartition("-")[0]


def by_unit(known: Manifest) -> Mapping[str, list[manifest.ShardEntry]]:
    """The shards of every unit, as the manifest has them."""
    found: dict[str, list[manifest.ShardEntry]] = {}
    for entry in known.shards:
        found.setdefault(unit_of(entry.path), []).append(entry)
    return found
