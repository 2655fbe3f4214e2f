"""The CROMA model: what it must not depend on, what must reach every weight, and what it refuses."""

import contextlib
import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.errors import UsageError
from train.models.blocks import (
    SelfAttention,
    at_least_float32,
    explicit_attention,
    fused_attention,
    patchify,
)
from train.models.croma import Croma, CromaConfig, reconstruction_target
from train.models.masking import Mask
from train.stream.normalise import to_uint8, two_sigma

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]

CONFIG = CromaConfig(encoder_dim=32, depth=4, heads=4, image_px=40, decoder_dim=32, decoder_heads=4, mask_ratio=0.6)


def _model(config: CromaConfig = CONFIG) -> Croma:
    torch.manual_seed(0)
    return Croma(config)


def _inputs(config: CromaConfig = CONFIG, batch: int = 3) -> dict[str, Tensor]:
    draw, side = torch.Generator().manual_seed(1), config.image_px
    return {
        "s1_BCHW": torch.rand(batch, config.sar_bands, side, side, generator=draw),
        "s2_BCHW": torch.rand(batch, config.optical_bands, side, side, generator=draw),
        "noise_s1_BL": torch.rand(batch, config.patches, generator=draw),
        "noise_s2_BL": torch.rand(batch, config.patches, generator=draw),
    }


def _variants() -> list[CromaConfig]:
    pairs = itertools.product(("exact", "official"), ("joint", "per_sensor"))
    return [dataclasses.replace(CONFIG, mode=mode, target_norm=norm) for mode, norm in pairs]


@pytest.mark.parametrize("config", [*_variants(), dataclasses.replace(CONFIG, depth=5, heads=8, patch=4)])
def test_every_parameter_gets_a_gradient(config: CromaConfig) -> None:
    model = _model(config)
    losses = model(**_inputs(config))
    losses.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    parts = losses.parts
    assert set(parts) == {"contrastive", "mae", "mae_optical", "mae_sar"}
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(losses.total, parts["contrastive"] + parts["mae_optical"] + parts["mae_sar"])


def test_an_odd_depth_is_halved_downwards() -> None:
    model = _model(dataclasses.replace(CONFIG, depth=5))
    layers = [model.s2_encoder.transformer.layers, model.s1_encoder.transformer.layers, model.joint_encoder.layers]
    assert [len(x) for x in layers] == [5, 2, 2]


def _step_in_sar_order(mode: str, order: Tensor) -> dict[str, Tensor]:
    """The losses and the fusion tokens by noise, with the kept SAR patches handed over in another order."""
    model, inputs, joint = _model(dataclasses.replace(CONFIG, mode=mode)), _inputs(), []

    def reordered(noise_BL: Tensor) -> Mask:
        plain = Croma.mask(model, noise_BL)
        sar = noise_BL is inputs["noise_s1_BL"]
        return dataclasses.replace(plain, keep_ids_BK=plain.keep_ids_BK[:, order]) if sar else plain

    model.mask = reordered
    model.joint_encoder.register_forward_hook(lambda *call: joint.append(call[-1]))
    return {**model(**inputs).parts, "joint": joint[0][:, order.argsort()]}


@pytest.mark.parametrize(("mode", "invariant"), [("exact", True), ("official", False)])
def test_the_order_of_kept_patches_does_not_matter_in_exact(mode: str, invariant: bool) -> None:
    plain, turned = (_step_in_sar_order(mode, order) for order in (torch.arange(10), torch.arange(10).flip(0)))
    torch.testing.assert_close(turned["contrastive"], plain["contrastive"], rtol=1e-5, atol=1e-6)
    moved = (turned["joint"] - plain["joint"]).abs().max()
    assert (moved < 1e-5) if invariant else (moved > 1e-3)
    if invariant:
        torch.testing.assert_close(turned["mae"], plain["mae"], rtol=1e-5, atol=1e-6)


def test_equal_masks_make_both_modes_agree() -> None:
    inputs = _inputs()
    inputs["noise_s2_BL"] = inputs["noise_s1_BL"]
    exact, official = (_model(dataclasses.replace(CONFIG, mode=mode))(**inputs) for mode in ("exact", "official"))
    torch.testing.assert_close(exact.total, official.total, rtol=0, atol=0)


def test_hidden_patches_are_not_seen() -> None:
    model, inputs = _model(), _inputs()
    removed = model.mask(inputs["noise_s1_BL"]).removed_BL
    tiles = removed.view(3, 1, 5, 5).repeat_interleave(8, 2).repeat_interleave(8, 3)
    changed = {**inputs, "s1_BCHW": inputs["s1_BCHW"] + tiles}
    before, after = model(**inputs).parts, model(**changed).parts
    assert before["contrastive"] == after["contrastive"]


def test_reconstruction_is_a_plain_loop() -> None:
    model, inputs = _model(), _inputs()
    s1, s2 = patchify(inputs["s1_BCHW"], 8), patchify(inputs["s2_BCHW"], 8)
    predicted, target = torch.randn(3, 25, 14 * 64), reconstruction_target(s1, s2)
    masks = (model.mask(inputs["noise_s1_BL"]), model.mask(inputs["noise_s2_BL"]))
    optical, sar = model.reconstruction_losses(predicted, target, masks=masks)
    sums = {"optical": [], "sar": []}
    for b, patch in itertools.product(range(3), range(25)):
        values = torch.cat((s2[b, patch], s1[b, patch]))
        wanted = (values - values.mean()) / (values.var(unbiased=True) + 1e-6).sqrt()
        error = (predicted[b, patch] - wanted).square()
        if masks[1].removed_BL[b, patch]:
            sums["optical"].append(error[: 12 * 64].mean())
        if masks[0].removed_BL[b, patch]:
            sums["sar"].append(error[12 * 64 :].mean())
    torch.testing.assert_close(optical, torch.stack(sums["optical"]).mean())
    torch.testing.assert_close(sar, torch.stack(sums["sar"]).mean())


def test_targets_per_sensor_have_their_own_statistics() -> None:
    s1, s2 = torch.rand(1, 4, 128) * 5, torch.rand(1, 4, 768) + 3
    target = reconstruction_target(s1, s2, norm="per_sensor")
    for part in target.split([768, 128], dim=-1):
        torch.testing.assert_close(part.mean(-1), torch.zeros(1, 4), rtol=0, atol=1e-5)
        torch.testing.assert_close(part.std(-1), torch.ones(1, 4), rtol=0, atol=1e-4)
    assert (reconstruction_target(torch.ones(1, 1, 128), torch.ones(1, 1, 768)) == 0).all()


def test_patchify_counts_bands_slowest() -> None:
    image = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (2, 6, 12)
    for b, row, col, c, i, j in itertools.product(range(2), range(2), range(3), range(3), range(2), range(2)):
        assert patches[b, row * 3 + col, c * 4 + i * 2 + j] == image[b, c, 2 * row + i, 2 * col + j]
    as_convolution = torch.nn.functional.conv2d(image, torch.ones(1, 3, 2, 2), stride=2).flatten()
    torch.testing.assert_close(patches.sum(-1).flatten(), as_convolution)


@pytest.mark.parametrize("with_bias", [True, False])
def test_fused_attention_is_the_explicit_one(with_bias: bool) -> None:
    q, k, v = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (5, 7, 7))
    bias = -torch.rand(2, 4, 5, 7) if with_bias else None
    explicit, fused = explicit_attention(q, k, v, bias=bias), fused_attention(q, k, v, bias=bias)
    torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (explicit, fused)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (24, 56), (64, 8)])
def test_encode_takes_any_size(height: int, width: int) -> None:
    model, count = _model().eval(), height * width // 64
    s1, s2 = torch.rand(2, 2, height, width), torch.rand(2, 12, height, width)
    both = model.encode(s1, s2)
    assert {name: tuple(x.shape) for name, x in both.items()} == {
        f"{sensor}_{kind}": shape
        for sensor in ("SAR", "optical", "joint")
        for kind, shape in (("encodings", (2, count, 32)), ("GAP", (2, 32)))
    }
    for alone, sensor in ((model.encode(s1), "SAR"), (model.encode(s2_BCHW=s2), "optical")):
        assert set(alone) == {f"{sensor}_encodings", f"{sensor}_GAP"}
        assert torch.equal(alone[f"{sensor}_GAP"], both[f"{sensor}_GAP"])


def test_transposing_an_image_transposes_its_distances() -> None:
    """Patches of one colour have no inside: then only the grid's shape may matter, and it turns with the image."""
    model, colours = _model().eval(), torch.rand(1, 2, 2, 5)
    wide = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
    encoded, turned = (model.encode(x)["SAR_encodings"] for x in (wide, wide.transpose(2, 3)))
    torch.testing.assert_close(turned.view(1, 5, 2, -1).transpose(1, 2), encoded.view(1, 2, 5, -1))


def test_bfloat16_autocast_stays_close() -> None:
    model, inputs = _model(), _inputs()
    plain = model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(**inputs)
    assert low.total.dtype == torch.float32
    for name, part in plain.parts.items():
        assert low.parts[name].item() == pytest.approx(part.item(), rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 1}, "depth is 1"),
        ({"heads": 5}, "32 cannot be split over 5 heads"),
        ({"image_px": 44}, "image_px 44"),
        ({"mask_ratio": 1.0}, "keeps 0 of 25"),
        ({"decoder_dim": 0}, "decoder_dim is 0"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Croma(dataclasses.replace(CONFIG, **change))


def test_wrong_inputs_are_refused() -> None:
    model, inputs = _model(), _inputs()
    with pytest.raises(UsageError, match="model wants"):
        model(**{**inputs, "noise_s2_BL": torch.rand(3, 24)})
    with pytest.raises(UsageError, match="cannot be cut into patches of 8 px"):
        model.encode(torch.rand(1, 2, 40, 44))
    with pytest.raises(UsageError, match="SAR, optical or both"):
        model.encode()
    with pytest.raises(UsageError, match="equal B, H and W"):
        model.encode(torch.rand(1, 2, 40, 40), torch.rand(1, 12, 40, 48))


def test_losses_keep_double_precision() -> None:
    assert at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_float32(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    inputs = {name: x.double() for name, x in _inputs().items()}
    assert _model().double()(**inputs).total.dtype == torch.float64


def test_self_attention_is_a_plain_loop() -> None:
    layer, tokens, bias = SelfAttention(8, 2), torch.randn(1, 3, 8), -torch.rand(1, 2, 3, 3)
    normed = layer.input_norm(tokens)[0]
    q, k, v = (normed @ w.T for w in layer.to_qkv.weight.chunk(3))
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        rows = [
            torch.stack([q[i, part] @ k[j, part] / 4**0.5 + bias[0, head, i, j] for j in range(3)]) for i in range(3)
        ]
        heads.append(torch.stack([row.softmax(0) @ v[:, part] for row in rows]))
    expected = layer.to_out(torch.cat(heads, dim=1))
    torch.testing.assert_close(layer(tokens, bias)[0], expected)


def test_normalisation_clips_truncates_and_survives_a_constant_band() -> None:
    mean, std = torch.tensor([10.0, 5.0]), torch.tensor([2.0, 0.0])
    x = torch.tensor([[6.0, 10.0, 13.999, 99.0], [5.0, 5.0, 5.0, 5.0]]).view(2, 1, 4)
    torch.testing.assert_close(two_sigma(x, mean, std)[0, 0], torch.tensor([0.0, 0.5, 0.999875, 1.0]))
    assert to_uint8(x, mean, std)[0, 0].tolist() == [0, 127, 254, 255]
    assert (two_sigma(x, mean, std)[1] == 0).all()
    assert (to_uint8(x, mean, std)[1] == 0).all()


_EXTRAPOLATE = """
import resource
import torch
from train.models.croma import Croma, CromaConfig

model = Croma(CromaConfig(encoder_dim=64, depth=2, decoder_dim=32)).eval()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    model.encode(torch.rand(1, 2, 120, 120), torch.rand(1, 12, 120, 120))
    before = peak()
    out = model.encode(torch.rand(1, 2, 504, 504), torch.rand(1, 12, 504, 504))
assert all(one.isfinite().all() for one in out.values())
assert out["joint_encodings"].shape == (1, 3969, 64)
print(peak() - before)
"""


@pytest.mark.slow
def test_120_px_weights_read_504_px_in_bounded_memory() -> None:
    """Scores and bias of 16 heads are 1 GB each where they are whole; a quarter of that is there at once."""
    done = subprocess.run(
        [sys.executable, "-c", _EXTRAPOLATE], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True
    )
    assert int(done.stdout) / 1024 < 900, "MiB"


def test_nothing_stays_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device refuses to meet the CPU as a GPU does, and needs no hardware; it has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with torch.device("meta"):
        model = Croma(CONFIG)
        side = CONFIG.image_px
        s1, s2 = (torch.rand(2, bands, side, side) for bands in (CONFIG.sar_bands, CONFIG.optical_bands))
        noises = [torch.rand(2, CONFIG.patches) for _ in range(2)]
    assert model(s1, s2, noise_s1_BL=noises[0], noise_s2_BL=noises[1]).total.device.type == "meta"
    assert model.encode(s1, s2)["joint_GAP"].device.type == "meta"
