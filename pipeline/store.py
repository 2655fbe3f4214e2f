"""The only user of fsspec: one folder on any file system, read and published to by relative names.

Why a record and not free functions: the root is parsed, and its credentials looked up, once; everything that flows
between the stages is then a relative name, so a data set can be moved or copied as a folder.

`publish` is atomic: on a local disk by fsync and rename, on an object store because one PUT is. A reader sees the old
bytes, the new bytes or nothing.
"""

import contextlib
import dataclasses
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import SourceError, UsageError, redact
from pipeline.ranges import ReadRange, faster_reads
from pipeline.traffic import Traffic

T = TypeVar("T")

TRIES = 5
"""How often an operation is tried before it fails for good."""
_PART = ".part-"
_STALE_S = 3600.0
_SILENT_S = 30
_TRANSPORTS = {"aiobotocore", "aiohttp", "botocore", "obstore"}
"""Packages whose errors are no OSErrors: no credentials, no answer, a gateway's 503."""
_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder on a file system that fsspec knows."""

    fs: Any = field(repr=False)
    """The fsspec file system; holds credentials, so it stays out of `repr`."""
    root: str
    """The folder, without protocol."""
    url: str
    """What the user wrote, redacted: for messages and manifests."""
    ranges: ReadRange | None = field(default=None, repr=False)
    """A faster way to read ranges than the file system's own."""
    traffic: Traffic = field(default_factory=Traffic, repr=False)
    """Counts, shared by all folders within this one."""

    @staticmethod
    def at(url: str | os.PathLike[str]) -> "Store":
        """The store at `url` (`s3://bucket/run`, `memory://x`, a local path).

        Raises:
            UsageError: the protocol is unknown or its package is missing.
        """
        text = os.fspath(url)
        if not text or "\0" in text:
            raise UsageError(f"{text!r} is no place. Give a path, s3://, memory:// or http(s)://.")
        try:
            # No listings cache: other processes write here too, and a remembered listing hides what they wrote.
            fs, root = fsspec.core.url_to_fs(text, use_listings_cache=False, **_deadlines(text))
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"cannot open {redact(text)}: {error}. Use a path, s3://, memory:// or http(s)://."
            ) from error
        ranges = faster_reads(fs) if "s3" in _protocols(fs) else None
        return Store(fs=fs, root=root.rstrip("/"), url=redact(text), ranges=ranges)

    @property
    def is_local(self) -> bool:
        """On this machine's disk: paths may be handed to code that knows no fsspec."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def is_in_process(self) -> bool:
        """Lives in this process's memory: worker processes cannot see it."""
        return isinstance(self.fs, MemoryFileSystem)

    def path(self, name: str) -> str:
        """`name` as the file system's own path."""
        return f"{self.root}/{name}" if name else self.root

    def within(self, name: str) -> "Store":
        """The folder `name` below this one."""
        return dataclasses.replace(self, root=self.path(name), url=f"{self.url.rstrip('/')}/{name}")

    def exists(self, name: str) -> bool:
        """Whether `name` is there now."""
        self.fs.invalidate_cache()
        try:  # not fs.exists: it takes every failure for absence
            self.attempt(lambda: self.fs.info(self.path(name)), name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, name: str) -> bytes:
        """All bytes of `name`.

        Raises:
            FileNotFoundError: it is not there.
            SourceError: the store kept failing.
        """
        data = bytes(self.attempt(lambda: self.fs.cat_file(self.path(name)), name))
        self.traffic.read(len(data))
        return data

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (excluded) of `name`; fewer where the file ends before.

        Raises:
            FileNotFoundError: it is not there.
            SourceError: the store kept failing, or knows no ranges.
        """
        read = self.ranges or (lambda path, start, stop: self.fs.cat_file(path, start=start, end=stop))
        data = bytes(self.attempt(lambda: read(self.path(name), start, stop), name))
        if len(data) > stop - start:
            raise SourceError(f"{self.url.rstrip('/')}/{name}: the server ignores ranges. Use one that serves them.")
        self.traffic.read(len(data))
        return data

    def read_end(self, name: str, count: int) -> bytes:
        """The last `count` bytes of `name`, asked for by a range without a start, as zarr asks for a shard's index.

        Raises:
            FileNotFoundError: it is not there.
            SourceError: the store kept failing.
        """
        data = bytes(self.attempt(lambda: self.fs.cat_file(self.path(name), start=-count), name))
        self.traffic.read(len(data))
        return data

    def names(self, folder: str = "") -> list[str]:
        """Names directly in `folder`, relative to it, sorted; empty where it does not exist."""
        self.fs.invalidate_cache()
        try:
            found = self.attempt(lambda: self.fs.ls(self.path(folder), detail=False), folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (str(item).rstrip("/").rpartition("/")[2] for item in found)
        return sorted(name for name in names if not name.startswith(_PART))

    def publish(self, name: str, data: bytes) -> None:
        """Write `data` to `name` so that no reader ever sees a part of it.

        Raises:
            UsageError: the place is a file, is missing, or may not be written to.
            SourceError: the store kept failing, or the disk is full.
        """
        write = self._publish_local if self.is_local else self._publish_object
        try:
            self.attempt(lambda: write(self.path(name), data), name)
        except _FINAL as error:
            raise UsageError(
                f"cannot write {name} to {self.url}: {redact(str(error))}. Give a place that you may write to."
            ) from error

    def create(self, name: str, data: bytes) -> bool:
        """Write `data` to `name` unless it is there already; whether it was written.

        Of many writers at once one writes, where the store `creates_once`.

        Raises:
            UsageError: the place may not be written to.
            SourceError: the store kept failing.
        """
        create = self._create_local if self.is_local else self._create_object
        return self.attempt(lambda: create(self.path(name), data), name)

    def creates_once(self, name: str) -> bool:
        """Whether this store refuses to create what is there already, tried on `name`, which is removed again.

        Some stores take the condition of a put and ignore it (s3rver), or do not know it (Swift).
        """
        self.publish(name, b"first")
        try:
            refused = not self.create(name, b"second") and self.read(name) == b"first"
        except SourceError:
            refused = False
        self.remove(name)
        return refused

    def remove(self, name: str) -> None:
        """Remove the file or folder `name`; nothing happens where it is not there."""
        if self.exists(name):
            self.attempt(lambda: self.fs.rm(self.path(name), recursive=True), name)

    def discard(self, name: str) -> None:
        """Remove the file `name`, in one request; nothing happens where it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self.attempt(lambda: self.fs.rm_file(self.path(name)), name)

    def sweep(self, folder: str) -> None:
        """Remove what writers that were killed over an hour ago left in `folder`: files that never got their name."""
        if self.is_local:
            for path in Path(self.path(folder)).glob(f"{_PART}*"):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink(missing_ok=True)

    def _publish_object(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(path, data)

    def _create_object(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # s3fs passes on some stores' refusals as they are (Ceph).
            if "PreconditionFailed" in str(error) or "412" in str(error):
                return False
            raise
        return True

    def _create_local(self, path: str, data: bytes) -> bool:
        with self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        return True

    def _publish_local(self, path: str, data: bytes) -> None:
        with self._temporary(path, data) as temporary:
            temporary.replace(path)

    @contextmanager
    def _temporary(self, path: str, data: bytes) -> Iterator[Path]:
        """A file with `data` on the disk, beside `path`; what is left of it behind is removed."""
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=_PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            yield Path(temporary)
        finally:
            Path(temporary).unlink(missing_ok=True)

    @contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """Turn what other libraries raise while they write to `name` (zarr) into an error of ours."""
        try:
            yield
        except Exception as error:
            if not _is_transport(error):
                raise
            where = redact(f"{self.url.rstrip('/')}/{name}")
            raise SourceError(f"{where} failed: {redact(str(error))}. {self._advice}") from error

    @property
    def _advice(self) -> str:
        """What to do about a store that fails."""
        if self.is_local:
            return "Make room, then run again."
        return "Wait, or see to its address, the credentials and the network, then run again."

    def attempt(self, operation: Callable[[], T], name: str) -> T:
        """Run `operation`, which works on `name` in this store: again after a failure on its way, and not on a disk.

        Raises:
            FileNotFoundError: and other answers that will not change.
            UsageError: it may not be done.
            SourceError: it kept failing.
        """
        for attempt in range(TRIES):
            try:
                return operation()
            except PermissionError as error:
                raise UsageError(
                    f"{self.url.rstrip('/')}/{name}: {redact(str(error))}. "
                    "Give credentials, or a place that you may use."
                ) from error
            except _FINAL:
                raise
            except Exception as error:
                if not _is_transport(error):
                    raise
                if attempt == TRIES - 1 or self.is_local:
                    where = redact(f"{self.url.rstrip('/')}/{name}")
                    raise SourceError(f"{where} failed: {redact(_first_line(error))}. {self._advice}") from error
            self.traffic.retried()
            time.sleep(_pause_s(attempt))
        raise AssertionError  # the last attempt returns or raises


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _deadlines(url: str) -> dict[str, Any]:
    """How long S3 may stay silent, unless fsspec was configured; this store's own retries come on top."""
    if not url.startswith(("s3://", "s3a://")) or "config_kwargs" in fsspec.config.conf.get("s3", {}):
        return {}
    return {"config_kwargs": {"connect_timeout": 10, "read_timeout": _SILENT_S, "retries": {"max_attempts": 1}}}


def _first_line(error: Exception) -> str:
    """What people can read: obstore adds pages for its developers."""
    return next(iter(str(error).splitlines()), "") or repr(error)


def _is_transport(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS


def _pause_s(attempt: int) -> float:
    """Seconds to wait: exponential with full jitter, so that many workers do not come back at once."""
    return random.uniform(0, 0.2 * 2**attempt)  # noqa: S311  not cryptography
