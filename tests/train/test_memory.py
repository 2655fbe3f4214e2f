"""Memory that readers share is page-locked for a GPU as long as it is there, and no longer."""

from pathlib import Path

import pytest
import torch

from train.stream.memory import new_memory
from train.stream.ring import Room

pytestmark = pytest.mark.train
ROOMS = {"image": Room(shape=(3, 50_000), dtype=torch.uint8), "ids": Room(shape=(3,))}


class Driver:
    """Stands in for CUDA's; knows what was mapped when it let go."""

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}
        self.mapped: list[bool] = []

    def cudaHostRegister(self, start: int, size: int, _: int) -> int:
        self.locked[start] = size
        return 0

    def cudaHostUnregister(self, start: int) -> int:
        self.mapped.append(f"{start:x}-" in Path("/proc/self/maps").read_text())
        del self.locked[start]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: made)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def test_it_is_let_go_before_it_is_unmapped(driver: Driver) -> None:
    memory = new_memory(ROOMS, pinned=True)
    ids = memory.tensors["ids"]
    assert list(driver.locked) == [memory.tensors["image"].data_ptr()]
    assert next(iter(driver.locked.values())) >= 3 * 50_000 + 3 * 8
    del memory
    assert driver.locked, "a tensor is left"
    del ids
    assert (driver.locked, driver.mapped) == ({}, [True])


def test_a_cpu_needs_none(driver: Driver) -> None:
    new_memory(ROOMS, pinned=False)
    assert (driver.locked, driver.mapped) == ({}, [])
