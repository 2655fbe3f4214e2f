"""How fast a run is, and what holds it up."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.meter import Pace
from train.stream.cache import CachedShards
from train.stream.samples import Samples

_PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "V100": 125.0}
"""Dense bfloat16 (V100: float16), from the vendor's data sheets; by a part of the device's name."""


def peak_flops(device: torch.device) -> float | None:
    """Operations per second that `device` could do at best; None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tflops * 1e12 for part, tflops in _PEAK_TFLOPS.items() if part in name), None)


class Pacer:
    """Measures from one step to the next."""

    def __init__(
        self, samples: Samples, *, global_batch: int, flops: float, device: torch.device, world_size: int
    ) -> None:
        """Of a stream of `samples`, on a device of which there are `world_size`; `flops` are those of one sample."""
        self._samples, self._batch, self._device = samples, global_batch, device
        peak = peak_flops(device)
        self._share = None if peak is None else flops / (peak * world_size)
        self._waited_s = 0.0
        self._before = self._now()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, the step waits for data."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._waited_s += time.perf_counter() - began_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, what passes is no part of any step."""
        began = self._now()
        try:
            yield
        finally:
            ended = self._now()
            self._before = tuple(a + end - begin for a, begin, end in zip(self._before, began, ended, strict=True))

    def step(self) -> Pace:
        """The step that ends here."""
        before, now = self._before, self._now()
        seconds, read, retries, hits, misses = (b - a for a, b in zip(before, now, strict=True))
        waited_s, self._waited_s, self._before = self._waited_s, 0.0, now
        rate = self._batch / seconds
        return Pace(
            seconds=round(seconds, 4),
            samples_per_s=round(rate, 2),
            data_wait_share=round(waited_s / seconds, 4),
            mfu=None if self._share is None else round(rate * self._share, 4),
            read_mb_per_s=round(read / seconds / 1e6, 2),
            cache_hit_share=round(hits / (hits + misses), 4) if hits + misses else None,
            retries=int(retries),
            memory_mb=round(self._memory() / 1e6, 1),
        )

    def _now(self) -> tuple[float, ...]:
        traffic, source = self._samples.store.traffic, self._samples.source
        hits, misses = (source.counts.hits, source.counts.misses) if isinstance(source, CachedShards) else (0, 0)
        return time.perf_counter(), traffic.bytes_read, traffic.retries, hits, misses

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
