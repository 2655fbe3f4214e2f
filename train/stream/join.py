"""Members found in foreign tars → rows of the index: joined over tars by key, placed, and given a split. Pure.

What is not known stays unknown: longitude and latitude are NaN, the time is null, and the key is its own group.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any

from pipeline.errors import ContractError
from pipeline.index import IndexRow, MemberRef
from train.stream.foreign import Foreign, Meta, Split
from train.stream.tars import Found

BLOCK_DEG = 0.05
"""Degrees. Side of the blocks of ground that a split keeps together; about 5.5 km."""
ACCEPTED, INCOMPLETE, OTHER = "accepted", "incomplete", "without a mapped member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The samples of one tar, and of those beside it."""

    rows: tuple[IndexRow, ...]
    """In the tar's order."""
    counts: Mapping[str, int]
    """Samples by outcome."""


def join(foreign: Foreign, shard: str, tars: Mapping[str, Iterable[Found]], *, url: str, skip: bool) -> Joined:
    """The rows of a shard.

    Args:
        foreign: what the members are.
        shard: name of the tar, as the index has it.
        tars: samples of all tars that its members lie in, its own first.
        url: of the tar, for patterns of the split.
        skip: leave samples out that lack a member, rather than refuse them.

    Raises:
        ContractError: a sample lacks a member, its members are not adjacent, or its place cannot be.
    """
    found = {tar: _by_key(tar, samples) for tar, samples in tars.items()}
    rows, counts = [], Counter[str]()
    for key in dict.fromkeys(key for samples in found.values() for key in samples):
        here = {tar: samples[key] for tar, samples in found.items() if key in samples}
        refs = _refs(foreign, shard, here)
        missing = [name for name in foreign.members if name not in refs]
        if missing and not skip and refs:
            raise ContractError(_lacks(foreign, shard, missing, here))
        outcome = OTHER if not refs else INCOMPLETE if missing else ACCEPTED
        counts[outcome] += 1
        if outcome == ACCEPTED:
            rows.append(_row(foreign, shard, here[shard], refs, url=url))
    return Joined(rows=tuple(rows), counts=counts)


def split_of(split: Split, url: str, group: str) -> str:
    """`train` or `val`: by the tar's URL, or by a hash of the group."""
    digest = hashlib.blake2b(f"{split.seed}:{group}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64 * 100
    return "val" if any(fnmatch(url, one) for one in split.val_tars) or share < split.val_percent else "train"


def facts(meta: Meta, texts: Mapping[str, bytes], *, where: str) -> tuple[float, float, datetime | None]:
    """Longitude, latitude and time, as far as a sample's JSON member tells them.

    Raises:
        ContractError: the member is not JSON, or the place is nowhere on Earth.
    """
    if meta.suffix is None or meta.suffix not in texts:
        return math.nan, math.nan, None
    try:
        told = json.loads(texts[meta.suffix])
    except ValueError as error:
        raise ContractError(f"{where}.{meta.suffix} is not JSON: {error}. Correct `meta` in the map.") from error
    lon, lat = (_number(_look(told, path)) for path in (meta.lon, meta.lat))
    if abs(lon) > 180 or abs(lat) > 90:
        raise ContractError(f"{where}.{meta.suffix} says lon {lon}, lat {lat}. Correct `lon` and `lat` in the map.")
    return lon, lat, _time(_look(told, meta.time))


def _by_key(tar: str, samples: Iterable[Found]) -> dict[str, Found]:
    """Samples by key; those of no mapped member may share one."""
    found: dict[str, Found] = {}
    for one in samples:
        if one.refs and one.key in found and found[one.key].refs:
            raise ContractError(f"{tar} has {one.key} twice, or its members are not adjacent. Write that tar again.")
        if one.refs or one.key not in found:
            found[one.key] = one
    return found


def _refs(foreign: Foreign, shard: str, here: Mapping[str, Found]) -> dict[str, MemberRef]:
    refs = {}
    for name, member in foreign.members.items():
        tar = foreign.tar_of(name, shard)
        if tar in here and member.suffix in here[tar].refs:
            refs[name] = here[tar].refs[member.suffix]
    return refs


def _lacks(foreign: Foreign, shard: str, missing: list[str], here: Mapping[str, Found]) -> str:
    wanted = [f"{foreign.members[name].suffix} in {foreign.tar_of(name, shard)}" for name in missing]
    key, *_ = (one.key for one in here.values())
    has = sorted({suffix for one in here.values() for suffix in one.suffixes})
    return (
        f"{key} of {shard} has no {' and no '.join(wanted)}, only {has}. "
        "Correct the map or the tar, or leave such samples out with --skip-incomplete."
    )


def _row(foreign: Foreign, shard: str, own: Found, refs: Mapping[str, MemberRef], *, url: str) -> IndexRow:
    lon, lat, time = facts(foreign.meta, own.texts, where=f"{own.key} of {shard}")
    known = not (math.isnan(lon) or math.isnan(lat))
    group = f"{math.floor(lat / BLOCK_DEG)}:{math.floor(lon / BLOCK_DEG)}" if known else own.key
    return IndexRow(
        shard=shard,
        key=own.key,
        split=split_of(foreign.split, url, group),
        group=group,
        lon=lon,
        lat=lat,
        time=time,
        gap_hours=None,
        cloud=None,
        shift=None,
        members=refs,
    )


def _look(value: Any, path: str | None) -> Any:
    """What lies at a dotted path; None where nothing does."""
    if path is None:
        return None
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else math.nan


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
