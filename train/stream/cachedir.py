"""A folder of whole shards on this machine's disk, shared by all processes of the machine, never larger than told.

    SHA256.tar          a shard, named after its bytes: data sets and runs share it, and it is never out of date
    SHA256.part         one that is being fetched, locked by the process that fetches it
    lock                held while room is made

Every claim is a lock of the operating system, which ends with its process: a kill leaves at most a `.part` without a
lock, which the next fetch takes over. Who reads a shard holds a shared lock on it, and what is locked is not removed.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_SUFFIX, _PART, _LOCK = ".tar", ".part", "lock"


class CacheFullError(Exception):
    """There is no room: everything is in use, or the disk is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFolder:
    """The folder and its limit."""

    path: Path
    """Is made where it is not there."""
    limit: int
    """Bytes, over all shards in it."""

    def claim(self, sha256: str) -> int | None:
        """A descriptor of the shard for reading, which keeps it from being removed until it is closed; None: not here.

        Raises:
            OSError: the folder cannot be read.
        """
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self._shard(sha256), os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                os.utime(fd)
                return fd
            os.close(fd)
        return None

    def begin(self, sha256: str, size: int) -> "Part | None":
        """Room for a shard of `size` bytes to be written to; None where another thread or process fetches it already.

        Raises:
            CacheFullError: there is no room.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        fd = self._locked_part(sha256)
        if fd is None:
            return None
        part = Part(fd=fd, path=self._part(sha256), target=self._shard(sha256))
        try:
            with self._alone():
                self._make_room(size, but=part.path.name)
                os.ftruncate(fd, 0)
                if size:
                    os.posix_fallocate(fd, 0, size)
        except OSError as error:
            part.drop()
            raise CacheFullError(f"{self.path}: {error.strerror}") from error
        except CacheFullError:
            part.drop()
            raise
        return part

    def remove(self, sha256: str) -> None:
        """Forget a shard: its bytes are damaged. Who reads it now may go on."""
        self._shard(sha256).unlink(missing_ok=True)

    def used(self) -> int:
        """Bytes of all shards, finished or not."""
        return sum(entry.size for entry in self._entries())

    def _make_room(self, size: int, *, but: str) -> None:
        """Remove the shards that were used longest ago, as many as it takes; not those in use."""
        entries = [entry for entry in self._entries() if entry.name != but]
        excess = sum(entry.size for entry in entries) + size - self.limit
        for entry in sorted(entries, key=lambda entry: entry.used_ns):
            if excess <= 0:
                return
            excess -= entry.size if _remove_unlocked(self.path / entry.name) else 0
        if excess > 0:
            raise CacheFullError(f"{self.path}: {excess} bytes over its limit of {self.limit}, and all is in use")

    def _entries(self) -> list["_Entry"]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for item in os.scandir(self.path):
                if item.name.endswith((_SUFFIX, _PART)):
                    with contextlib.suppress(FileNotFoundError):
                        stat = item.stat()
                        found.append(_Entry(name=item.name, size=stat.st_size, used_ns=stat.st_mtime_ns))
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        with (self.path / _LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _locked_part(self, sha256: str) -> int | None:
        """The part's descriptor, locked; None where it is another's, or the shard has just been finished."""
        fd = os.open(self._part(sha256), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two calls its owner may have finished it, or given it up.
            if _is_at(fd, self._part(sha256)) and not self._shard(sha256).exists():
                return fd
        except OSError:
            os.close(fd)
            return None
        if _is_at(fd, self._part(sha256)):
            self._part(sha256).unlink(missing_ok=True)
        os.close(fd)
        return None

    def _shard(self, sha256: str) -> Path:
        return self.path / (sha256 + _SUFFIX)

    def _part(self, sha256: str) -> Path:
        return self.path / (sha256 + _PART)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A shard that is being fetched; finish it or drop it."""

    fd: int
    """For writing at any place."""
    path: Path
    """Its name until it is finished."""
    target: Path
    """Its name from then on."""

    def write(self, data: bytes, offset: int) -> None:
        """Put `data` at `offset`."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, offset)
            view, offset = view[done:], offset + done

    def finish(self) -> None:
        """Make it a shard."""
        self.path.rename(self.target)
        os.close(self.fd)

    def drop(self) -> None:
        """Give it up."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    size: int
    used_ns: int


def _is_at(fd: int, path: Path) -> bool:
    """Whether `fd` is what stands at `path` now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _remove_unlocked(path: Path) -> bool:
    """Remove `path` unless it is in use."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
