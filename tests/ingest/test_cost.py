"""What a plan would cost, against plain loops over pixels and against what a build really writes."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import plan_page
from ingest.build import build
from ingest.cost import OPEN_BYTES, Assumptions, estimate, touched
from ingest.plan import IngestPlan
from ingest.planner import make_plan
from ingest.request import Request
from pipeline.store import Store

pytestmark = pytest.mark.ingest
Ask = Callable[..., Request]
PLAIN = Assumptions(block_px=64, compressed=0.5)


@pytest.fixture(scope="module")
def plan(make_request: Ask) -> IngestPlan:
    return make_plan(make_request())


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15), st.integers(0, 40), st.integers(1, 15)), min_size=1),
    st.integers(1, 16),
)
def test_blocks_are_those_of_the_pixels(windows: list[tuple[int, int, int, int]], side: int) -> None:
    blocks = {(y // side, x // side) for y0, h, x0, w in windows for y in range(y0, y0 + h) for x in range(x0, x0 + w)}
    runs = sum((row, col - 1) not in blocks for row, col in blocks)
    array = np.array([(y0, y0 + h, x0, x0 + w) for y0, h, x0, w in windows], dtype=float)
    assert touched(array, side) == (len(blocks), runs)


def _touched_by_hand(plan: IngestPlan, gsd: int, side: int = 64) -> int:
    """Blocks of one band that the chips of each unit touch, pixel by pixel, on the tiny Earth's grid."""
    total = 0
    for unit in plan.units:
        blocks = set()
        for task in unit.tasks:
            left, top = (task.cell.left_m - 500040) / gsd, (5300040 - task.cell.top_m) / gsd
            size = task.cell.size_px * 10 / gsd
            for y in range(int(top), int(np.ceil(top + size))):
                blocks |= {(y // side, x // side) for x in range(int(left), int(np.ceil(left + size)))}
        total += len(blocks)
    return total


def test_every_block_of_every_band_counts_once_a_unit(plan: IngestPlan) -> None:
    ten, twenty, sixty = (_touched_by_hand(plan, gsd) for gsd in (10, 20, 60))
    cost = estimate(plan, PLAIN)
    assert cost.blocks == (4 + 2) * ten + (6 + 1) * twenty + 2 * sixty
    assert ten > 3


def test_cloud_probability_is_read_where_it_decides(plan: IngestPlan, make_request: Ask) -> None:
    def with_cloud(scene: Any) -> Any:
        return replace(scene, assets={**scene.assets, "CLD": scene.assets["SCL"]})

    units = tuple(
        replace(unit, tasks=tuple(replace(task, s2=with_cloud(task.s2)) for task in unit.tasks)) for unit in plan.units
    )
    there = replace(plan, units=units)
    asked = replace(there, request=replace(there.request, cloud_percent=40.0))
    assert estimate(there, PLAIN) == estimate(plan, PLAIN)
    assert estimate(asked, PLAIN).blocks == estimate(plan, PLAIN).blocks + _touched_by_hand(plan, 20)


def test_bytes_follow_from_the_file_s_size_where_it_is_known(plan: IngestPlan) -> None:
    whole = replace(PLAIN, block_px=144)  # one block a file
    unknown = estimate(plan, whole)
    assert unknown.bytes_from_size == 0
    files = len(plan.units) * 15
    raw = len(plan.units) * (144**2 * (4 * 2 + 2 * 4) + 72**2 * (6 * 2 + 1) + 24**2 * 2 * 2)
    assert unknown.bytes_read == pytest.approx(0.5 * raw + files * OPEN_BYTES)

    def sized(scene: Any) -> Any:
        return replace(scene, assets={name: replace(one, size_bytes=1000) for name, one in scene.assets.items()})

    units = tuple(
        replace(unit, tasks=tuple(replace(task, s2=sized(task.s2)) for task in unit.tasks)) for unit in plan.units
    )
    cost = estimate(replace(plan, units=units), whole)
    assert cost.bytes_from_size == len(plan.units) * 13 * (1000 + OPEN_BYTES)
    assert (cost.blocks, cost.requests) == (unknown.blocks, unknown.requests)


def test_what_is_written_is_what_a_build_writes(make_request: Ask) -> None:
    asked = make_request(codec="npy", max_cloud_percent=100.0, max_nodata_percent=100.0, labels=("labels",))
    built = build(asked, "memory://costs", workers=0)
    cost = estimate(make_plan(asked), PLAIN)
    really = sum(shard.bytes for shard in built.shards)
    assert built.counts["accepted"] == sum(built.counts.values())
    assert cost.bytes_shards < really < 1.5 * cost.bytes_shards  # tiny chips: headers and json weigh much


def test_a_price_is_an_item_times_its_number(plan: IngestPlan) -> None:
    free = replace(PLAIN, usd_per_million_gets=0.0, usd_per_million_puts=0.0)
    cost = estimate(plan, free)
    assert cost.usd == 0
    assert estimate(plan, replace(free, usd_per_million_gets=2.0)).usd == pytest.approx(cost.requests * 2e-6)
    assert estimate(plan, replace(free, usd_per_gb_out=3.0)).usd == pytest.approx(cost.bytes_read * 3e-9)
    assert estimate(plan, replace(free, workers=4)).hours == pytest.approx(cost.hours / 2)
    slow = estimate(plan, replace(free, gbit_s=1e-4))
    moved = cost.bytes_read + cost.bytes_shards + cost.bytes_cube
    assert slow.hours == pytest.approx(moved * 8 / 1e5 / 3600)


def test_stacks_count_every_candidate(make_request: Ask) -> None:
    asked = make_request(kind="stack", s1=(), max_gap_hours=0.0, frames=2, min_gap_hours=24.0)
    plan = make_plan(asked)
    one = replace(plan, units=tuple(replace(unit, tasks=unit.tasks[:1]) for unit in plan.units[:1]))
    scenes = len(one.tasks[0].candidates)  # type: ignore[union-attr]
    assert scenes == 3
    assert estimate(one, replace(PLAIN, block_px=144)).blocks == scenes * 13


@pytest.mark.parametrize("kind", ["pair", "stack"])
def test_the_page_says_it_in_words_and_keeps_secrets(kind: str, make_request: Ask) -> None:
    stack = {"s1": (), "max_gap_hours": 0.0, "frames": 2, "min_gap_hours": 24.0} if kind == "stack" else {}
    plan = make_plan(make_request(kind=kind, **stack))
    secret = replace(plan.request, catalog="https://user:hunter2@stac.example/v1?sig=hunter2")
    plan = replace(plan, request=secret, scenes_left_out={f"S{i}": f"reason {i}" for i in range(40)})
    cost = estimate(plan, PLAIN)
    text = plan_page.page(plan, cost, PLAIN)
    assert "hunter2" not in text
    assert "https://stac.example/v1" in text
    assert f"{len(plan.tasks)} chips on 6 cells" in text
    assert f"{cost.requests:,} requests, {cost.blocks:,} blocks" in text
    assert ("| S2-0 | S1-0 | 6.0 | 6 |" in text) == (kind == "pair")
    assert "and 28 more." in text
    assert len(text.splitlines()) < 100


def test_the_page_lies_beside_the_plan(make_request: Ask) -> None:
    store = Store.at("memory://planned")
    plan_page.keep(store, make_request(), PLAIN)
    assert store.names() == ["plan.md", "plan.parquet"]
    assert json.loads(json.dumps(store.read("plan.md").decode())).startswith("# Plan ")
