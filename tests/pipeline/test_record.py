"""Round trips of records, and that nothing of another type gets in."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import record
from pipeline.errors import ContractError


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    text: str
    number: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    whole: int
    flag: bool
    maybe: str | None
    kind: Literal["pair", "stack"]
    moment: datetime
    day: date | None
    point: tuple[float, float]
    names: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    ids: Mapping[str, tuple[str, ...]]


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_LEAVES = st.builds(Leaf, text=_TEXT, number=_FLOATS)
TREES = st.builds(
    Tree,
    whole=st.integers(),
    flag=st.booleans(),
    maybe=st.none() | _TEXT,
    kind=st.sampled_from(["pair", "stack"]),
    moment=st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    day=st.none() | st.dates(),
    point=st.tuples(_FLOATS, _FLOATS),
    names=st.lists(_TEXT, max_size=3).map(tuple),
    leaves=st.lists(_LEAVES, max_size=2).map(tuple),
    by_name=st.dictionaries(_TEXT, _LEAVES, max_size=2),
    ids=st.dictionaries(_TEXT, st.lists(_TEXT, max_size=2).map(tuple), max_size=2),
)


@given(TREES)
def test_round_trip(tree: Tree) -> None:
    data = record.dumps(tree)
    assert record.loads(Tree, data, where="tree") == tree
    assert record.dumps(record.loads(Tree, data, where="tree")) == data


@given(TREES)
def test_equal_records_have_equal_fingerprints_whatever_the_order_of_a_mapping(tree: Tree) -> None:
    turned = record.loads(Tree, record.dumps(tree), where="tree")
    back = dict(reversed(list(turned.by_name.items())))
    other = Tree(**{name: getattr(turned, name) for name in Tree.__slots__} | {"by_name": back})
    assert record.fingerprint(other) == record.fingerprint(tree)
    changed = Tree(**{name: getattr(turned, name) for name in Tree.__slots__} | {"whole": tree.whole + 1})
    assert record.fingerprint(changed) != record.fingerprint(tree)


def test_bytes_are_canonical() -> None:
    assert record.dumps(Leaf(text="ü", number=1.0)) == '{"number":1.0,"text":"ü"}'.encode()
    east = datetime.fromisoformat("2023-06-10T09:46:21+02:00")
    assert record.to_json(east) == "2023-06-10T07:46:21Z"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.dumps(Leaf(text="", number=value))


_GOOD: dict[str, Any] = {
    "whole": 1,
    "flag": True,
    "maybe": None,
    "kind": "pair",
    "moment": "2023-06-10T07:46:21Z",
    "day": None,
    "point": [1, 2.5],
    "names": ["a"],
    "leaves": [{"text": "a", "number": 1}],
    "by_name": {"a": {"text": "a", "number": 1}},
    "ids": {"s2": ["x"]},
}


def test_the_good_one_is_good() -> None:
    tree = record.loads(Tree, json.dumps(_GOOD).encode(), where="tree")
    assert tree.point == (1.0, 2.5)
    assert type(tree.point[0]) is float
    assert tree.moment == datetime(2023, 6, 10, 7, 46, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", 1.0),
        ("whole", True),
        ("whole", "1"),
        ("flag", 1),
        ("maybe", 3),
        ("kind", "triple"),
        ("moment", "yesterday"),
        ("moment", 3),
        ("day", "2023-13-01"),
        ("point", [1.0]),
        ("point", [1.0, 2.0, 3.0]),
        ("point", [1.0, "2"]),
        ("point", [1.0, True]),
        ("names", "ab"),
        ("leaves", [{"text": "a"}]),
        ("leaves", [{"text": "a", "number": 1, "more": 2}]),
        ("by_name", []),
        ("ids", {"s2": [1]}),
    ],
)
def test_another_type_is_refused_with_its_place(name: str, value: Any) -> None:
    with pytest.raises(ContractError, match=rf"tree\.{name}"):
        record.loads(Tree, json.dumps({**_GOOD, name: value}).encode(), where="tree")


@pytest.mark.parametrize("name", list(_GOOD))
def test_a_missing_key_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="object with keys"):
        record.from_json(Tree, {key: value for key, value in _GOOD.items() if key != name}, where="tree")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"'])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ContractError, match="tree"):
        record.loads(Tree, data, where="tree")
