"""The stage as one straight function: request → plan → units → manifest. Read this first.

Whatever happens in between, running the same request again ends in the same data set: a finished unit has a receipt
and is not done again, an unfinished one is done anew and writes the same bytes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from ingest import cluster, cube, planfile, probe, receipt, shards, units
from ingest.assemble import Made, assemble
from ingest.assemble_stack import assemble_stacks
from ingest.catalogs import search_cache
from ingest.pixels.faults import HOLDUP, Held
from ingest.pixels.heap import keep_freed_memory
from ingest.plan import IngestPlan, Unit
from ingest.planner import make_plan
from ingest.request import Request
from pipeline import manifest
from pipeline.errors import ContractError, UsageError, redact
from pipeline.manifest import MANIFEST_NAME, Manifest
from pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitDone:
    """What the driver hears of a finished unit."""

    unit_id: str
    """Of the plan."""
    counts: Counter[str]
    """Chips by outcome."""
    bytes: int
    """Written to shards."""
    held: Held = field(default_factory=Held)
    """What failing servers cost in the worker since its last unit."""


class Progress(Protocol):
    """Somebody who is told what a build does."""

    def planned(self, plan: IngestPlan, finished: int) -> None:
        """The plan is made; so many of its units were done before."""

    def unit_done(self, done: UnitDone) -> None:
        """A unit was finished."""

    def unit_failed(self, unit_id: str, error: Exception) -> None:
        """A unit failed; the others go on."""


def build(
    request: Request,
    out: str,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Manifest:
    """Make the data set of `request` in `out`, or finish it, or find it finished.

    Args:
        request: what to make.
        out: any fsspec URL.
        workers: local processes; 0 works in this one.
        scheduler: address of a dask scheduler to use instead.
        progress: told what happens.
        refresh: plan anew, from what the catalog says now; for a data set that is not begun.

    Raises:
        UsageError: the request has no chip, no chip was accepted, `out` holds another data set, or its store does not
            do what a data set needs.
        SourceError: a catalog or an asset failed; what was finished is kept.
    """
    if scheduler is not None:
        cluster.check_address(scheduler)
    store = Store.at(out)
    if not store.is_local and not receipt.done(store) and not store.exists(MANIFEST_NAME):
        probe.require(store)
    plan = open_plan(store, request, refresh=refresh)
    if store.exists(MANIFEST_NAME):
        built = manifest.load(store)
        _check_plan(store, built.plan_fingerprint, plan)
        return built
    finished = receipt.done(store)
    if finished:
        _check_plan(store, receipt.load(store, min(finished)).plan_fingerprint, plan)
    if progress:
        progress.planned(plan, len(finished))
    _lay_out(store, plan)
    work = partial(
        run_unit,
        store=store,
        request=request,
        with_label=plan.has_label,
        fingerprint=plan.fingerprint,
    )
    todo = [unit for unit in plan.units if unit.unit_id not in finished]
    units.run(
        todo,
        work,
        workers=workers,
        scheduler=scheduler,
        task_bytes=max((unit.memory_bytes(request) for unit in todo), default=0),
        in_process=store.is_in_process,
        on_done=progress.unit_done if progress else lambda _: None,
        on_failed=progress.unit_failed if progress else lambda _unit_id, _error: None,
    )
    return shards.finish(store, plan)


def open_plan(store: Store, request: Request, *, refresh: bool = False) -> IngestPlan:
    """The plan that `store` holds, or a new one, kept there: the catalog is asked once, or anew to `refresh`.

    Raises:
        UsageError: `store` holds the plan of another request, or a begun data set to `refresh`, or the request has no
            chip.
    """
    if refresh:
        _forget(store)
    public = replace(request, catalog=redact(request.catalog))
    if store.exists(planfile.PLAN_NAME):
        try:
            plan = planfile.from_parquet(store.read(planfile.PLAN_NAME))
        except IsADirectoryError as error:
            raise UsageError(f"{store.url}/{planfile.PLAN_NAME} is a folder. Give another --out.") from error
        if plan.request != public:
            raise UsageError(
                f"{store.url} holds the data set of another request ({_difference(plan.request, public)}). "
                "Give another --out, or the same request to go on with it."
            )
        return plan
    plan = replace(make_plan(request, kept_in=store), request=public)
    if not plan.units:
        raise UsageError(f"no chip can be made: {explain(plan)}")
    store.publish(planfile.PLAN_NAME, planfile.to_parquet(plan))
    # Another driver may have published its own in between: the last one stands for all.
    return planfile.from_parquet(store.read(planfile.PLAN_NAME))


def _forget(store: Store) -> None:
    """Remove plan and catalog answers, unless chips were made from them."""
    if store.exists(MANIFEST_NAME) or receipt.done(store):
        raise UsageError(f"{store.url} is begun: --refresh would change its plan. Give another --out.")
    for name in (planfile.PLAN_NAME, search_cache.FOLDER):
        store.remove(name)


def explain(plan: IngestPlan) -> str:
    """Why cells and scenes are left out, the most frequent reasons first, in one line."""
    reasons = Counter(f"cells: {item.reason}" for item in plan.left_out)
    reasons += Counter(f"scenes: {reason}" for reason in plan.scenes_left_out.values())
    return "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(6)) or "nothing was left out"


def run_unit(unit: Unit, *, store: Store, request: Request, with_label: bool, fingerprint: str) -> UnitDone:
    """One unit's pixels → its rows of the cube, its shards, its receipt: a pure function of the plan and the pixels."""
    keep_freed_memory()
    make = assemble if request.kind == "pair" else assemble_stacks
    made = list(make(unit, request, with_label=with_label))
    return publish_unit(store, unit, made, request=request, fingerprint=fingerprint)


def publish_unit(store: Store, unit: Unit, made: Sequence[Made], *, request: Request, fingerprint: str) -> UnitDone:
    """A unit's chips → its rows of the cube, its shards, its receipt."""
    with store.telling(cube.CUBE_NAME):
        cube.write_unit(store, unit, made)
    done = shards.write_unit(store, unit, made, request=request, fingerprint=fingerprint)
    receipt.publish(store, done)
    return UnitDone(
        unit_id=unit.unit_id,
        counts=Counter(shards.count(done.outcomes)),
        bytes=sum(entry.bytes for entry in done.shards),
        held=HOLDUP.take(),
    )


def _lay_out(store: Store, plan: IngestPlan) -> None:
    """Make the empty cube, or find it made."""
    try:
        with store.telling(cube.CUBE_NAME):
            cube.create(store, plan)
    except ValueError as error:
        raise ContractError(
            f"{store.url.rstrip('/')}/{cube.CUBE_NAME} is damaged, or not of this plan: {error}. "
            "Give another --out, or empty this one."
        ) from error


def _check_plan(store: Store, fingerprint: str, plan: IngestPlan) -> None:
    if fingerprint != plan.fingerprint:
        raise UsageError(
            f"{store.url} holds units of another plan ({fingerprint[:12]} in place of {plan.fingerprint[:12]}): "
            "its plan was removed, or the catalog has changed since. Give another --out."
        )


def _difference(kept: Request, asked: Request) -> str:
    """Which fields differ; addresses may be secret, so no values."""
    names = [name for name in Request.__slots__ if getattr(kept, name) != getattr(asked, name)]
    return ", ".join(names)
