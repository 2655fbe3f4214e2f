"""Stores that do not keep what others promise are refused before a data set is begun: each is made, and told."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ingest import probe
from ingest.build import build
from ingest.request import Request
from pipeline.errors import PretrainError
from pipeline.store import Store

pytestmark = pytest.mark.ingest


class Counting(MemoryFileSystem):  # type: ignore[misc]
    """Counts what would be requests."""

    protocol = "counting"
    asked: list[str] = []  # noqa: RUF012  of all instances: fsspec keeps them

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.asked.append("put")
        super().pipe_file(path, value, mode=mode, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.asked.append("get")
        return bytes(super().cat_file(path, start=start, end=end, **kwargs))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.asked.append("list")
        return super().ls(path, detail=detail, **kwargs)

    def rm_file(self, path: str) -> None:
        self.asked.append("remove")
        super().rm_file(self._strip_protocol(path))


class WrongEnds(Counting):
    """Answers a range without a start with the beginning, as s3rver does."""

    protocol = "wrongends"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        wrong = start is not None and start < 0
        return super().cat_file(path, start=0 if wrong else start, end=-start if wrong else end, **kwargs)  # type: ignore[operator]


class WholeObjects(Counting):
    """Knows no ranges."""

    protocol = "wholeobjects"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return super().cat_file(path, **kwargs)


class LateLists(Counting):
    """Lists what is there only later."""

    protocol = "latelists"

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return super().ls(path, detail=detail, **kwargs)[:0]


class LateReads(Counting):
    """Reads the first version of an object for ever."""

    protocol = "latereads"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if not self.exists(path):
            super().pipe_file(path, value, mode=mode, **kwargs)


class Hiding(Counting):
    """Takes everything and gives nothing back."""

    protocol = "hiding"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        raise FileNotFoundError(path)


WRONG: dict[type[Counting], str] = {
    WrongEnds: "the last 100 bytes of an object are not those that were written",
    WholeObjects: "ignores ranges",
    LateLists: r"cannot hold a data set: a listing does not have what was written before it\. Give an --out in another",
    LateReads: "an object that is written again is read as it was before",
    Hiding: "what was written is not there when it is read",
}


@pytest.fixture
def at() -> Callable[[type[Counting]], str]:
    """The address of an empty place in such a store."""

    def make(kind: type[Counting]) -> str:
        fsspec.register_implementation(str(kind.protocol), kind, clobber=True)
        Counting.asked.clear()
        return f"{kind.protocol}://{uuid4().hex}"

    return make


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_wrong_stores_are_refused_and_left_as_they_were(
    kind: type[Counting], at: Callable[[type[Counting]], str], make_request: Callable[..., Request]
) -> None:
    out = at(kind)
    with pytest.raises(PretrainError, match=WRONG[kind]):
        build(make_request(), out, workers=0)
    assert not [path for path in Counting.store if out.partition("://")[2] in path]


def test_a_good_store_costs_five_requests_and_a_removal(at: Callable[[type[Counting]], str]) -> None:
    store = Store.at(at(Counting))
    probe.require(store)
    assert Counting.asked == ["put", "put", "get", "get", "list", "remove"]
    assert store.names() == []


def test_only_a_data_set_that_is_begun_asks(
    at: Callable[[type[Counting]], str], make_request: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = at(Counting), list[str]()
    monkeypatch.setattr(probe, "require", lambda store: asked.append(store.url))
    built = build(make_request(), out, workers=0)
    assert asked == [out]
    Store.at(out).remove("manifest.json")
    assert build(make_request(), out, workers=0) == built == build(make_request(), out, workers=0)
    assert asked == [out]
