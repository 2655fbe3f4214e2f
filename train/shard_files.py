"""The files of tensors in shards: what `torch.distributed.checkpoint` plans, written and read without pickle.

    PART-00000-of-00002.safetensors   the pieces that rank 0 holds, under the tensors' own names
    PART-whole.safetensors            what is the same on every rank, written by rank 0
    PART.json                         dtype, shape and pieces of each tensor

torch decides who writes and who reads which piece, at any number of ranks, and makes an error of one rank one of all.
Its own storage pickles the plan and the tensors. A file is read whole, and its checksum compared first.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import safetensors.torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from pipeline import record
from pipeline.errors import StreamError
from pipeline.index import crc32c
from pipeline.store import Store
from train.checkpoint import COMMIT_NAME, ObjectSum
from train.shard_index import Piece, ShardIndex, index_of

Read = Callable[[str], bytes]
"""The checked bytes of an object of the checkpoint, by name."""


class Writer(StorageWriter):
    """Writes one part of a checkpoint; torch calls its methods on every rank, in this order."""

    def __init__(self, at: Store, part: str) -> None:
        self._at, self._part = at, part
        self.sums: dict[str, ObjectSum] = {}
        """Of all ranks' files, on rank 0 when all is done."""

    def reset(self, checkpoint_id: Any = None) -> None:
        """A writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *_args: Any, **_kwargs: Any) -> None:
        """Take the proof away before the first file changes."""
        if is_coordinator:
            self._at.remove(COMMIT_NAME)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell each rank the name of its file."""
        names = [f"{self._part}-{rank:05d}-of-{len(plans):05d}.safetensors" for rank in range(len(plans))]
        return [replace(plan, storage_data=name) for plan, name in zip(plans, names, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's files."""
        files: dict[str, list[WriteItem]] = defaultdict(list)
        for item in plan.items:
            whole = item.type is not WriteItemType.SHARD
            files[f"{self._part}-whole.safetensors" if whole else plan.storage_data].append(item)
        done: Future[list[WriteResult]] = Future()
        done.set_result([result for name, items in files.items() for result in self._write(name, items, planner)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, on rank 0, when all files are there."""
        written = [result for of_rank in results for result in of_rank]
        self.sums |= {result.storage_data[0].file: result.storage_data[1] for result in written}
        index = index_of(metadata, ((result.index.fqn, result.storage_data[0]) for result in written))
        name = index_name(self._part)
        self.sums[name] = self._publish(name, index.dumps())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003 - torch's signature
        """There are no ids: a store is given."""
        return False

    def _write(self, file: str, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        tensors = {item.index.fqn: _plain(planner.resolve_data(item)) for item in items}
        pieces = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
        if not pieces:
            return []
        total = self._publish(file, safetensors.torch.save(pieces))
        return [
            WriteResult(
                index=item.index,
                size_in_bytes=pieces[item.index.fqn].nbytes,
                storage_data=(_piece(file, item, pieces), total),
            )
            for item in items
            if item.index.fqn in pieces
        ]

    def _publish(self, name: str, data: bytes) -> ObjectSum:
        self._at.publish(name, data)
        return ObjectSum(size=len(data), crc32c=crc32c(data))


class Reader(StorageReader):
    """Reads one part of a checkpoint; torch calls its methods on every rank, in this order."""

    def __init__(self, read: Read, part: str, names: set[str]) -> None:
        self._read, self._part, self._names = read, part, names
        self._index = ShardIndex(tensors={})

    def reset(self, checkpoint_id: Any = None) -> None:
        """A reader reads once."""

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        """None yet: torch would make a warning of what this raises."""
        return Metadata({})

    def set_up_storage_reader(self, metadata: Metadata, *_args: Any, **_kwargs: Any) -> None:
        """Fill `metadata` from the index.

        Raises:
            StreamError: it is of other tensors.
        """
        self._index = read_index(self._read, self._part)
        other = self._names ^ set(self._index.tensors)
        if other:
            raise StreamError(
                f"{len(other)} tensors stand only in the checkpoint's {self._part} or only in the model (first: "
                f"{min(other)}). Resume with the code and the recipe that wrote it."
            )
        metadata.state_dict_metadata.update(self._index.metadata())

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy what this rank needs into its tensors, file by file."""
        files = defaultdict(list)
        for item in plan.items:
            files[self._index.file(item.storage_index)].append(item)
        for name, items in files.items():
            tensors = safetensors.torch.load(self._read(name))
            for item in items:
                box = zip(item.storage_offsets, item.lengths, strict=True)
                found = tensors[item.storage_index.fqn][tuple(slice(first, first + count) for first, count in box)]
                planner.resolve_tensor(item).detach().copy_(found)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003 - torch's signature
        """There are no ids: a store is given."""
        return False


def index_name(part: str) -> str:
    """Name of a part's index."""
    return f"{part}.json"


def read_index(read: Read, part: str) -> ShardIndex:
    """What a part holds."""
    return record.loads(ShardIndex, read(index_name(part)), where=index_name(part))


def _plain(tensor: Any) -> Tensor:
    out: Tensor = tensor.detach().cpu().contiguous()
    return out


def _piece(file: str, item: WriteItem, pieces: Mapping[str, Tensor]) -> Piece:
    return Piece(file=file, offset=tuple(item.index.offset or ()), shape=tuple(pieces[item.index.fqn].shape))
