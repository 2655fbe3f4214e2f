"""Checkpoints of tensors in shards: every rank writes its own, and any number of ranks reads them again.

    step-00000012/model-RRRRR-of-WWWWW.safetensors, model-whole.safetensors, model.json    see `shard_files`
                  optim-RRRRR-of-WWWWW.safetensors, optim-whole.safetensors, optim.json    the same of the optimizer
                  state.json                                                               as in `checkpoint`
                  COMMIT.json                                                              written last, by rank 0

The rule is that of `checkpoint`: a folder without a valid COMMIT.json does not exist. `save` and `load` are called on
every rank; what fails on one is raised on all.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner

from pipeline import record
from pipeline.errors import ContractError, PretrainError, StreamError
from pipeline.index import crc32c
from pipeline.store import Store
from train.checkpoint import COMMIT_NAME, Commit, ObjectSum
from train.optim import load_optimizer, optimizer_tensors
from train.shard_files import Reader, Writer, index_name, read_index

MODEL, OPTIM = "model", "optim"
"""The parts of a checkpoint."""


class Objects:
    """The objects of a finished checkpoint, each compared with COMMIT.json before it is used."""

    def __init__(self, at: Store) -> None:
        self._at = at

    @cached_property
    def commit(self) -> Commit:
        """What the objects must be.

        Raises:
            FileNotFoundError: the checkpoint was never finished.
        """
        return record.loads(Commit, self._at.read(COMMIT_NAME), where=f"{self._at.url}/{COMMIT_NAME}")

    @property
    def sharded(self) -> bool:
        """Whether this module wrote it, and not `checkpoint`."""
        return index_name(MODEL) in self.commit.objects

    def read(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: the checkpoint was never finished.
            ContractError: the object is missing or damaged.
        """
        promised = self.commit.objects.get(name)
        try:
            data = self._at.read(name)
        except FileNotFoundError:
            data = b""
        if promised != ObjectSum(size=len(data), crc32c=crc32c(data)):
            raise ContractError(f"{self._at.url}/{name} is missing or not what {COMMIT_NAME} promises.")
        return data


def save(
    at: Store,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, bytes],
    averages: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; to be called `ranks.together`, since rank 0 alone writes the end.

    Args:
        at: the checkpoint's folder; what was finished in it before is gone.
        module: sharded, or the same on all ranks.
        optimizer: of its parameters, after at least one step.
        others: further objects, of rank 0.
        averages: of the parameters, by names of their own; they go beside the optimizer's state.
    """
    sums: dict[str, ObjectSum] = {}
    # The module first: its parameters may still be gathered from an evaluation, and become shards again here.
    state = {**optimizer_tensors(optimizer, module), **(averages or {})}
    for part, tensors in ((MODEL, module.state_dict()), (OPTIM, state)):
        sums |= _write(at, part, tensors)
    if not dist.is_initialized() or dist.get_rank() == 0:
        for name, data in others.items():
            at.publish(name, data)
            sums[name] = ObjectSum(size=len(data), crc32c=crc32c(data))
        at.publish(COMMIT_NAME, record.dumps(Commit(objects=sums)))


def load(at: Store, *, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Give `module` and its `optimizer` what `save` took from others like them, sharded otherwise or not at all.

    Every rank reads the files that hold rows of its own; together they read all. After an error the tensors may hold
    anything.

    Raises:
        FileNotFoundError: the checkpoint was never finished.
        ContractError: it is damaged.
        StreamError: it is of another model.
    """
    objects = Objects(at)
    _read_into(module.state_dict(), objects, MODEL)
    if optimizer is not None:
        moments = _no_moments(optimizer, module)
        _read_into(moments, objects, OPTIM)
        load_optimizer(optimizer, module, moments)


def read(at: Store, part: str) -> dict[str, Tensor]:
    """All tensors of `MODEL` or `OPTIM`, whole, in this process alone.

    Raises:
        FileNotFoundError: the checkpoint was never finished.
        ContractError: it is damaged.
    """
    objects = Objects(at)
    entries = read_index(objects.read, part).tensors
    tensors = {name: torch.empty(entry.shape, dtype=getattr(torch, entry.dtype)) for name, entry in entries.items()}
    _read_into(tensors, objects, part, alone=True)
    return tensors


def _write(at: Store, part: str, tensors: Mapping[str, Tensor]) -> dict[str, ObjectSum]:
    writer = Writer(at, part)
    planner = DefaultSavePlanner(
        flatten_state_dict=False, flatten_sharded_tensors=False, dedup_save_to_lowest_rank=True
    )
    _run(lambda: state_dict_saver.save(dict(tensors), storage_writer=writer, planner=planner))
    return writer.sums


def _read_into(tensors: Mapping[str, Tensor], objects: Objects, part: str, *, alone: bool = False) -> None:
    reader = Reader(objects.read, part, set(tensors))
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    _run(lambda: state_dict_loader.load(dict(tensors), storage_reader=reader, planner=planner, no_dist=alone))


def _no_moments(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Room for what `optimizer_tensors` gives after a step."""
    room: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            device = parameter.device if optimizer.defaults["fused"] else "cpu"
            room[f"step/{name}"] = torch.zeros((), device=device)
            room |= {f"{kind}/{name}": torch.zeros_like(parameter) for kind in ("exp_avg", "exp_avg_sq")}
    return room


def _run(action: Callable[[], object]) -> None:
    """Run a function of torch's; an error of ours comes out as it went in, on all ranks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            action()
        except CheckpointException as error:
            raise _cause(error) from error


def _cause(error: CheckpointException) -> BaseException:
    rank = min(error.failures)
    cause = error.failures[rank][0]
    if isinstance(cause, PretrainError | FileNotFoundError) or not isinstance(cause, Exception):
        return cause
    if isinstance(cause, ValueError):  # of torch's planner: a size
        return StreamError(f"rank {rank}: {cause}. Resume with the code and the recipe that wrote the checkpoint.")
    return cause
