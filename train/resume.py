"""Where a run begins: at its last checkpoint, if that is of the same recipe and the same data, or at the beginning."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from pipeline import record
from pipeline.errors import StreamError
from pipeline.store import Store
from train import checkpoint, door, restore
from train.checkpoint import Checkpoint
from train.stream.config import StreamState
from train.stream.lanes import PLAN_VERSION, LanePlan

KEY_NAME = "key.txt"
"""By what loggers know the run; written when one is asked for."""


def find(out: Store, *, resume: bool, say: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to go on from; None to begin.

    Raises:
        UsageError: `out` holds a run that is not to be resumed, or a data set.
        StreamError: all its checkpoints are damaged.
    """
    door.check_out(out, resume=resume)
    return restore.latest(out, say) if resume else None


def key(out: Store) -> str:
    """A name for the run in `out` that no other has, the same for all attempts at it."""
    if not out.exists(KEY_NAME):
        out.publish(KEY_NAME, uuid4().hex[:12].encode())
    return out.read(KEY_NAME).decode()


def stream_state(plan: LanePlan, index_sha256: str, step: int) -> StreamState:
    """The state behind `step` steps of this data and order."""
    return StreamState(
        plan_version=PLAN_VERSION,
        index_sha256=index_sha256,
        seed=plan.seed,
        lanes=plan.lanes,
        samples_consumed=step * plan.global_batch,
    )


def check_same(found: Checkpoint, recipe: Any, state: StreamState, *, where: str) -> None:
    """Raise StreamError unless a checkpoint is of this recipe and this data; the message says what differs."""
    different = checkpoint.differences(found.recipe, record.to_json(recipe))
    different += checkpoint.differences(record.to_json(found.stream), record.to_json(state), at="data.")
    if different:
        raise StreamError(
            f"{where} was begun otherwise: {'; '.join(different)}. "
            "Resume with the flags and the data it was begun with, or choose another --out."
        )
