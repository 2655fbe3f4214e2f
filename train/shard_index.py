"""Which boxes of which tensors lie in which file: the JSON that stands beside a part of a sharded checkpoint.

`torch.distributed.checkpoint` keeps the same in a pickle of its `Metadata`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from pipeline import record


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A box of a tensor, under the tensor's name in a file."""

    file: str
    """Name of the object."""
    offset: tuple[int, ...]
    """Its first element in the tensor."""
    shape: tuple[int, ...]
    """Its own; never empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor."""

    dtype: str
    """Torch's name: `float32`."""
    shape: tuple[int, ...]
    """Of the whole."""
    pieces: tuple[Piece, ...]
    """They cover the whole once, in order of their offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What a part holds."""

    tensors: Mapping[str, Entry]
    """By name."""

    def file(self, piece: MetadataIndex) -> str:
        """Where a piece lies that torch asks for."""
        pieces = self.tensors[piece.fqn].pieces
        return next(one.file for one in pieces if one.offset == tuple(piece.offset or ()))

    def dumps(self) -> bytes:
        """As JSON."""
        return record.dumps(self)

    def metadata(self) -> dict[str, TensorStorageMetadata]:
        """As torch knows it."""
        return {name: _metadata(entry) for name, entry in self.tensors.items()}


def index_of(metadata: Metadata, pieces: Iterable[tuple[str, Piece]]) -> ShardIndex:
    """The index of what was written.

    Args:
        metadata: dtype and shape of each tensor, as torch planned it.
        pieces: of each tensor by name, in any order.
    """
    of: dict[str, list[Piece]] = {name: [] for name in metadata.state_dict_metadata}
    for name, piece in pieces:
        of[name].append(piece)
    return ShardIndex(tensors={name: _entry(metadata.state_dict_metadata[name], found) for name, found in of.items()})


def _entry(planned: object, pieces: list[Piece]) -> Entry:
    assert isinstance(planned, TensorStorageMetadata)  # noqa: S101 - only tensors are saved
    dtype = str(planned.properties.dtype).removeprefix("torch.")
    return Entry(dtype=dtype, shape=tuple(planned.size), pieces=tuple(sorted(pieces, key=lambda piece: piece.offset)))


def _metadata(entry: Entry) -> TensorStorageMetadata:
    chunks = [
        ChunkStorageMetadata(offsets=torch.Size(piece.offset), sizes=torch.Size(piece.shape)) for piece in entry.pieces
    ]
    properties = TensorProperties(dtype=getattr(torch, entry.dtype))
    return TensorStorageMetadata(properties=properties, size=torch.Size(entry.shape), chunks=chunks)
