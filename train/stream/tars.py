"""Tars from end to end: which members a sample has, where their bytes lie, and whether the tar is whole.

Keys and groups are webdataset's: its function splits names, and its reader is the oracle in the tests. `tarfile` reads
the headers; what it takes for an early end (a damaged header, no end marker) is refused here.

Why not webdataset's reader itself: it does not say where a member's bytes lie, and it takes a tar that is cut between
two members for a whole one.
"""

import hashlib
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from webdataset.tariterators import base_plus_ext

from pipeline.errors import ContractError, CorruptShard, PretrainError, UsageError
from pipeline.index import MemberRef, crc32c
from pipeline.store import Store

CHUNK_BYTES = 8 * 2**20
"""Of a read. With one member's bytes it is all that is held."""
_SKIPPED = re.compile(r"__[^/]*__($|/)")
"""webdataset's own members: metadata of a tar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The wanted members of one sample."""

    key: str
    """webdataset's: the name up to the first dot of its last part."""
    refs: Mapping[str, MemberRef]
    """By suffix."""
    texts: Mapping[str, bytes]
    """By suffix: whole members, where asked for."""
    suffixes: frozenset[str]
    """All that the sample has."""


@dataclass(slots=True, kw_only=True)
class Tape:
    """A tar that is read once, forwards, in large pieces; a file object for `tarfile`."""

    store: Store
    """Where it lies."""
    name: str
    """In the store."""
    size: int = 0
    """Bytes."""
    last: bytes = b""
    """What the last read gave."""
    _sha: Any = field(default_factory=hashlib.sha256)
    _chunk: bytes = b""
    _start: int = 0
    _at: int = 0

    def __post_init__(self) -> None:
        """Find its size."""
        if not self.store.exists(self.name):
            raise UsageError(f"{self.url} is not there. Correct --tars, or `tar` in the map.")
        with self.store.telling(self.name):
            size = self.store.fs.info(self.store.path(self.name))["size"]
        if size is None:
            raise UsageError(f"{self.url}: the server does not say its size, so it has no ranged reads. Copy it.")
        self.size = int(size)

    @property
    def url(self) -> str:
        """For messages."""
        return f"{self.store.url.rstrip('/')}/{self.name}"

    @property
    def sha256(self) -> str:
        """Of what has been fetched, hex."""
        return str(self._sha.hexdigest())

    def tell(self) -> int:
        """Bytes from the start."""
        return self._start + self._at

    def seek(self, position: int) -> int:
        """Go forwards."""
        while position > self.tell() and self._filled():
            self._at = min(position - self._start, len(self._chunk))
        return self.tell()

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        parts: list[bytes] = []
        while count > 0 and self._filled():
            parts.append(self._chunk[self._at : self._at + count])
            self._at += len(parts[-1])
            count -= len(parts[-1])
        self.last = parts[0] if len(parts) == 1 else b"".join(parts)
        return self.last

    def _filled(self) -> bool:
        """Whether there are bytes ahead."""
        if self._at < len(self._chunk):
            return True
        self._start, self._at = self.tell(), 0
        stop = min(self._start + CHUNK_BYTES, self.size)
        self._chunk = self.store.read_range(self.name, self._start, stop) if self._start < stop else b""
        self._sha.update(self._chunk)
        return bool(self._chunk)


def scan(tape: Tape, wanted: Collection[str], *, texts: Collection[str] = ()) -> Iterator[Found]:
    """The samples of a tar, as webdataset groups them, with the members of suffixes `wanted` and `texts`.

    Raises:
        CorruptShard: the tar is damaged or cut short; names the tar, the last good member and the byte.
        ContractError: a sample has a member twice, or a wanted member is sparse.
    """
    key, seen = "", set[str]()
    refs: dict[str, MemberRef] = {}
    kept: dict[str, bytes] = {}
    for name, info in _members(tape):
        prefix, suffix = base_plus_ext(name)
        if prefix is None:
            continue
        if seen and prefix != key:
            yield Found(key=key, refs=refs, texts=kept, suffixes=frozenset(seen))
            refs, kept, seen = {}, {}, set()
        key, suffix = prefix, suffix.lower()
        if suffix in seen:
            raise ContractError(f"{tape.url} has {name} twice in one sample. Write that tar again.")
        seen.add(suffix)
        if suffix in wanted or suffix in texts:
            data = _data(tape, info)
            refs[suffix] = MemberRef(offset=info.offset_data, size=len(data), crc32c=crc32c(data))
            kept |= {suffix: data} if suffix in texts else {}
    if seen:
        yield Found(key=key, refs=refs, texts=kept, suffixes=frozenset(seen))


def _members(tape: Tape) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Regular members that webdataset does not skip."""
    last = "its beginning"
    with _open(tape) as tar:
        while True:
            start = tar.offset
            try:
                info = tar.next()
            except PretrainError:
                raise
            except Exception as error:  # damaged headers make tarfile raise nearly anything
                raise _damaged(tape, start, last, str(error)) from error
            if info is None:
                _check_end(tape, start, last)
                return
            tar.members.clear()  # or it would remember every header
            if info.isreg() and not _SKIPPED.match(info.name):
                yield info.name, info
            last = info.name


def _open(tape: Tape) -> Any:
    try:
        return tarfile.open(fileobj=cast("Any", tape), mode="r:")
    except tarfile.TarError as error:
        zipped = tape.last[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")
        why = "it is compressed, and ranges of it cannot be read: unpack it" if zipped else str(error)
        raise _damaged(tape, 0, "its beginning", why) from error


def _data(tape: Tape, info: tarfile.TarInfo) -> bytes:
    if info.issparse():
        raise ContractError(f"{tape.url}: {info.name} is a sparse member, with no range of its own. Write it plainly.")
    tape.seek(info.offset_data)
    data = tape.read(info.size)
    if len(data) != info.size:
        raise _damaged(tape, info.offset_data, info.name, f"only {len(data)} of its {info.size} bytes are there")
    return data


def _check_end(tape: Tape, start: int, last: str) -> None:
    """Raise unless the tar ends with an end marker, and nothing but zeros comes behind it."""
    if tape.last != bytes(tarfile.BLOCKSIZE):
        why = "a header is damaged" if len(tape.last) == tarfile.BLOCKSIZE else "it ends without an end marker"
        raise _damaged(tape, start, last, why)
    while data := tape.read(CHUNK_BYTES):
        if data.strip(b"\0"):
            raise _damaged(tape, start, last, "zeros stand where a header is due, and more comes behind them")


def _damaged(tape: Tape, position: int, last: str, why: str) -> CorruptShard:
    place = min(position, tape.size)
    return CorruptShard(f"{tape.url} is damaged at byte {place}, at or after {last}: {why}. Copy that tar again.")
