"""Checkpoints of either form, whole: one process's, or one that ranks wrote in shards."""

import json
from collections.abc import Callable

import safetensors.torch

from pipeline import record
from pipeline.store import Store
from train import checkpoint, sharded_checkpoint
from train.checkpoint import STATE_NAME, Checkpoint, folder
from train.guard import FILE_NAME
from train.sharded_checkpoint import MODEL, OPTIM, Objects
from train.stream.config import StreamState


def latest(store: Store, say: Callable[[str], None]) -> Checkpoint | None:
    """As `checkpoint.latest`, of either form."""
    return checkpoint.latest(store, say, load=load)


def load(store: Store, step: int) -> Checkpoint:
    """As `checkpoint.load`, of either form."""
    at = store.within(folder(step))
    objects = Objects(at)
    if not objects.sharded:
        return checkpoint.load(store, step)
    state = json.loads(objects.read(STATE_NAME))
    return Checkpoint(
        step=state["step"],
        stream=record.from_json(StreamState, state["stream"], where=f"{at.url}/{STATE_NAME}.stream"),
        recipe=state["recipe"],
        versions=state["versions"],
        model=sharded_checkpoint.read(at, MODEL),
        optimizer={**sharded_checkpoint.read(at, OPTIM), **safetensors.torch.load(objects.read(FILE_NAME))},
    )
