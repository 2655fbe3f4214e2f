"""From a filled slot to a model's input on the device, beside what the device is computing.

A GPU copies, normalises and resizes the next batch on a stream of its own, and the host waits for none of it.

Axes: B batch, T frames, C bands, H W pixels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from train.stream.config import StreamConfig
from train.stream.normalise import Constants, Scale, normalise
from train.stream.resample import resize_crops
from train.stream.ring import Slot


class Device:
    """Where batches go."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def take(self, slot: Slot, config: StreamConfig, stretch: Mapping[str, Constants]) -> dict[str, Tensor]:
        """What is in `slot`, normalised and resized: by sensor, and `dates`, `ids`, `epochs` and `valid` as there."""
        with self._beside(slot) as made:
            made.update(on_device(slot, config, stretch, self._device))
            made.update({name: _copied(tensor, self._device) for name, tensor in slot.facts.items()})
        return made

    @contextmanager
    def _beside(self, slot: Slot) -> Iterator[dict[str, Tensor]]:
        """Within, a GPU's work is queued on the stream of copies; what is queued behind may use the tensors made."""
        made: dict[str, Tensor] = {}
        if self._stream is None:
            yield made
            return
        with torch.cuda.stream(self._stream):
            yield made
            slot.used = self._stream.record_event()
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._stream)
        for tensor in made.values():
            # Made on the other stream: without this its memory could be reused there while it is read here.
            tensor.record_stream(now)


def on_device(
    slot: Slot, config: StreamConfig, stretch: Mapping[str, Constants], device: torch.device
) -> dict[str, Tensor]:
    """What is in `slot`, copied to `device`, normalised and resized there; by sensor, float32."""
    images = {}
    for name, stored in slot.images.items():
        values = _normalised(stored.to(device, non_blocking=True), stretch[name], config.scale)
        if config.augment.resizes:
            values = resize_crops(values, slot.sizes_B2.to(device, non_blocking=True), config.image_px)
        images[name] = values
    return images


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True, copy=True)


def _normalised(stored: Tensor, stretch: Constants, scale: Scale) -> Tensor:
    """Row by row on a CPU, whose caches hold a sample and not a batch."""
    if stored.device.type != "cpu":
        return normalise(stored, stretch, scale=scale)
    values = torch.empty(stored.shape)
    for row, image in zip(values, stored, strict=True):
        row.copy_(normalise(image, stretch, scale=scale))
    return values
