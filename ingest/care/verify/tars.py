"""One shard against manifest and index, streamed: memory holds one block and one sample, however large the tar."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ingest.care.samples import Row, place, tar_name
from ingest.care.verify.finding import Finding, make_again
from pipeline.index import crc32c
from pipeline.manifest import Manifest, ShardEntry
from pipeline.store import Store

BLOCK = 8 * 2**20
"""Bytes of one request."""
Look = Callable[[Row, Mapping[str, bytes]], Iterator[Finding]]
"""(index row, members by tar name) → what is wrong with the sample."""


class _Hashed:
    """A shard as a file that is read once from its start, hashed on the way."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._block, self._at = b"", 0
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        parts = []
        while size > 0 and self._fill():
            part = self._block[self._at : self._at + size]
            parts.append(part)
            self._at, size = self._at + len(part), size - len(part)
        return b"".join(parts)

    def finish(self) -> str:
        """SHA-256 of the whole file."""
        while self._fill():
            self._at = len(self._block)
        return self._hash.hexdigest()

    def _fill(self) -> bool:
        if self._at < len(self._block):
            return True
        if self._block and len(self._block) < BLOCK:
            return False
        self._block, self._at = self._store.read_range(self._name, self.size, self.size + BLOCK), 0
        self._hash.update(self._block)
        self.size += len(self._block)
        return bool(self._block)


def check_shard(
    store: Store, entry: ShardEntry, rows: Sequence[Row] | None, *, known: Manifest, unit_id: str, look: Look
) -> Iterator[Finding]:
    """What is wrong with one shard.

    Args:
        store: of the data set.
        entry: what the manifest says of it.
        rows: what the index says of it, in order; None where the index cannot be read.
        known: the manifest.
        unit_id: who wrote it.
        look: is shown every sample whose bytes are those of the index.
    """

    def wrong(problem: str) -> Finding:
        return Finding(where=entry.path, problem=problem, remedy=make_again(unit_id))

    if rows is not None and len(rows) != entry.samples:
        yield wrong(f"the manifest counts {entry.samples} samples, the index {len(rows)}")
    file = _Hashed(store, entry.path)
    try:
        if rows is not None:
            for problem in _members(file, rows, known, look):
                yield wrong(problem) if isinstance(problem, str) else problem
        digest = file.finish()
    except (FileNotFoundError, NotADirectoryError):
        yield wrong("it is not there")
        return
    if file.size != entry.bytes:
        yield wrong(f"it has {file.size} bytes, the manifest says {entry.bytes}")
    elif digest != entry.sha256:
        yield wrong(f"its SHA-256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}...")


def _members(file: _Hashed, rows: Sequence[Row], known: Manifest, look: Look) -> Iterator[str | Finding]:
    names = [*(spec.name for spec in known.members), "json"]
    found = _entries(file)
    for row in rows:
        members: dict[str, bytes] = {}
        for name in names:
            expected, ref = f"{row['key']}.{tar_name(name, known)}", place(row, name)
            got, offset, data = next(found, ("", 0, b""))
            if (got, offset, len(data)) != (expected, ref.offset, ref.size):
                there = f"{got} of {len(data)} bytes at {offset}" if got else "no member"
                yield f"the index promises {expected} of {ref.size} bytes at byte {ref.offset}, but there is {there}"
                return
            if crc32c(data) == ref.crc32c:
                members[tar_name(name, known)] = data
            else:
                yield f"{expected} (byte {offset}) has another checksum than in the index"
        if len(members) == len(names):
            yield from look(row, members)
    extra, _, _ = next(found, ("", 0, b""))
    if extra:
        yield f"it holds {extra}, which is not in the index"


def _entries(file: Any) -> Iterator[tuple[str, int, bytes]]:
    """Name, offset and bytes of every member, as far as the tar can be read."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                data = tar.extractfile(info)
                yield info.name, info.offset_data, data.read() if data else b""
    except tarfile.TarError:
        return
