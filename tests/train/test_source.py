"""Bytes of shards from files of this machine: what is there now, and no more open files than allowed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import Store
from train.stream import source
from train.stream.source import Files, OpenFile, source_of

pytestmark = pytest.mark.train
SPANS = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 50)), min_size=1, max_size=4)
DATA = bytes(range(100))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@given(spans=SPANS)
def test_a_store_and_a_file_give_the_same(
    spans: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    local, memory = Store.at(str(tmp_path_factory.mktemp("files"))), Store.at("memory://source")
    for store in (local, memory):
        store.publish("a.tar", DATA)
        assert source_of(store).read("a.tar", spans) == [DATA[offset : offset + size] for offset, size in spans]
    assert isinstance(source_of(local), Files)


def test_what_was_replaced_is_read_anew_when_told(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    store.publish("a.tar", b"old")
    files = source_of(store)
    assert files.read("a.tar", [(0, 3)]) == [b"old"]
    store.publish("a.tar", b"new")
    files.forget("a.tar")
    assert files.read("a.tar", [(0, 3)]) == [b"new"]
    store.remove("a.tar")
    files.forget("a.tar")
    with pytest.raises(FileNotFoundError):
        files.read("a.tar", [(0, 3)])


def test_few_files_stay_open_and_none_after_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "OPEN_FILES", 3)
    store = Store.at(str(tmp_path))
    for number in range(9):
        store.publish(f"{number}.tar", bytes([number]))
    before = open_files()
    files = Files(store)
    for number in [*range(9), 8, 3]:
        assert files.read(f"{number}.tar", [(0, 1)]) == [bytes([number])]
    assert open_files() == before + 3
    files.close()
    assert open_files() == before


def test_a_file_that_is_read_from_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    file = OpenFile.at(str(tmp_path / "a"))
    (tmp_path / "a").unlink()
    assert file.read([(10, 2), (98, 9)]) == [DATA[10:12], DATA[98:]]
