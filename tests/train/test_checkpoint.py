"""Checkpoints: there as a whole or not at all, whatever was killed, cut or flipped."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import ContractError, StreamError
from pipeline.store import Store
from train import checkpoint
from train.checkpoint import COMMIT_NAME, MODEL_NAME, OPTIM_NAME, STATE_NAME, Checkpoint
from train.stream.config import StreamState

pytestmark = pytest.mark.train
NAMES = (MODEL_NAME, OPTIM_NAME, STATE_NAME)


class Killed(BaseException):
    """What a test throws where a kill would strike."""


def made(step: int) -> Checkpoint:
    torch.manual_seed(step)
    stream = StreamState(plan_version=1, index_sha256="a" * 64, seed=0, lanes=4, samples_consumed=8 * step)
    return Checkpoint(
        step=step,
        stream=stream,
        recipe={"name": "tiny", "optim": {"base_lr": 0.1}},
        versions={"torch": "2"},
        model={"weight": torch.randn(3, 4), "deep.bias": torch.randn(2)},
        optimizer={"exp_avg/weight": torch.randn(3, 4), "step/weight": torch.tensor(float(step))},
    )


def equal(one: Checkpoint, two: Checkpoint) -> bool:
    for first, second in ((one.model, two.model), (one.optimizer, two.optimizer)):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    return (one.step, one.stream, one.recipe, one.versions) == (two.step, two.stream, two.recipe, two.versions)


def latest(store: Store) -> tuple[Checkpoint | None, list[str]]:
    said: list[str] = []
    return checkpoint.latest(store, said.append), said


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_goes_round_and_keeps_the_newest_two(tmp_path: Path, where: str) -> None:
    store = Store.at(str(tmp_path / "run") if where == "disk" else "memory://checkpoint-round")
    assert latest(store) == (None, [])
    for step in (5, 10, 15):
        checkpoint.save(store, made(step))
        found, said = latest(store)
        assert found is not None
        assert equal(found, made(step))
        assert not said
    assert checkpoint.steps(store) == [10, 15]


@pytest.mark.parametrize("survivors", range(4))
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_killed_between_files(tmp_path: Path, where: str, survivors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(str(tmp_path / "run") if where == "disk" else f"memory://checkpoint-kill-{survivors}")
    checkpoint.save(store, made(5))
    real, written = Store.publish, []

    def publish(at: Store, name: str, data: bytes) -> None:
        if len(written) == survivors:
            raise Killed
        written.append(name)
        real(at, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", publish)
        with pytest.raises(Killed):
            checkpoint.save(store, made(10))
    found, said = latest(store)
    assert found is not None
    assert found.step == 5
    assert said == (["step-00000010 was never finished: passed over."] if survivors else [])
    checkpoint.save(store, made(10))
    found, said = latest(store)
    assert found is not None
    assert equal(found, made(10))
    assert not said


def test_killed_while_old_ones_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(str(tmp_path))
    for step in (5, 10):
        checkpoint.save(store, made(step))
    real = Store.remove

    def remove(at: Store, name: str) -> None:
        if name == checkpoint.folder(5):
            raise Killed
        real(at, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", remove)
        with pytest.raises(Killed):
            checkpoint.save(store, made(15))
    found, _ = latest(store)
    assert found is not None
    assert found.step == 15
    with pytest.raises(FileNotFoundError):
        checkpoint.load(store, 5)
    checkpoint.save(store, made(20))
    assert checkpoint.steps(store) == [15, 20]


@pytest.mark.parametrize("name", [*NAMES, COMMIT_NAME])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_passed_over(tmp_path: Path, name: str, damage: str) -> None:
    store = Store.at(str(tmp_path))
    for step in (5, 10):
        checkpoint.save(store, made(step))
    path = tmp_path / checkpoint.folder(10) / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    if damage == "remove":
        path.unlink()
    found, said = latest(store)
    assert found is not None
    assert equal(found, made(5))
    assert len(said) == 1
    assert "assed over" in said[0]


def test_if_all_are_damaged_nothing_is_begun_over_them(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    checkpoint.save(store, made(5))
    (tmp_path / checkpoint.folder(5) / MODEL_NAME).write_bytes(b"")
    with pytest.raises(StreamError, match="damaged"):
        latest(store)
    with pytest.raises(ContractError, match=MODEL_NAME):
        checkpoint.load(store, 5)


def test_other_folders_are_not_checkpoints(tmp_path: Path) -> None:
    for name in ("step-1", "steps", "step-0000000a", "tensorboard"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(Store.at(str(tmp_path))) == []


def test_differences_name_the_field() -> None:
    was = {"name": "tiny", "optim": {"base_lr": 0.1, "betas": [0.9, 0.99]}, "gone": 1}
    now = {"name": "tiny", "optim": {"base_lr": 0.2, "betas": [0.9, 0.99]}}
    assert checkpoint.differences(was, was) == []
    assert checkpoint.differences(was, now) == ["gone: 1 then, None now", "optim.base_lr: 0.1 then, 0.2 now"]
