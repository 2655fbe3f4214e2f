"""Memory that processes share: nameless, so that nothing of it is left behind by a kill.

Axes: as in `ring`.
"""

import contextlib
import math
import mmap
import os
import weakref
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
    memory = memoryview(mmap.mmap(fd, _size(rooms)))
    if pinned:
        _pin(memory)
    return Memory(fd=fd, tensors=_within(memory, rooms))


def mapped(fd: int, rooms: Mapping[str, Room]) -> dict[str, Tensor]:
    """The tensors in `fd`, which may be closed then."""
    return _within(memoryview(mmap.mmap(fd, _size(rooms))), rooms)


def _within(memory: memoryview, rooms: Mapping[str, Room]) -> dict[str, Tensor]:
    tensors, start = {}, 0
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


def _pin(memory: memoryview) -> None:
    """Page-lock it until its last tensor is gone. A driver that refuses makes copies slower, no more."""
    start = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    refused = int(torch.cuda.cudart().cudaHostRegister(start, memory.nbytes, 0))  # type: ignore[no-untyped-call]
    if refused:
        # CUDA keeps the refusal and would tell it of the next kernel, whoever starts that.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")
        return
    weakref.finalize(memory, _unpin, memory.obj, start).atexit = False


def _unpin(_: object, start: int) -> None:
    """Before it is unmapped, for which the first argument is held: what lay here next would pass for page-locked."""
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(start)  # type: ignore[no-untyped-call]
