"""Costs against PyTorch's own counter, against what autograd keeps, and against the published tables."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from train import flops
from train.models.croma import Croma, CromaConfig
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig
from train.recipes import croma, satmae

pytestmark = pytest.mark.train
CROMA = CromaConfig(encoder_dim=96, depth=3, heads=4, image_px=72, decoder_dim=64, decoder_depth=2)
SMALL: dict[str, Any] = {"encoder_dim": 96, "depth": 3, "heads": 4, "decoder_dim": 64, "decoder_depth": 2}
SMALL |= {"decoder_heads": 4, "slot_dim": 16, "decoder_slot_dim": 8, "image_px": 64}
GROUP = SatmaeConfig(bands=satmae.BANDS, groups=satmae.GROUPS, **SMALL)
CONFIGS = {
    "croma": CROMA,
    "croma large grid": dataclasses.replace(CROMA, depth=4, image_px=104, mask_ratio=0.5),
    "group": GROUP,
    "group consistent": dataclasses.replace(GROUP, consistent=True, mask_ratio=0.6),
    "larger": dataclasses.replace(GROUP, upscales=2, image_px=32),
    "plain": SatmaeConfig(variant="plain", bands=satmae.RGB, mlp_ratio=2.0, **SMALL),
    "temporal": SatmaeConfig(variant="temporal", bands=satmae.RGB, frames=4, **SMALL),
}
BATCH = 3


def losses(config: CromaConfig | SatmaeConfig, batch: int = BATCH) -> torch.Tensor:
    if isinstance(config, CromaConfig):
        side = config.image_px
        images = torch.rand(batch, 2, side, side), torch.rand(batch, 12, side, side)
        noises = {f"noise_{name}_BL": torch.rand(batch, config.patches) for name in ("s1", "s2")}
        return Croma(config)(*images, **noises).total
    side = config.image_px * 2**config.upscales
    frames = (config.frames,) if config.variant == "temporal" else ()
    dates = torch.tensor([2020, 5, 10]).expand(batch, config.frames, 3) if frames else None
    images = torch.rand(batch, *frames, len(config.bands), side, side)
    return Satmae(config)(images, noise=torch.rand(batch, config.noise_count), dates_BT3=dates).total


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_what_pytorch_counts(name: str) -> None:
    with FlopCounterMode(display=False) as forward:
        loss = losses(CONFIGS[name])
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert BATCH * sum(flops.forward(CONFIGS[name]).values()) == pytest.approx(forward.get_total_flops(), rel=0.01)
    # Inputs need no gradient, and attention is computed anew: a few per cent at this size, below one at a real one.
    total = forward.get_total_flops() + backward.get_total_flops()
    assert BATCH * flops.step(CONFIGS[name]) == pytest.approx(total, rel=0.06)


@pytest.mark.parametrize(
    ("run", "gflop"),
    [
        (croma.base(), 69.0),
        (croma.large(), 228.9),
        (satmae.group_base(), 132.4),
        (satmae.group_large(), 276.8),
        (satmae.temporal_large(), 385.2),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_published_table(run: Any, gflop: float) -> None:
    """reference/train.md, C.1. It embeds all of CROMA's patches, which is one per cent more."""
    assert flops.step(run.model) / 1e9 == pytest.approx(gflop, rel=0.012)


def kept_bytes(config: CromaConfig | SatmaeConfig) -> float:
    """Bytes per sample that autograd keeps: the slope over two batches, so that weights do not count."""

    def total(batch: int) -> int:
        kept: dict[int, torch.Tensor] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = losses(config, batch)
        assert loss.requires_grad
        return sum(x.untyped_storage().nbytes() for x in kept.values())

    return (total(6) - total(2)) / 4


@pytest.mark.parametrize(
    "config",
    [
        CromaConfig(encoder_dim=192, depth=6, heads=4, decoder_dim=64),
        SatmaeConfig(bands=satmae.BANDS, groups=satmae.GROUPS, **(SMALL | {"depth": 6, "decoder_depth": 4})),
    ],
    ids=["croma", "group"],
)
def test_activations_are_what_autograd_keeps(config: CromaConfig | SatmaeConfig) -> None:
    assert flops.activation_bytes(config, "no") == pytest.approx(kept_bytes(config), rel=0.2)
