"""One folder on any file system: local and memory agree, publishing is atomic, failures are retried or told."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import store as module
from pipeline.errors import SourceError, UsageError
from pipeline.store import TRIES, Store


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    addresses = {"local": str(tmp_path / "run"), "file": f"file://{tmp_path}/run", "memory": f"memory://{uuid4().hex}"}
    return Store.at(addresses[request.param])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert Store.at(tmp_path / "file").within("folder").names() == []


def test_local_and_memory_behave_alike(store: Store) -> None:
    assert store.names() == []
    assert not store.exists("a/b.bin")
    store.publish("a/b.bin", b"0123456789")
    store.publish("a/c.bin", b"")
    store.publish("top", b"x")
    assert store.exists("a/b.bin")
    assert store.exists("a")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read("a/c.bin") == b""
    assert store.read_range("a/b.bin", 2, 5) == b"234"
    assert store.read_range("a/b.bin", 8, 50) == b"89"
    assert store.names() == ["a", "top"]
    assert store.names("a") == ["b.bin", "c.bin"]
    assert store.names("nowhere") == []
    store.publish("a/b.bin", b"new")
    assert store.read("a/b.bin") == b"new"
    assert store.within("a").read("b.bin") == b"new"
    assert store.within("a").url == f"{store.url}/a"
    store.remove("a")
    store.remove("a")
    assert store.names() == ["top"]


def test_what_is_not_there_is_file_not_found_at_once(store: Store, no_waiting: list[float]) -> None:
    for read in (lambda: store.read("nowhere"), lambda: store.read_range("nowhere", 0, 1)):
        with pytest.raises(FileNotFoundError):
            read()
    assert no_waiting == []


def test_kinds_of_store(tmp_path: Path) -> None:
    local, memory = Store.at(tmp_path), Store.at("memory://x")
    assert (local.is_local, local.is_in_process) == (True, False)
    assert (memory.is_local, memory.is_in_process) == (False, True)
    assert local.url == str(tmp_path)
    assert local.path("a/b") == f"{tmp_path}/a/b"
    assert local.path("") == str(tmp_path)


@pytest.mark.parametrize("url", ["nosuch://bucket/run", "nosuch://user:hunter2@bucket/run?sig=hunter2"])
def test_an_unknown_protocol_is_a_usage_error_without_secrets(url: str) -> None:
    with pytest.raises(UsageError, match="nosuch://bucket/run") as caught:
        Store.at(url)
    assert "hunter2" not in str(caught.value)


def test_secrets_stay_out_of_url_and_repr() -> None:
    store = Store(fs=MemoryFileSystem(secret="hunter2"), root="/x", url=module.redact("s3://u:hunter2@b/x?q=hunter2"))
    assert "hunter2" not in repr(store)


def test_publish_leaves_nothing_else_behind(tmp_path: Path) -> None:
    Store.at(tmp_path).publish("a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_publish_keeps_the_old_bytes(
    *, failure: BaseException, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]
) -> None:
    store = Store.at(tmp_path)
    store.publish("a", b"old")

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[where], fail)
    expected = SourceError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        store.publish("a", b"new and longer")
    if expected is SourceError:
        assert "No space left on device" in str(caught.value)
        assert "Make room" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    assert no_waiting == []  # a full disk does not empty itself


def test_a_store_out_of_reach_is_told_to_be_waited_for(no_waiting: list[float]) -> None:
    store = Store.at("memory://out-of-reach")

    def away() -> None:
        raise ConnectionError("refused")

    with pytest.raises(SourceError, match=r"refused\. Wait, or see to its address, the credentials and the network"):
        store.attempt(away, "a")
    assert len(no_waiting) == module.TRIES - 1


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.store import Store
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Store.at(sys.argv[1]).publish("a", b"new" * 1000)
"""


def test_kill_between_write_and_rename_shows_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(tmp_path)
    store.publish("a", b"old")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the part is on the disk
    assert store.read("a") == b"old"
    assert store.names() == ["a"]  # and nobody sees it
    store.sweep("")
    assert len(list(tmp_path.iterdir())) == 2  # its writer could still be alive
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3700)
    store.sweep("")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Flaky(AbstractFileSystem):
    """A file system whose first `failures` operations fail; it keeps the base class's manners."""

    protocol = "flaky"
    cachable = False

    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__()
        self.failures, self.error, self.calls, self.files = failures, error, 0, {"root/a": b"0123"}

    def _answer(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self._answer()
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.files[path]), "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        self._answer()
        return sorted(self.files)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self._answer()
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._answer()
        self.files[path] = value


def _flaky(failures: int, error: Exception | None = None) -> tuple[Flaky, Store]:
    fs = Flaky(failures, error or ConnectionResetError("reset by https://u:hunter2@host/root?sig=hunter2"))
    return fs, Store(fs=fs, root="root", url="flaky://root")


@pytest.mark.parametrize("failures", [0, 1, TRIES - 1])
def test_a_flaky_store_is_asked_again(failures: int, no_waiting: list[float]) -> None:
    fs, store = _flaky(failures)
    assert store.read("a") == b"0123"
    assert (fs.calls, len(no_waiting)) == (failures + 1, failures)
    fs, store = _flaky(failures)
    store.publish("b", b"new")
    assert fs.files["root/b"] == b"new"
    fs, store = _flaky(failures)
    assert store.read_range("a", 1, 3) == b"12"
    fs, store = _flaky(failures)
    assert store.names() == ["a"]


@pytest.mark.parametrize("failures", [1, TRIES - 1])
def test_a_flaky_store_does_not_hide_what_exists(failures: int) -> None:
    """fsspec's own `exists` answers False to any failure: a build would then plan anew over a plan that is there."""
    _, store = _flaky(failures)
    assert store.exists("a")
    _, store = _flaky(failures)
    assert not store.exists("b")


def test_a_dead_store_is_a_source_error_without_secrets(no_waiting: list[float]) -> None:
    for operation in (
        lambda store: store.read("a"),
        lambda store: store.publish("a", b""),
        lambda store: store.names(),
        lambda store: store.exists("a"),
    ):
        fs, store = _flaky(100)
        with pytest.raises(SourceError, match="flaky://root") as caught:
            operation(store)
        assert fs.calls == TRIES
        assert "hunter2" not in str(caught.value)
    assert max(no_waiting) < 10


@pytest.mark.parametrize("error", [FileNotFoundError("x"), IsADirectoryError("x")])
def test_what_will_not_change_is_not_asked_again(error: OSError) -> None:
    fs, store = _flaky(1, error)
    with pytest.raises(type(error)):
        store.read("a")
    assert fs.calls == 1


def test_a_bug_is_not_retried() -> None:
    fs, store = _flaky(1, KeyError("x"))
    with pytest.raises(KeyError):
        store.read("a")
    assert fs.calls == 1


@pytest.mark.parametrize("name", ["a#b", "a?b", "a b", "ü"])
def test_a_message_names_the_local_file_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SourceError) as caught:
        Store.at(tmp_path / name).publish("f", b"")
    assert f"{tmp_path / name}/f" in str(caught.value)


def test_pauses_grow_and_are_random() -> None:
    assert all(0 <= module._pause_s(attempt) <= 0.2 * 2**attempt for attempt in range(TRIES) for _ in range(20))
    assert len({module._pause_s(4) for _ in range(5)}) > 1


def test_a_forbidden_place_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))

    def forbid(*_: object, **__: object) -> bytes:
        raise PermissionError("https://a.b/c?sig=hunter2 is not yours")

    monkeypatch.setattr(store.fs, "cat_file", forbid)
    with pytest.raises(UsageError, match="is not yours") as caught:
        store.read("x")
    assert "hunter2" not in str(caught.value)


def test_a_clients_own_error_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import NoCredentialsError

    store = Store.at("memory://credentials")

    def fail(*_: object, **__: object) -> bytes:
        raise NoCredentialsError

    monkeypatch.setattr(type(store.fs), "cat_file", fail)
    monkeypatch.setattr("pipeline.store._pause_s", lambda _: 0.0)
    with pytest.raises(SourceError, match=r"locate credentials.*see to .* the credentials"):
        store.read("x")


def test_what_another_library_raises_is_told_and_a_bug_is_not_hidden(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    with pytest.raises(SourceError, match=r"cube\.zarr failed"), store.telling("cube.zarr"):
        raise OSError(28, "No space left on device")
    with pytest.raises(IndexError), store.telling("cube.zarr"):
        raise IndexError


def test_a_store_goes_to_workers_and_counts_where_it_is(tmp_path: Path) -> None:
    for url in (str(tmp_path), "s3://bucket/run"):
        store = Store.at(url)
        store.traffic.retried()
        again = pickle.loads(pickle.dumps(store.within("folder")))
        assert again.url == f"{url}/folder"
        assert (again.traffic.retries, store.traffic.retries) == (0, 1)
    assert (again.ranges is not None) == (find_spec("obstore") is not None)
    store = Store.at(str(tmp_path)).within("a")
    store.publish("x", b"12345")
    assert store.read_range("x", 1, 3) + store.read("x") == b"2312345"
    assert (store.traffic.bytes_read, store.traffic.requests) == (7, 2)


def test_a_server_that_ignores_ranges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at("memory://rangeless")
    store.publish("x", bytes(100))
    monkeypatch.setattr(type(store.fs), "cat_file", lambda self, path, start=None, end=None: bytes(100))
    with pytest.raises(SourceError, match="ignores ranges"):
        store.read_range("x", 10, 20)
