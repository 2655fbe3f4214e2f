"""The two containers of weights, read without ever running what is in them: torch's zip archive and safetensors.

Writing gives the same bytes for the same content, on any day and in any process.
"""

import argparse
import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import ContractError, UsageError, redact
from pipeline.store import Store

_ZIP = b"PK\x03\x04"
_LENGTH = 8
"""Bytes. Safetensors begins with the length of its JSON header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file in a store."""

    store: Store
    """Its folder."""
    name: str
    """In there."""

    @staticmethod
    def at(path: str | os.PathLike[str]) -> "File":
        """The file at a path or URL; the query of a signed URL belongs to its name."""
        text = os.fspath(path)
        if "://" not in text:
            return File(store=Store.at(Path(text).parent), name=Path(text).name)
        address, question, query = text.partition("?")
        folder, slash, name = address.rpartition("/")
        return File(store=Store.at(folder + slash), name=name + question + query)

    @property
    def url(self) -> str:
        """For messages: redacted."""
        return redact(f"{self.store.url.rstrip('/')}/{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """What a file holds."""

    values: Mapping[str, Any]
    """By key: tensors, or mappings of them, or what else a training script saved."""
    metadata: Mapping[str, str]
    """Of a safetensors file; empty otherwise."""


def read(file: File) -> Content:
    """What `file` holds.

    Raises:
        UsageError: it is not there.
        ContractError: it is of another kind, cut short, or a pickle that wants more than tensors.
    """
    try:
        head = file.store.read_range(file.name, 0, _LENGTH + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"there is no file {file.url}. Give a weights file.") from error
    if head.startswith(_ZIP):
        return Content(values=_read_torch(file), metadata={})
    if head[_LENGTH:] == b"{":
        return _read_safetensors(file, int.from_bytes(head[:_LENGTH], "little"))
    raise ContractError(
        f"{file.url} is neither safetensors nor an archive of torch.save: it begins with {head!r}. Give a weights "
        "file; one that torch wrote before version 1.6 must be loaded and saved again by a newer one."
    )


def _read_torch(file: File) -> dict[str, Any]:
    # Mapped where it can be: a released SatMAE holds two optimizer moments beside its weights, never looked at.
    source: str | IO[bytes] = (
        file.store.path(file.name) if file.store.is_local else io.BytesIO(file.store.read(file.name))
    )
    try:
        # SatMAE keeps its flags in the file: a bag of attributes that runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(source, map_location="cpu", weights_only=True, mmap=file.store.is_local)
    except pickle.UnpicklingError as error:
        raise ContractError(
            f"{file.url} wants to run more than tensors need, and was not run: {_first_line(error)}. "
            "Give a file of plain state dicts, from a source that you trust."
        ) from error
    except Exception as error:  # a damaged archive fails in torch in any way
        raise ContractError(f"{file.url} is damaged: {_first_line(error)}. Copy it again.") from error
    if not isinstance(found, Mapping):
        raise ContractError(f"{file.url} holds a {type(found).__name__}. Give a file that holds state dicts.")
    return {str(name): value for name, value in found.items()}


def _read_safetensors(file: File, header_bytes: int) -> Content:
    try:
        # The library first: it refuses a header that is too large or nests too deep.
        tensors = (
            safetensors.torch.load_file(file.store.path(file.name))
            if file.store.is_local
            else safetensors.torch.load(file.store.read(file.name))
        )
        header = json.loads(file.store.read_range(file.name, _LENGTH, _LENGTH + header_bytes))
    except Exception as error:  # as above
        raise ContractError(f"{file.url} is no whole safetensors file: {_first_line(error)}. Copy it again.") from error
    return Content(values=tensors, metadata=header.get("__metadata__", {}))


def torch_bytes(content: Mapping[str, Any]) -> bytes:
    """What torch.save writes of `content`: tensors by name, or mappings of them."""
    buffer = io.BytesIO()
    torch.save(_plain(content), buffer)
    return buffer.getvalue()


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """What safetensors writes, but with the metadata in order: it shuffles them anew in each process."""
    data = safetensors.torch.save(_plain(tensors))
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[_LENGTH:end])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return b"".join((len(text).to_bytes(_LENGTH, "little"), text, memoryview(data)[end:]))


def _plain(value: Any) -> Any:
    """Sorted dicts of tensors that share no memory: a view would be written with all that it looks into."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return {name: _plain(value[name]) for name in sorted(value)}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
