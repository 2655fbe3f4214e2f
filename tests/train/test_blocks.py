"""Layers computed anew or compiled give what plain ones give; attention on CPU keeps no weights."""

from typing import Any

import pytest
import torch

from train.models import blocks
from train.models.blocks import attend, compile_layers, explicit_attention, layers_of, set_recompute
from train.models.croma import Croma, CromaConfig
from train.models.positions import AlibiRows
from train.models.satmae import Satmae
from train.models.satmae_config import SatmaeConfig

pytestmark = pytest.mark.train
CROMA = CromaConfig(encoder_dim=32, depth=2, heads=4, patch=4, image_px=16, decoder_dim=16, decoder_heads=2)
SATMAE = SatmaeConfig(
    variant="plain", bands=("B02", "B03"), patch=4, image_px=16, encoder_dim=32, depth=2, heads=4, decoder_dim=16,
    decoder_depth=1, decoder_heads=2,
)  # fmt: skip


def made(name: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    if name == "croma":
        images = {"s1_BCHW": torch.rand(2, 2, 16, 16), "s2_BCHW": torch.rand(2, 12, 16, 16)}
        return Croma(CROMA), images | {f"noise_{one}_BL": torch.rand(2, 16) for one in ("s1", "s2")}
    return Satmae(SATMAE), {"images": torch.rand(2, 2, 16, 16), "noise": torch.rand(2, 16)}


def gradients(model: Any, given: dict[str, Any]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**given).total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("name", "layers"), [("croma", 1 + 2 + 1 + 1), ("satmae", 2 + 1)])
def test_layers_computed_anew_give_the_same_bits(name: str, layers: int) -> None:
    model, given = made(name)
    assert len(layers_of(model)) == layers
    wanted = gradients(model, given)
    calls = []
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    set_recompute(model, on=True)
    found = gradients(model, given)
    assert len(calls) == 2 * layers
    assert all(torch.equal(found[one], wanted[one]) for one in wanted)
    set_recompute(model, on=False)
    gradients(model, given)
    assert len(calls) == 3 * layers


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at activations, too
@pytest.mark.parametrize("name", ["croma", "satmae"])
def test_compiled_layers_are_equal_and_keep_their_names(name: str) -> None:
    model, given = made(name)
    names, wanted = list(model.state_dict()), gradients(model, given)
    compile_layers(model, backend="aot_eager")
    found = gradients(model, given)
    assert list(model.state_dict()) == names
    for one in wanted:
        torch.testing.assert_close(found[one], wanted[one], atol=1e-6, rtol=1e-4)


def test_attention_keeps_its_inputs_only() -> None:
    qkv = torch.rand(2, 50, 3 * 24, requires_grad=True)
    kept: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x
        return x

    bias = torch.rand(1, 4, 50, 50)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = attend(*qkv.chunk(3, dim=-1), heads=4, bias=bias)
    assert set(kept) <= {qkv.untyped_storage().data_ptr(), bias.untyped_storage().data_ptr()}
    q, k, v = (x.view(2, 50, 4, 6).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    wanted = explicit_attention(q, k, v, bias=bias).transpose(1, 2).flatten(2)
    assert torch.equal(out, wanted)
    assert torch.equal(torch.autograd.grad(out.sum(), qkv)[0], torch.autograd.grad(wanted.sum(), qkv)[0])


@pytest.mark.parametrize("name", ["croma", "satmae"])
def test_large_images_are_read_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers, whatever part of the scores fits at once; CROMA's bias is then never whole."""
    model, _ = made(name)
    images = torch.rand(1, 12 if name == "croma" else 2, 160, 136)
    given = {"s2_BCHW": images, "s1_BCHW": images[:, :2]} if name == "croma" else {"images": images}
    with torch.no_grad():
        whole = model.encode(**given)
        monkeypatch.setattr(blocks, "SCORE_BYTES", 4 * 4 * 40 * 34 * 100)
        asked: list[int] = []
        real = AlibiRows.rows
        monkeypatch.setattr(AlibiRows, "rows", lambda *call: asked.append(call[2] - call[1]) or real(*call))
        parts = model.encode(**given)
    assert whole.keys() == parts.keys()
    for feature in whole:
        torch.testing.assert_close(parts[feature], whole[feature], atol=1e-5, rtol=1e-5)
    assert max(asked, default=100) == 100
    assert bool(asked) == (name == "croma")
