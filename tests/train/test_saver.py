"""Checkpoints beside the training: copies, one at a time, told when they fail, and only the newest attempt's."""

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError, StreamError
from pipeline.store import Store
from train import checkpoint, fence
from train.checkpoint import Checkpoint
from train.saver import Keep, Saver
from train.stream.config import StreamState

pytestmark = pytest.mark.train
STATE = StreamState(plan_version=1, index_sha256="0", seed=0, lanes=1, samples_consumed=1)


def made(step: int, value: float = 0.0) -> Checkpoint:
    tensors = {"weight": torch.full((3,), value)}
    return Checkpoint(step=step, stream=STATE, recipe={}, versions={}, model=tensors, optimizer=dict(tensors))


def quiet(_: str = "") -> None:
    pass


def test_what_is_saved_is_what_was_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, go, real = Store.at(str(tmp_path)), threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a, **k: go.wait(10) and real(*a, **k))
    one = made(1, 5.0)
    with Saver(store, keep=Keep(), check=quiet) as saver:
        saver.save(one)
        one.model["weight"].zero_()
        assert checkpoint.steps(store) == []
        assert saver.failed() is None
        go.set()
        saver.wait()
    assert checkpoint.load(store, 1).model["weight"].tolist() == [5.0] * 3


def test_failures_are_told_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise SourceError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", broken)
    with Saver(Store.at(str(tmp_path)), keep=Keep(), check=quiet) as saver:
        saver.save(made(1))
        while saver.failed() is None:
            pass
        assert isinstance(saver.failed(), SourceError)
        with pytest.raises(SourceError, match="full"):
            saver.save(made(2))


@given(newest=st.integers(1, 4), every=st.integers(1, 5) | st.none(), count=st.integers(1, 12))
def test_the_newest_and_every_nth_stay(
    tmp_path_factory: pytest.TempPathFactory, newest: int, every: int | None, count: int
) -> None:
    store = Store.at(f"memory://keep-{newest}-{every}-{count}")
    for step in range(1, count + 1):
        checkpoint.save(store, made(step), keep=newest, every=every)
    wanted = {step for step in range(1, count + 1) if step > count - newest or (every and step % every == 0)}
    assert set(checkpoint.steps(store)) == wanted
    store.fs.rm(store.root, recursive=True)


def test_older_ones_stay_until_the_new_one_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(str(tmp_path))
    for step in (1, 2):
        checkpoint.save(store, made(step, step))
    real = Store.read

    def lossy(self: Store, name: str) -> bytes:
        data = real(self, name)
        return data[:-1] if name == checkpoint.MODEL_NAME else data

    with monkeypatch.context() as patch:
        patch.setattr(Store, "read", lossy)
        with pytest.raises(StreamError, match="not there as it was"):
            checkpoint.save(store, made(3))
    assert checkpoint.steps(store) == [1, 2, 3]


@pytest.mark.parametrize("url", ["memory://fence", "file"])
def test_attempts_are_numbered_once_each(tmp_path: Path, url: str) -> None:
    store = Store.at(str(tmp_path / "run") if url == "file" else url)
    found: list[fence.Fence] = []
    threads = [threading.Thread(target=lambda: found.append(fence.claim(store, quiet))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(one.attempt for one in found) == list(range(1, 9))
    for one in found:
        if one.attempt == 8:
            one.check()
        else:
            with pytest.raises(StreamError, match="attempt 8"):
                one.check()


def test_a_store_that_overwrites_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store, said = Store.at("memory://fence-careless"), []
    monkeypatch.setattr(Store, "create", _careless)
    assert fence.claim(store, said.append).attempt == 1
    assert "two runs" in said[0]


def _careless(self: Store, name: str, data: bytes) -> bool:
    self.publish(name, data)
    return True


def test_a_zombie_cannot_finish_what_it_began(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    zombie = fence.claim(store, quiet)
    checkpoint.save(store, made(1), check=zombie.check)
    looks: list[int] = []

    def check() -> None:
        looks.append(len(looks))
        if len(looks) == 3:
            fence.claim(store, quiet)
        zombie.check()

    with pytest.raises(StreamError, match="attempt 2"):
        checkpoint.save(store, made(2), check=check)
    assert checkpoint.latest(store, quiet).step == 1
