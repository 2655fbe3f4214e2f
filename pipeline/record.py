"""Frozen dataclass ⇄ JSON with checked types, and the fingerprint that ties one record to another.

In: dataclasses of str, int, float, bool, None, datetime, date, Literal, tuple, Mapping and further dataclasses.
Out: plain JSON, the same bytes for the same value. Not a framework: no coercion, no defaults of its own.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from pipeline.errors import ContractError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """`value` as what `json` can write."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def dumps(record: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, no NaN. Equal records give equal bytes."""
    text = json.dumps(to_json(record), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode()


def fingerprint(record: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(dumps(record)).hexdigest()


def loads(cls: type[T], data: bytes, *, where: str) -> T:
    """The record of type `cls` in `data`; `where` names the file in the error.

    Raises:
        ContractError: not JSON, a key too many or too few, or a value of another type.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ContractError(f"{where} is not JSON: {error}. The file is damaged: write it again.") from error
    checked: T = from_json(cls, value, where=where)
    return checked


def from_json(cls: Any, value: Any, *, where: str) -> Any:
    """`value` (from `json`) as an instance of `cls`, every type checked on the way down."""
    if cls in _SCALARS:
        return _SCALARS[cls](value, where)
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls, value, where)
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin is typing.Literal:
        return value if value in args else _fail(value, f"one of {list(args)}", where)
    if origin in (typing.Union, types.UnionType):
        return _optional(args, value, where)
    if origin is tuple:
        return _tuple(args, value, where)
    return _mapping(args, value, where)


def _fail(value: object, expected: str, where: str) -> typing.NoReturn:
    raise ContractError(
        f"{where} must be {expected} but is {value!r}. It was written by something else: write it again."
    )


def _scalar(cls: type) -> Callable[[Any, str], Any]:
    def check(value: Any, where: str) -> Any:
        return value if type(value) is cls else _fail(value, cls.__name__, where)

    return check


def _number(value: Any, where: str) -> float:
    return float(value) if type(value) in (int, float) else _fail(value, "a number", where)


def _time(cls: type[date]) -> Callable[[Any, str], date]:
    def check(value: Any, where: str) -> date:
        try:
            return cls.fromisoformat(value)
        except (TypeError, ValueError):
            _fail(value, f"an ISO {cls.__name__}", where)

    return check


_SCALARS: Mapping[Any, Callable[[Any, str], Any]] = {
    str: _scalar(str),
    int: _scalar(int),
    bool: _scalar(bool),
    type(None): _scalar(type(None)),
    float: _number,
    datetime: _time(datetime),
    date: _time(date),
}


def _dataclass(cls: Any, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(value, dict) or set(value) != names:
        _fail(
            value if not isinstance(value, dict) else sorted(value),
            f"an object with keys {sorted(names)}",
            where,
        )
    return cls(**{name: from_json(hints[name], value[name], where=f"{where}.{name}") for name in names})


def _optional(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    return from_json(next(arg for arg in args if arg is not type(None)), value, where=where)


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _fail(value, "a list", where)
    kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
    if len(kinds) != len(value):
        _fail(value, f"a list of {len(kinds)}", where)
    return tuple(
        from_json(kind, item, where=f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _mapping(args: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(value, "an object", where)
    return {key: from_json(args[1], item, where=f"{where}[{key!r}]") for key, item in value.items()}
