"""Where a shard's bytes come from: files of this machine, or ranged reads of a store. Many threads may read at once."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import ClassVar, Protocol

from pipeline.store import Store

Span = tuple[int, int]
"""First byte, and number of bytes."""
OPEN_FILES = 256
"""How many shards stay open."""


class Source(Protocol):
    """Gives the bytes of shards."""

    reads_ahead: ClassVar[bool]
    """Whether it does anything about what is wanted."""

    def read(self, shard: str, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span; fewer where the shard ends before.

        Raises:
            FileNotFoundError: there is no such shard.
            SourceError: the store kept failing.
        """

    def want(self, shards: Iterable[str]) -> None:
        """Told which shards are read now and next, in order; what is not among them is not needed soon."""

    def forget(self, shard: str) -> None:
        """Told that what was read of `shard` was damaged: nothing kept of it may be used again."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Reads a store sample by sample: one request for all spans and what lies between them."""

    reads_ahead: ClassVar[bool] = False
    store: Store
    """Where the shards lie."""

    def read(self, shard: str, spans: Sequence[Span]) -> list[bytes]:
        """As the protocol says."""
        start = min(offset for offset, _ in spans)
        stop = max(offset + size for offset, size in spans)
        data = self.store.read_range(shard, start, stop)
        return [data[offset - start : offset - start + size] for offset, size in spans]

    def want(self, shards: Iterable[str]) -> None:
        """Nothing is read ahead."""

    def forget(self, shard: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


class OpenFile:
    """A file descriptor that lives as long as somebody reads from it."""

    def __init__(self, fd: int) -> None:
        """Own `fd`."""
        self._fd = fd

    @staticmethod
    def at(path: str) -> "OpenFile":
        """The file at `path`."""
        return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def __del__(self) -> None:
        os.close(self._fd)

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span."""
        return [os.pread(self._fd, size, offset) for offset, size in spans]


class Files:
    """Reads files of this machine, and keeps the last ones open."""

    reads_ahead: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        """`store` must be local."""
        self._store = store
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Files"], tuple[Store]]:
        """In another process they are opened anew."""
        return Files, (self._store,)

    def read(self, shard: str, spans: Sequence[Span]) -> list[bytes]:
        """As the protocol says."""
        return self._store.attempt(lambda: self._file(shard).read(spans), shard)

    def want(self, shards: Iterable[str]) -> None:
        """The system reads ahead."""

    def forget(self, shard: str) -> None:
        """Open the file anew next time: it may have been replaced."""
        with self._lock:
            self._open.pop(shard, None)

    def close(self) -> None:
        """Close all files that nobody reads from."""
        with self._lock:
            self._open.clear()

    def _file(self, shard: str) -> OpenFile:
        with self._lock:
            file = self._open.pop(shard, None) or OpenFile.at(self._store.path(shard))
            self._open[shard] = file
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
            return file


class Everywhere:
    """Reads shards of a data set's store by name, and those that lie elsewhere by their URLs."""

    reads_ahead: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        """`store` is the data set's."""
        self._store = store
        self._of: dict[str, Source] = {}

    def __reduce__(self) -> tuple[type["Everywhere"], tuple[Store]]:
        """In another process it begins anew."""
        return Everywhere, (self._store,)

    def read(self, shard: str, spans: Sequence[Span]) -> list[bytes]:
        """As the protocol says."""
        source, name = self._place(shard)
        return source.read(name, spans)

    def want(self, shards: Iterable[str]) -> None:
        """Nothing is read ahead."""

    def forget(self, shard: str) -> None:
        """As the protocol says."""
        source, name = self._place(shard)
        source.forget(name)

    def close(self) -> None:
        """Give back what is held."""
        for source in self._of.values():
            source.close()

    def _place(self, shard: str) -> tuple[Source, str]:
        store, name = place(self._store, shard)
        if store.url not in self._of:
            self._of[store.url] = source_of(store)
        return self._of[store.url], name


def place(store: Store, shard: str) -> tuple[Store, str]:
    """Store and name of a shard: relative to the data set's `store`, or a URL of its own."""
    if "://" not in shard:
        return store, shard
    folder, _, name = shard.rpartition("/")
    return _elsewhere(folder), name


@lru_cache(maxsize=64)
def _elsewhere(folder: str) -> Store:
    return Store.at(folder)


def source_of(store: Store) -> Source:
    """How `store` is read without a cache."""
    return Files(store) if store.is_local else Ranges(store)
