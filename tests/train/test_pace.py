"""What a step is measured by: its time, its reads, and the share of the device's operations that it used."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from train import pace
from train.pace import Pacer, peak_flops

pytestmark = pytest.mark.train


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def pacer(world_size: int = 1) -> tuple[Pacer, Any]:
    traffic = SimpleNamespace(bytes_read=0, retries=0)
    samples: Any = SimpleNamespace(store=SimpleNamespace(traffic=traffic), source=None)
    made = Pacer(samples, global_batch=8, flops=5e9, device=torch.device("cpu"), world_size=world_size)
    return made, traffic


def test_a_step_is_measured_from_the_end_of_the_one_before(clock: Clock) -> None:
    made, traffic = pacer()
    with made.waiting():
        clock.now += 0.5
    clock.now += 1.5
    traffic.bytes_read, traffic.retries = 6_000_000, 3
    first = made.step()
    assert (first.seconds, first.samples_per_s, first.data_wait_share) == (2.0, 4.0, 0.25)
    assert (first.read_mb_per_s, first.retries, first.cache_hit_share, first.mfu) == (3.0, 3, None, None)
    clock.now += 4
    second = made.step()
    assert (second.seconds, second.samples_per_s, second.data_wait_share) == (4.0, 2.0, 0.0)
    assert (second.read_mb_per_s, second.retries) == (0.0, 0)


@pytest.mark.parametrize("world_size", [1, 4])
def test_utilisation_is_of_all_devices(clock: Clock, monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    monkeypatch.setattr(pace, "peak_flops", lambda _: 1e11)
    made, _ = pacer(world_size)
    clock.now += 2
    assert made.step().mfu == pytest.approx(8 * 5e9 / 2 / 1e11 / world_size)


@pytest.mark.parametrize(
    ("name", "tflops"), [("NVIDIA H200", 989.0), ("NVIDIA A100-SXM4-80GB", 312.0), ("Something new", None)]
)
def test_peaks_are_known_by_name(monkeypatch: pytest.MonkeyPatch, name: str, tflops: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops(torch.device("cuda")) == (None if tflops is None else tflops * 1e12)
    assert peak_flops(torch.device("cpu")) is None
