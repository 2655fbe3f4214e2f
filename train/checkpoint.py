"""Checkpoints: folders that appear as a whole or not at all, on anything that fsspec reaches.

    step-00000012/model.safetensors   weights under the module's own names
                  optim.safetensors   `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`; `guard/...`; `ema/NAME`
                  state.json          step, stream state, recipe, versions
                  COMMIT.json         written last: size and crc32c of each of the above

A folder without a valid COMMIT.json does not exist. No pickle: reading a checkpoint runs no code. Knows no
ranks: one of them saves.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline import record
from pipeline.errors import ContractError, StreamError
from pipeline.index import crc32c
from pipeline.store import Store
from train.stream.config import StreamState

COMMIT_NAME = "COMMIT.json"
STATE_NAME = "state.json"
MODEL_NAME = "model.safetensors"
OPTIM_NAME = "optim.safetensors"
KEEP = 2
"""How many finished checkpoints stay: the newest and one to fall back on."""
_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped."""

    step: int
    """Steps done."""
    stream: StreamState
    """Where the data stands."""
    recipe: Mapping[str, Any]
    """The run as JSON."""
    versions: Mapping[str, str]
    """Packages that wrote it; for people, not compared."""
    model: Mapping[str, Tensor]
    """Weights by name."""
    optimizer: Mapping[str, Tensor]
    """Optimizer state by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSum:
    """What one object must be."""

    size: int
    """Bytes."""
    crc32c: int
    """Checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The proof that a checkpoint is whole."""

    objects: Mapping[str, ObjectSum]
    """By name."""


def folder(step: int) -> str:
    """Name of a checkpoint's folder.

    >>> folder(12)
    'step-00000012'
    """
    return f"step-{step:08d}"


def steps(store: Store) -> list[int]:
    """Steps of all checkpoint folders, finished or not, ascending."""
    return sorted(int(match[1]) for name in store.names() if (match := _FOLDER.fullmatch(name)))


def save(
    store: Store,
    checkpoint: Checkpoint,
    *,
    keep: int = KEEP,
    every: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write a checkpoint and read it back; then remove all but the newest `keep`, and those of every `every` steps.

    Args:
        store: the run's folder.
        checkpoint: what to write.
        keep: how many of the newest stay, this one included.
        every: steps; None: no others stay.
        check: called before each object is written; raises where nothing may be written any more.

    Raises:
        StreamError: what was read back is not what was written; nothing was removed.
    """
    at = store.within(folder(checkpoint.step))
    check()
    at.remove(COMMIT_NAME)
    objects = {
        MODEL_NAME: _tensor_bytes(checkpoint.model),
        OPTIM_NAME: _tensor_bytes(checkpoint.optimizer),
        STATE_NAME: state_bytes(checkpoint),
    }
    for name, data in objects.items():
        check()
        at.publish(name, data)
    sums = {name: ObjectSum(size=len(data), crc32c=crc32c(data)) for name, data in objects.items()}
    check()
    at.publish(COMMIT_NAME, record.dumps(Commit(objects=sums)))
    _verify(at)
    prune(store, checkpoint.step, keep=keep, every=every)


def latest(
    store: Store, say: Callable[[str], None], *, load: Callable[[Store, int], Checkpoint] | None = None
) -> Checkpoint | None:
    """The newest whole checkpoint; None where no checkpoint was ever finished.

    Args:
        store: the run's folder.
        say: told about each folder that is passed over.
        load: reads one; None: `load` of this module.

    Raises:
        StreamError: checkpoints were finished, but none of them is whole any more.
    """
    damaged = []
    for step in reversed(steps(store)):
        try:
            return (load or _load)(store, step)
        except FileNotFoundError:
            say(f"{folder(step)} was never finished: passed over.")
        except ContractError as error:
            damaged.append(folder(step))
            say(f"{error} Passed over.")
    if damaged:
        raise StreamError(f"all checkpoints of {store.url} are damaged: {damaged}. Start a new run in another OUT.")
    return None


def load(store: Store, step: int) -> Checkpoint:
    """The checkpoint of `step`, every byte checked.

    Raises:
        FileNotFoundError: it was never finished.
        ContractError: it is damaged.
    """
    at = store.within(folder(step))
    commit = record.loads(Commit, at.read(COMMIT_NAME), where=f"{at.url}/{COMMIT_NAME}")
    objects = {name: _checked(at, name, commit) for name in (STATE_NAME, MODEL_NAME, OPTIM_NAME)}
    state = json.loads(objects[STATE_NAME])
    return Checkpoint(
        step=state["step"],
        stream=record.from_json(StreamState, state["stream"], where=f"{at.url}/{STATE_NAME}.stream"),
        recipe=state["recipe"],
        versions=state["versions"],
        model=_tensors(objects[MODEL_NAME], f"{at.url}/{MODEL_NAME}"),
        optimizer=_tensors(objects[OPTIM_NAME], f"{at.url}/{OPTIM_NAME}"),
    )


_load = load


def differences(was: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> list[str]:
    """What differs between two JSON objects, one line each: `optim.base_lr: 0.1 then, 0.2 now`."""
    found = []
    for name in sorted({*was, *now}):
        then, new = was.get(name), now.get(name)
        if isinstance(then, Mapping) and isinstance(new, Mapping):
            found += differences(then, new, f"{at}{name}.")
        elif then != new:
            found.append(f"{at}{name}: {then!r} then, {new!r} now")
    return found


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _tensors(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ContractError(f"{where} is not safetensors: {error}.") from error


def state_bytes(checkpoint: Checkpoint) -> bytes:
    """`state.json` of a checkpoint."""
    return record.dumps({name: getattr(checkpoint, name) for name in ("step", "stream", "recipe", "versions")})


def _verify(at: Store) -> None:
    try:
        commit = record.loads(Commit, at.read(COMMIT_NAME), where=f"{at.url}/{COMMIT_NAME}")
        for name in commit.objects:
            _checked(at, name, commit)
    except (ContractError, FileNotFoundError) as error:
        raise StreamError(
            f"{at.url} was written and is not there as it was: {error} The checkpoints before it were kept. "
            "Look after the store, then resume."
        ) from error


def _checked(at: Store, name: str, commit: Commit) -> bytes:
    try:
        data = at.read(name)
    except FileNotFoundError:
        data = b""
    if commit.objects.get(name) != ObjectSum(size=len(data), crc32c=crc32c(data)):
        raise ContractError(f"{at.url}/{name} is missing or not what {COMMIT_NAME} promises.")
    return data


def prune(store: Store, newest: int, *, keep: int, every: int | None) -> None:
    """Remove older checkpoints, the proof first, so that none is ever half there."""
    older = [step for step in steps(store) if step < newest]
    finished = [step for step in older if store.exists(f"{folder(step)}/{COMMIT_NAME}")]
    kept = finished[-(keep - 1) :] if keep > 1 else []
    kept += [step for step in finished if every is not None and step % every == 0]
    for step in older:
        if step not in kept:
            store.remove(f"{folder(step)}/{COMMIT_NAME}")
            store.remove(folder(step))
