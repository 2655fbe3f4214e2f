"""The rows of the cube that belong to one unit."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ingest import cube
from ingest.care.verify.finding import Finding, make_again
from ingest.care.verify.known import Checked, Known
from ingest.plan import ROWS_PER_SHARD
from ingest.receipt import Outcome


def row_of(known: Known, row: int) -> dict[str, Any]:
    """The chips of one row of the cube; all None where it does not decode."""
    try:
        return dict(cube.read_row(known.cube, row))
    except Exception:  # noqa: BLE001  damaged bytes make zarr and blosc raise nearly anything
        return dict.fromkeys((spec.name for spec in known.manifest.members), None)


def check_rows(unit_id: str, outcomes: Sequence[Outcome], known: Known) -> Iterator[Finding]:
    """Rows of the unit: keys and acceptance as in the receipt; what is accepted is there, what is not is empty."""
    if known.cube is None or not outcomes:
        return
    first = known.cube_rows.get(outcomes[0].key)
    if first is None or [known.cube_rows.get(one.key) for one in outcomes] != list(range(first, first + len(outcomes))):
        problem = f"the rows of {unit_id} do not hold the chips of its receipt"
        yield Finding(where=f"{cube.CUBE_NAME}/key", problem=problem, remedy=make_again(unit_id))
        return
    rows = -(-len(outcomes) // ROWS_PER_SHARD) * ROWS_PER_SHARD
    accepted = [not one.reason for one in outcomes] + [False] * (rows - len(outcomes))
    try:
        marked = cube.read_part(known.cube, "accepted", first, first + rows).tolist()
    except Exception:  # noqa: BLE001  as above
        marked = None
    if marked != accepted:
        problem = f"rows {first} to {first + rows - 1} are not marked as the receipt of {unit_id} has them"
        yield Finding(where=f"{cube.CUBE_NAME}/accepted", problem=problem, remedy=make_again(unit_id))
    if known.deep:
        yield from _empty_rows(unit_id, [first + i for i, good in enumerate(accepted) if not good], known)


def _empty_rows(unit_id: str, rows: Sequence[int], known: Known) -> Iterator[Finding]:
    for shard, members in groupby(rows, key=lambda row: row // ROWS_PER_SHARD):
        within = [row % ROWS_PER_SHARD for row in members]
        for name, chips in _read_shard(known, shard).items():
            if chips is None or not all(cube.is_empty(name, chips[i]) for i in within):
                yield Finding(
                    where=f"{cube.CUBE_NAME}/{name} shard {shard}",
                    problem="a row without a sample holds pixels, or cannot be read",
                    remedy=make_again(unit_id),
                )


def _read_shard(known: Known, shard: int) -> dict[str, Any]:
    """The chips of one Zarr shard; all None where it does not decode."""
    try:
        return dict(cube.read_rows(known.cube, shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD))
    except Exception:  # noqa: BLE001  as above
        return dict.fromkeys((spec.name for spec in known.manifest.members), None)


def missing_cube_shards(checked: Checked, known: Known, present: Mapping[str, set[int]]) -> Iterator[Finding]:
    """Zarr shards of the unit that hold accepted chips and are not there: one message for each array."""
    done = checked.receipt
    if known.cube is None or done is None:
        return
    wanted = {known.cube_rows.get(one.key, -1) // ROWS_PER_SHARD for one in done.outcomes if not one.reason} - {-1}
    for name, numbers in present.items():
        for number in sorted(wanted - numbers):
            yield Finding(
                where=f"{cube.CUBE_NAME}/{name}/c/{number}",
                problem="it is not there",
                remedy=make_again(checked.unit_id),
            )
