"""A run's state as a checkpoint, and back."""

import platform
from importlib.metadata import version

import torch
from torch import Tensor

from pipeline import record
from pipeline.errors import StreamError
from train.checkpoint import Checkpoint, differences
from train.grouprec.fit import Trainer
from train.grouprec.pretext import Targets
from train.grouprec.rowwise import Moments
from train.grouprec.state import Array, State
from train.stream.config import StreamState

_PLAN = 2
"""Of `sampling`: raised where the same seed draws other pairs."""
_BEST = "best/"


def pack(trainer: Trainer, sha256: str) -> Checkpoint:
    """All that the rest of a run depends on."""
    state = trainer.state
    arrays = state.arrays() | {_BEST + name: array for name, array in state.best.items()}
    return Checkpoint(
        step=state.epochs,
        stream=_position(trainer, sha256),
        recipe=record.to_json(trainer.config),
        versions={"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")},
        model={name: torch.from_numpy(array) for name, array in arrays.items()},
        optimizer=_memories(state) | _targets(state),
    )


def unpack(found: Checkpoint, trainer: Trainer, sha256: str, *, where: str) -> None:
    """Go on from a checkpoint.

    Raises:
        StreamError: it is of other data, another seed or other settings.
    """
    trainer.state.epochs = found.step
    different = differences(found.recipe, record.to_json(trainer.config))
    different += differences(record.to_json(found.stream), record.to_json(_position(trainer, sha256)), at="data.")
    if different:
        raise StreamError(
            f"{where} was begun otherwise: {'; '.join(different)}. "
            "Resume with the flags and the data it was begun with, or choose another --out."
        )
    trainer.state = _state(found)


def kept(found: Checkpoint) -> dict[str, Array]:
    """Arrays of the best epoch, or of the last where epochs were not compared."""
    names = [name for name in found.model if not name.startswith(_BEST)]
    return {name: found.model.get(_BEST + name, found.model[name]).numpy() for name in names}


def _position(trainer: Trainer, sha256: str) -> StreamState:
    pairs = trainer.state.epochs * trainer.config.negatives * len(trainer.positives)
    return StreamState(plan_version=_PLAN, index_sha256=sha256, seed=trainer.seed, lanes=1, samples_consumed=pairs)


def _memories(state: State) -> dict[str, Tensor]:
    parts = {
        f"{kind}/{name}": torch.from_numpy(getattr(memory, kind))
        for name, memory in state.memories.items()
        for kind in ("first", "second", "last")
    }
    counts = {f"step/{name}": torch.tensor([memory.step]) for name, memory in state.memories.items()}
    best = torch.tensor([float(state.best_epoch), state.best_value], dtype=torch.float64)
    return {**parts, **counts, "best": best}


def _targets(state: State) -> dict[str, Tensor]:
    found = state.targets
    return {} if found is None else {f"targets/{name}": getattr(found, name) for name in Targets.__dataclass_fields__}


def _state(found: Checkpoint) -> State:
    model = {name: tensor.numpy() for name, tensor in found.model.items()}
    kept = found.optimizer
    names = [name.removeprefix("step/") for name in kept if name.startswith("step/")]
    return State(
        table_ND=model["table"],
        head_1W=model["head"],
        center_GD=model["centers"],
        assignment_U=model["assignment"],
        memories={
            name: Moments(
                first=kept[f"first/{name}"].numpy(),
                second=kept[f"second/{name}"].numpy(),
                last=kept[f"last/{name}"].numpy(),
                step=int(kept[f"step/{name}"]),
            )
            for name in names
        },
        targets=Targets(**{name: kept[f"targets/{name}"] for name in Targets.__dataclass_fields__})
        if "targets/items_Z" in kept
        else None,
        epochs=found.step,
        best_epoch=int(kept["best"][0]),
        best_value=float(kept["best"][1]),
        best={name.removeprefix(_BEST): array for name, array in model.items() if name.startswith(_BEST)},
    )
