"""Encoded samples → the bytes of one tar shard, and where each member lies in it.

Why the standard library's `tarfile` and not webdataset's writer: fixed headers make equal samples equal bytes, and
importing webdataset would import torch. webdataset's own reader is the oracle in the tests.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping

from pipeline.index import MemberRef, crc32c

_BLOCK = tarfile.BLOCKSIZE


def pack(samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> tuple[bytes, list[dict[str, MemberRef]]]:
    """One tar of `samples`, in the given order.

    Args:
        samples: key and members (`{"s2.b2": ..., "json": ...}`) of each sample, members adjacent.

    Returns:
        The tar's bytes, and for each sample the place of each member by its name without codec.
    """
    buffer = io.BytesIO()
    places: list[dict[str, MemberRef]] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            places.append({name.partition(".")[0]: _add(tar, f"{key}.{name}", data) for name, data in members.items()})
    return buffer.getvalue(), places


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> MemberRef:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    start = tar.offset
    tar.addfile(info, io.BytesIO(data))
    return MemberRef(offset=start + _BLOCK, size=len(data), crc32c=crc32c(data))
