"""A plan as one page of words, `plan.md`: what would be made, what it would cost, and why the rest is left out."""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from ingest.build import open_plan
from ingest.catalogs.profiles import profile_of
from ingest.cost import Assumptions, Cost, estimate
from ingest.plan import IngestPlan, PairTask, Task, scene_ids
from ingest.request import Request
from ingest.scenes.scene import Asset
from pipeline.errors import redact
from pipeline.store import Store

NAME = "plan.md"
_ROWS = 12
"""Of a table; the rest is counted."""


def keep(store: Store, request: Request, given: Assumptions, *, refresh: bool = False) -> IngestPlan:
    """The plan that `store` holds, or a new one, kept there with its page.

    Raises:
        UsageError: `store` holds the plan of another request, or the request has no chip.
    """
    plan = open_plan(store, request, refresh=refresh)
    store.publish(NAME, page(plan, estimate(plan, given), given).encode())
    return plan


def page(plan: IngestPlan, cost: Cost, given: Assumptions) -> str:
    """The page, Markdown."""
    parts = (_asked(plan), _made(plan), _sources(plan), _cost(plan, cost, given), _place(plan), _left_out(plan))
    return "\n\n".join(parts) + "\n"


def _asked(plan: IngestPlan) -> str:
    request = plan.request
    when = request.dates.stac() or "all time"
    what = f"{request.kind}s of {request.chip_px} x {request.chip_px} pixels of 10 m"
    return (
        f"# Plan {plan.fingerprint[:12]}\n\n"
        f"Asked for: {what} on {len(request.areas)} area(s), {when}, from {redact(request.catalog)}; "
        f"grid `{request.grid}`, at most {request.max_cloud_percent:g} % cloud "
        f"and {request.max_nodata_percent:g} % without data."
    )


def _made(plan: IngestPlan) -> str:
    tasks = plan.tasks
    cells = len({task.cell.cell_id for task in tasks})
    sides = Counter(task.split for task in tasks)
    return (
        f"## What would be made\n\n{len(tasks)} chips on {cells} cells: {sides['train']} to train on, {sides['val']} "
        f"for validation ({len({task.group for task in tasks})} blocks of ground). {len(plan.units)} units of work, "
        f"{len({name for task in tasks for name in scene_ids(task)})} scenes. Chips that turn out cloudy or incomplete "
        "are rejected when their pixels are read: the true numbers are smaller."
    )


def _sources(plan: IngestPlan) -> str:
    if plan.request.kind == "pair":
        pairs = [task for task in plan.tasks if isinstance(task, PairTask)]
        counts = Counter((task.s2.scene_id, task.s1.scene_id, f"{task.gap_hours:.1f}") for task in pairs)
        rows = [(*names, n) for names, n in counts.most_common()]
        return "## Pairs\n\n" + _table(("Sentinel-2", "Sentinel-1", "hours between", "chips"), rows)
    lengths = Counter(len(scene_ids(task)) for task in plan.tasks)
    text = f"{plan.request.frames} frames each, taken from the first good ones of their candidates.\n\n"
    return "## Stacks\n\n" + text + _table(("candidates", "stacks"), sorted(lengths.items()))


def _cost(plan: IngestPlan, cost: Cost, given: Assumptions) -> str:
    share = cost.bytes_from_size / cost.bytes_read if cost.bytes_read else 0.0
    codec = "raw" if plan.request.codec == "npy" else f"{given.compressed:g} bytes a raw byte"
    rows = [
        ("read", f"{_size(cost.bytes_read)} in {cost.requests:,} requests, {cost.blocks:,} blocks"),
        (
            "written",
            f"{_size(cost.bytes_shards)} of shards, {_size(cost.bytes_cube)} of cube, {cost.objects:,} objects",
        ),
        ("memory", f"{_size(cost.memory_bytes)} a worker, for the largest unit"),
        ("CPU", f"{_hours(cost.cpu_hours)} of all workers together"),
        ("time", f"{_hours(cost.hours)} with {given.workers} workers at {given.gbit_s:g} Gbit/s"),
        ("money", f"{cost.usd:,.2f} US dollars"),
    ]
    counted = "every chip is counted as accepted"
    if plan.request.kind == "stack":
        counted += ", every candidate as read"
    words = (
        f"These are estimates: {counted}.",
        f"Blocks are those that chips touch, taken as {given.block_px} pixels wide, each read once a unit and band.",
        f"{share:.0%} of the bytes follow from the files' own sizes (`file:size`),",
        f"the others from raw pixels at {given.compressed:g} bytes a raw byte; shards are {codec}.",
        f"A request is answered after {given.first_byte_ms:g} ms, and a worker has one at a time;",
        f"a core decodes {given.decode_mb_s:g} MB in a second",
        f"and takes {given.chip_ms_per_mpx:g} ms for a million stored values.",
        f"Prices: {given.usd_per_million_gets:g} dollars a million GETs,",
        f"{given.usd_per_million_puts:g} a million PUTs, {given.usd_per_gb_out:g} a GB read.",
    )
    return f"## What it would cost\n\n{_table(('what', 'how much'), rows)}\n\n{' '.join(words)}"


def _place(plan: IngestPlan) -> str:
    hosts = Counter(_host(asset.href) for task in plan.tasks for asset in _assets(task))
    names = ", ".join(f"`{host}`" for host, _ in hosts.most_common(4))
    region = profile_of(plan.request.catalog).region
    known = f" This catalog's pixels lie in {region}." if region else ""
    return (
        f"## Where the pixels lie\n\nOn {names}.{known} Compare with where the workers run, which the plan cannot see: "
        "from another region reading is slower, and the way out is billed, at about 0.09 dollars a GB (`--usd-per-gb`)."
    )


def _assets(task: Task) -> list[Asset]:
    scenes = (task.s2, task.s1) if isinstance(task, PairTask) else task.candidates[:1]
    return [next(iter(scene.assets.values())) for scene in scenes]


def _host(href: str) -> str:
    parts = urlsplit(redact(href))
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else "this machine's disk"


def _left_out(plan: IngestPlan) -> str:
    cells = Counter(item.reason for item in plan.left_out).most_common()
    scenes = Counter(plan.scenes_left_out.values()).most_common()
    return (
        "## What is left out\n\nCells:\n\n"
        + _table(("reason", "cells"), cells)
        + "\n\nScenes:\n\n"
        + _table(("reason", "scenes"), scenes)
        + "\n\n`ingest plan --explain CELL` says of every scene what became of it on one cell. `plan.parquet` has a "
        "row for every chip and every cell left out."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table of the first rows, with the number of the others."""
    if not rows:
        return "None."
    shown = [" | ".join(str(value).replace("|", "/") for value in row) for row in rows[:_ROWS]]
    more = f"\n\nand {len(rows) - _ROWS} more." if len(rows) > _ROWS else ""
    return "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join("---" for _ in head), *shown)) + more


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _hours(hours: float) -> str:
    seconds = hours * 3600
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:,.1f} h"
