"""Memory that processes share: nameless, so that nothing of it is left behind by a kill.

Axes: as in `ring`.
"""

import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UsageError
from train.stream.ring import Room

_ALIGN = 64
"""Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """A file that lies nowhere but in memory, and tensors in it."""

    fd: int
    """To be handed to other processes."""
    tensors: Mapping[str, Tensor]
    """By name; zeros at first."""


def new_memory(rooms: Mapping[str, Room], *, pinned: bool) -> Memory:
    """Memory for tensors of these shapes.

    Args:
        rooms: what is wanted, by name.
        pinned: page-locked for a GPU, where the driver allows it.

    Raises:
        UsageError: this system has no such memory.
    """
    if not hasattr(os, "memfd_create"):
        raise UsageError("--reader-processes needs Linux. Leave it out, and give --threads more.")
    fd = os.memfd_create("batches", os.MFD_CLOEXEC)
    os.ftruncate(fd, _size(rooms))
    memory = Memory(fd=fd, tensors=mapped(fd, rooms))
    if pinned:
        _pin(memory, _size(rooms))
    return memory


def mapped(fd: int, rooms: Mapping[str, Room]) -> dict[str, Tensor]:
    """The tensors in `fd`, which may be closed then."""
    memory, tensors, start = mmap.mmap(fd, _size(rooms)), {}, 0
    for name, room in rooms.items():
        flat = torch.frombuffer(memory, dtype=room.dtype, count=math.prod(room.shape), offset=start)
        tensors[name] = flat.reshape(room.shape)
        start += _bytes(room)
    return tensors


def _size(rooms: Mapping[str, Room]) -> int:
    return sum(_bytes(room) for room in rooms.values())


def _bytes(room: Room) -> int:
    """Of a tensor, up to where the next one may begin."""
    return -(-math.prod(room.shape) * room.dtype.itemsize // _ALIGN) * _ALIGN


def _pin(memory: Memory, size: int) -> None:
    """Page-lock it for as long as this process lives. A driver that refuses makes copies slower, no more."""
    start = min(tensor.data_ptr() for tensor in memory.tensors.values())
    torch.cuda.cudart().cudaHostRegister(start, size, 0)  # type: ignore[no-untyped-call]
