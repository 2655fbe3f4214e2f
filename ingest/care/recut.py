"""A finished data set → another of smaller chips or another codec, from its cube and json: nothing is downloaded.

The rule: a chip of N pixels gives (N // n) x (N // n) pieces of n pixels that touch each other and overlap nowhere.
What is left over is dropped, half of it at the upper and the left edge, rounded down to a multiple of 6 pixels, so that
pieces of a chip on the 60 m lattice lie on it, too. Every piece is judged anew; scenes, split and group are its
parent's. With another codec alone the result is, byte for byte, what build-shards would have made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest import cube, planfile, receipt, shards
from ingest.areas.grid import PIXEL_M, Cell, check_chip_px, corner_cell
from ingest.assemble import Made
from ingest.build import Progress, UnitDone, publish_unit
from ingest.care.samples import DataSet, open_set
from ingest.pixels.coregister import estimate_shift
from ingest.pixels.quality import QualityReport, cloud_share, judge
from ingest.plan import IngestPlan, Task, Unit
from ingest.receipt import Outcome
from ingest.request import Request
from ingest.threads import in_order
from pipeline import manifest, record
from pipeline.codec import Codec
from pipeline.errors import UsageError
from pipeline.manifest import MANIFEST_NAME, Manifest
from pipeline.sample import PairSample, Sample, SampleMeta, StackSample
from pipeline.store import Store

LATTICE_PX = 6
"""Pixels of 10 m. The grid of 60 m bands."""
DERIVED_NAME = "derived_from.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Where a data set that was cut out of another comes from."""

    url: str
    """Of the other, without secrets."""
    manifest_sha256: str
    """Of its manifest."""
    chip_px: int
    """Pixels. Side of its chips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What pieces are cut out of."""

    data: DataSet
    """The finished data set."""
    plan: IngestPlan
    """Its plan."""
    cube: Any
    """Its cube, opened."""
    places: dict[str, int]
    """Row of the index by key."""


def recut(
    source: str,
    out: str,
    *,
    chip_px: int | None = None,
    codec: Codec | None = None,
    threads: int = 4,
    progress: Progress | None = None,
) -> Manifest:
    """Make the data set in `out` from the one in `source`, or finish it, or find it finished.

    Args:
        source: a finished data set with its plan and its cube.
        out: any fsspec URL.
        chip_px: pixels of 10 m, the side of the new chips; None keeps it.
        codec: of the new shards; None keeps it.
        threads: units at a time.
        progress: told what happens.

    Raises:
        UsageError: `source` is no finished data set, lacks plan or cube, or has smaller chips; `out` is taken.
    """
    parent, store = _open(source), Store.at(out)
    asked = parent.plan.request
    plan = derive(parent.plan, chip_px=asked.chip_px if chip_px is None else chip_px, codec=codec or asked.codec)
    if store.exists(planfile.PLAN_NAME) and planfile.from_parquet(store.read(planfile.PLAN_NAME)) != plan:
        raise UsageError(f"{store.url} holds another data set. Give another --out.")
    if store.exists(MANIFEST_NAME):
        return manifest.load(store)
    store.publish(planfile.PLAN_NAME, planfile.to_parquet(plan))
    store.publish(DERIVED_NAME, record.dumps(_derived(parent)))
    finished = receipt.done(store)
    if progress:
        progress.planned(plan, len(finished))
    with store.telling(cube.CUBE_NAME):
        cube.create(store, plan)
    work = partial(_run_unit, parent=parent, store=store, plan=plan)
    pairs = zip(parent.plan.units, plan.units, strict=True)
    for done in in_order(work, (pair for pair in pairs if pair[1].unit_id not in finished), threads=threads):
        if progress:
            progress.unit_done(done)
    return shards.finish(store, plan)


def derive(plan: IngestPlan, *, chip_px: int, codec: Codec) -> IngestPlan:
    """The plan of the pieces of all chips of `plan`, unit by unit.

    Raises:
        UsageError: the chips are smaller than the pieces.
    """
    check_chip_px(chip_px)
    if chip_px > plan.request.chip_px:
        raise UsageError(f"--chip-px {chip_px}: the chips have {plan.request.chip_px} pixels. Give as many or fewer.")
    units: list[Unit] = []
    row = 0
    for unit in plan.units:
        tasks = tuple(piece for task in unit.tasks for _, _, piece in cut(task, chip_px))
        units.append(replace(unit, first_row=row, tasks=tasks))
        row += units[-1].rows
    return replace(plan, request=replace(plan.request, chip_px=chip_px, codec=codec), units=tuple(units))


def cut(task: Task, chip_px: int) -> Iterator[tuple[int, int, Task]]:
    """First row, first column (pixels of the parent) and task of every piece, row by row; or the task itself."""
    cell = task.cell
    count = cell.size_px // chip_px
    first = (cell.size_px - count * chip_px) // 2 // LATTICE_PX * LATTICE_PX
    if count == 1 and chip_px == cell.size_px:
        yield 0, 0, task
        return
    for row in range(first, first + count * chip_px, chip_px):
        for col in range(first, first + count * chip_px, chip_px):
            piece = corner_cell(cell.epsg, cell.left_m + col * PIXEL_M, cell.top_m - row * PIXEL_M, chip_px)
            yield row, col, replace(task, cell=piece, key=_key(piece, task.key))


def _key(cell: Cell, parent: str) -> str:
    """The piece's own cell, with the time and the scenes of its parent."""
    return "-".join([cell.cell_id, *parent.rsplit("-", 2)[1:]])


def _open(source: str) -> _Source:
    data = open_set(Store.at(source))
    if not data.store.exists(planfile.PLAN_NAME):
        raise UsageError(
            f"{data.store.url} has no {planfile.PLAN_NAME}, which says what its chips are made of. Copy it."
        )
    plan = planfile.from_parquet(data.store.read(planfile.PLAN_NAME))
    if plan.fingerprint != data.manifest.plan_fingerprint:
        raise UsageError(f"{data.store.url} has the plan of another data set. Run `ingest verify` on it.")
    if not data.store.exists(f"{cube.CUBE_NAME}/zarr.json"):
        raise UsageError(f"{data.store.url} has no {cube.CUBE_NAME}, which pieces are cut out of. Copy it.")
    places = {key: i for i, key in enumerate(data.index["key"].to_pylist())}
    return _Source(data=data, plan=plan, cube=cube.open_rows(data.store), places=places)


def _derived(parent: _Source) -> Derived:
    digest = manifest.sha256(parent.data.store.read(MANIFEST_NAME))
    return Derived(url=parent.data.store.url, manifest_sha256=digest, chip_px=parent.plan.request.chip_px)


def _run_unit(units: tuple[Unit, Unit], *, parent: _Source, store: Store, plan: IngestPlan) -> UnitDone:
    """One unit of the parent → the same unit of its pieces."""
    old, new = units
    outcomes = receipt.load(parent.data.store, old.unit_id).outcomes
    made = [
        piece
        for i, (task, outcome) in enumerate(zip(old.tasks, outcomes, strict=True))
        for piece in _pieces(task, outcome, old.first_row + i, parent=parent, request=plan.request)
    ]
    return publish_unit(store, new, made, request=plan.request, fingerprint=plan.fingerprint)


def _pieces(task: Task, outcome: Outcome, row: int, *, parent: _Source, request: Request) -> Iterator[Made]:
    kept = QualityReport(
        valid_fraction=outcome.valid_fraction, cloud_fraction=outcome.cloud_fraction, reason=outcome.reason
    )
    if outcome.reason:
        yield from (Made(task=piece, quality=kept, sample=None) for _, _, piece in cut(task, request.chip_px))
        return
    chips = cube.read_row(parent.cube, row)
    index_row = parent.data.index.slice(parent.places[task.key], 1).to_pylist()[0]
    meta = parent.data.read_meta(index_row)
    for top, left, piece in cut(task, request.chip_px):
        rows, cols = slice(top, top + request.chip_px), slice(left, left + request.chip_px)
        arrays = {name: np.ascontiguousarray(chip[..., rows, cols]) for name, chip in chips.items()}
        if piece is task:
            yield Made(task=task, quality=kept, sample=_sample(task.key, arrays, meta))
            continue
        quality = _judge(arrays["mask"], chips["mask"], meta, request)
        sample = None if quality.reason else _sample(piece.key, arrays, _meta(meta, piece.cell, quality, arrays))
        yield Made(task=piece, quality=quality, sample=sample)


def _sample(key: str, arrays: dict[str, NDArray[Any]], meta: SampleMeta) -> Sample:
    kind = PairSample if arrays["mask"].ndim == 2 else StackSample
    sample: Sample = kind(key=key, meta=meta, **arrays)
    return sample


def _meta(meta: SampleMeta, cell: Cell, quality: QualityReport, arrays: dict[str, NDArray[Any]]) -> SampleMeta:
    is_pair = arrays["mask"].ndim == 2
    return replace(
        meta,
        cell_id=cell.cell_id,
        transform=cell.transform,
        center_lonlat=cell.center_lonlat,
        cloud_fraction=quality.cloud_fraction,
        valid_fraction=quality.valid_fraction,
        shift_px=estimate_shift(arrays["s1"], arrays["s2"]) if is_pair else None,
    )


def _judge(mask: NDArray[np.uint8], whole: NDArray[np.uint8], meta: SampleMeta, request: Request) -> QualityReport:
    """The verdict on a piece: of a stack the first date that is not good enough decides."""
    limits = {"max_nodata": request.max_nodata_percent / 100, "max_cloud": request.max_cloud_percent / 100}
    seen = _clouds_were_seen(whole, meta)
    dates: Sequence[NDArray[np.uint8]] = [mask] if mask.ndim == 2 else list(mask)
    reports = [judge(one, cloud_share(one) if seen else meta.cloud_fraction, **limits) for one in dates]
    clouds = [one.cloud_fraction for one in reports if one.cloud_fraction is not None]
    reason = next((one.reason for one in reports if one.reason), "")
    return QualityReport(
        valid_fraction=float(np.mean([one.valid_fraction for one in reports])),
        cloud_fraction=float(np.mean(clouds)) if clouds else None,
        reason=reason if mask.ndim == 2 or not reason else f"too few dates: {reason}",
    )


def _clouds_were_seen(mask: NDArray[np.uint8], meta: SampleMeta) -> bool:
    """Whether the parent's share of cloud is its mask's: otherwise it is the whole scene's, and the piece's as well."""
    if meta.cloud_fraction is None:
        return False
    shares = [cloud_share(one) for one in ([mask] if mask.ndim == 2 else mask)]
    return bool(np.isclose(meta.cloud_fraction, np.mean(shares)))
