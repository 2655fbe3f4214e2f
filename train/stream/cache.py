"""Whole shards of a store, fetched ahead of need into a folder of this machine, and read from there.

A sample whose shard is not here is read by its range, so the cache is never what a run waits for or fails of: not at
the start, when nothing is here; not when the disk is full; not when all of the limit is in use. Only a shard that is
on its way already is waited for, since its bytes are then nearly here.

Why whole shards: a lane reads all samples of a shard within a few steps, and a request costs as much processor time as
a sample's decoding.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train.stream.cachedir import CacheFolder, CacheFullError, Part
from train.stream.source import OpenFile, Ranges, Span

PART_BYTES = 8 << 20
"""Of one request."""
SHARDS_AT_ONCE, PARTS_AT_ONCE = 4, 8


@dataclass(slots=True, kw_only=True, eq=False)
class CacheCounts:
    """For the rows of a run."""

    hits: int = 0
    """Samples read from the folder."""
    misses: int = 0
    """Samples read by range."""


class CachedShards:
    """A `Source` that fetches what is wanted, in the order in which it is wanted."""

    reads_ahead: ClassVar[bool] = True

    def __init__(
        self, store: Store, shards: Mapping[str, tuple[str, int]], folder: CacheFolder, *, say: Callable[[str], None]
    ) -> None:
        """Nothing is fetched yet.

        Args:
            store: of the shards.
            shards: SHA-256 and bytes of each, by name.
            folder: where they are kept.
            say: told once when the cache cannot be used as it is meant.
        """
        self._store, self._shards, self._folder, self.say = store, shards, folder, say
        self._ranges = Ranges(store)
        self._wanted: dict[str, None] = {}
        self._files: dict[str, OpenFile] = {}
        self._coming: dict[str, Future[Any]] = {}
        self._begun: set[str] = set()
        self._lock = Lock()
        self._said = False
        self._closed = False
        self.counts = CacheCounts()
        self._fetchers = ThreadPoolExecutor(SHARDS_AT_ONCE, thread_name_prefix="shards")
        self._requests = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="ranges")

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it begins anew, on the same folder, and says nothing until told to whom."""
        return partial(CachedShards, say=_unheard), (self._store, dict(self._shards), self._folder)

    def read(self, shard: str, spans: Sequence[Span]) -> list[bytes]:
        """As the protocol says."""
        file = self._files.get(shard) or self._arriving(shard)
        if file is None:
            self.counts.misses += 1
            return self._ranges.read(shard, spans)
        self.counts.hits += 1
        return file.read(spans)

    def want(self, shards: Iterable[str]) -> None:
        """Let go of what is no longer wanted, then fetch what is not here."""
        with self._lock:
            self._wanted = dict.fromkeys(shards)
            self._files = {name: file for name, file in self._files.items() if name in self._wanted}
            new = [name for name in self._wanted if name not in self._files and name not in self._coming]
            for name in new:
                self._coming[name] = self._fetchers.submit(self._fetch, name)

    def forget(self, shard: str) -> None:
        """Remove it here, so that it is read from the store."""
        with self._lock:
            self._files.pop(shard, None)
        self._folder.remove(self._shards[shard][0])

    def close(self) -> None:
        """End the threads; what is being fetched is given up."""
        self._closed = True
        self._fetchers.shutdown(wait=True, cancel_futures=True)
        self._requests.shutdown(wait=True, cancel_futures=True)
        self._files = {}

    def _arriving(self, shard: str) -> OpenFile | None:
        """The shard, if its fetch has begun, once it has ended."""
        coming = self._coming.get(shard)
        if coming is not None and shard in self._begun:
            coming.result()
        return self._files.get(shard)

    def _fetch(self, shard: str) -> None:
        """Bring one shard here, if it is still wanted; never fails."""
        try:
            if shard in self._wanted and not self._closed:
                self._begun.add(shard)
                self._keep(shard, self._claim(shard) or self._download(shard))
        except (OSError, CacheFullError, PretrainError) as error:
            self._tell(f"{shard} is not cached: {error}. Its samples are read one by one, which costs more requests.")
        finally:
            with self._lock:
                self._begun.discard(shard)
                self._coming.pop(shard, None)

    def _keep(self, shard: str, file: OpenFile | None) -> None:
        with self._lock:
            if file is not None and shard in self._wanted:
                self._files[shard] = file

    def _claim(self, shard: str) -> OpenFile | None:
        fd = self._folder.claim(self._shards[shard][0])
        return None if fd is None else OpenFile(fd)

    def _download(self, shard: str) -> OpenFile | None:
        """None where another process fetches it: until that is done it is read by range."""
        sha256, size = self._shards[shard]
        part = self._folder.begin(sha256, size)
        if part is None:
            return self._claim(shard)
        try:
            self._transfer(shard, part, size)
        except BaseException:
            part.drop()
            raise
        part.finish()
        return self._claim(shard)

    def _transfer(self, shard: str, part: Part, size: int) -> None:
        """All ranges at once; when one fails the others are waited for, since they write to the same file."""
        starts = range(0, size, PART_BYTES)
        parts = [self._requests.submit(self._part, shard, part, start, size) for start in starts]
        _, pending = wait(parts, return_when=FIRST_EXCEPTION)
        for one in pending:
            one.cancel()
        wait(parts)
        came = sum(one.result() for one in parts)
        if came != size:
            raise OSError(errno.EIO, f"{came} of its {size} bytes came")

    def _part(self, shard: str, part: Part, start: int, size: int) -> int:
        """Fetch one range; the store tries a broken one again."""
        if self._closed:
            return 0
        data = self._store.read_range(shard, start, min(start + PART_BYTES, size))
        part.write(data, start)
        return len(data)

    def _tell(self, text: str) -> None:
        if not self._said:
            self._said = True
            self.say(text)


def _unheard(text: str) -> None:
    """Say nothing."""


def cache_folder(path: str | None, limit_gb: float | None) -> CacheFolder | None:
    """Where shards are kept, and how many; None: nowhere.

    Args:
        path: None: in the machine's folder for what may be lost, one for each user.
        limit_gb: gigabytes. None: half of what is free there, and what is kept there already. 0: nothing is kept.
    """
    if limit_gb == 0:
        return None
    folder = Path(path or tempfile.gettempdir()) / f"sentinel-pretrain-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"--cache {folder}: {error.strerror}. Give a folder that you may write to.") from error
    used = CacheFolder(path=folder, limit=0).used()
    return CacheFolder(path=folder, limit=used + free // 2 if limit_gb is None else int(limit_gb * 1e9))
