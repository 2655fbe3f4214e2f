"""Weights under other names: round trips, the layouts' own words, and errors that name what is wrong."""

import pytest
import torch

from pipeline.errors import ContractError
from train.models import weights
from train.models.croma import Croma, CromaConfig

pytestmark = pytest.mark.train

CONFIG = CromaConfig(encoder_dim=16, depth=3, heads=2, image_px=32, decoder_dim=16, decoder_heads=2)


def _model(seed: int) -> Croma:
    torch.manual_seed(seed)
    return Croma(CONFIG)


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_official_names_and_back() -> None:
    state = _model(0).state_dict()
    assert _equal(weights.from_official(weights.to_official(state)), state)


def test_official_names() -> None:
    names = weights.to_official(_model(0).state_dict())
    expected = {
        "radar_encoder.transformer.layers.0.0.create_qkv.weight",
        "optical_encoder.transformer.layers.2.0.out.bias",
        "optical_encoder.transformer.layers.2.1.net.2.weight",
        "cross_encoder.layers.0.1.create_k.weight",
        "cross_encoder.layers.0.1.to_out.weight",
        "cross_encoder.layers.0.0.out.weight",
        "GAP_FFN_radar.3.bias",
        "decoder.encoder_to_decoder.weight",
        "decoder.decoder.layers.0.0.out.weight",
        "decoder.decoder_pos_embed",
        "global_contrast_loss.radar_proj.weight",
        "global_contrast_loss.logit_scale",
    }
    assert expected <= names.keys()
    assert not any("to_q" in name or "net.3" in name or name.startswith("s1") for name in names)


def test_released_layout_and_back() -> None:
    source, target = _model(0), _model(1)
    released = weights.to_released(source.state_dict())
    assert tuple(released) == weights.RELEASED_PARTS
    assert "transformer.layers.2.1.net.3.weight" in released["s2_encoder"]
    assert {"0.weight", "1.weight", "3.bias"} <= released["s1_GAP_FFN"].keys()
    decoder = target.decoder.mask_token.clone()
    weights.load(target, weights.from_released(released), parts=weights.RELEASED_PARTS)
    s1, s2 = torch.rand(1, 2, 32, 32), torch.rand(1, 12, 32, 32)
    assert _equal(source.encode(s1, s2), target.encode(s1, s2))
    assert torch.equal(target.decoder.mask_token, decoder)


def test_torchgeo_layout_drops_the_bias() -> None:
    source = _model(0)
    released = weights.to_released(source.state_dict())
    flat = {f"{part}.{name}": x for part, inner in released.items() for name, x in inner.items()}
    state = weights.from_torchgeo({**flat, "attn_bias": torch.zeros(1, 2, 16, 16)})
    weights.load(_model(1), state, parts=weights.RELEASED_PARTS)
    assert _equal(state, flat)


def test_load_names_the_first_missing_and_unexpected() -> None:
    state = _model(0).state_dict()
    state["s3_encoder.weight"] = state.pop("decoder.mask_token")
    with pytest.raises(ContractError, match=r"first: decoder\.mask_token.*first: s3_encoder\.weight"):
        weights.load(_model(1), state)


def test_load_names_a_wrong_shape_and_changes_nothing() -> None:
    model, state = _model(1), _model(0).state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["decoder.mask_token"] = torch.zeros(1, 1, 8)
    with pytest.raises(ContractError, match=r"decoder\.mask_token has shape \(1, 1, 8\)"):
        weights.load(model, state)
    assert _equal(model.state_dict(), before)


def test_another_layout_is_refused() -> None:
    state = _model(0).state_dict()
    released = weights.to_released(state)
    del released["joint_encoder"]
    with pytest.raises(ContractError, match="first: joint_encoder"):
        weights.from_released(released)
    with pytest.raises(ContractError, match="first: GAP_FFN_optical"):
        weights.from_official(state)
    with pytest.raises(ContractError, match="first: joint_encoder"):
        weights.to_released({name: x for name, x in state.items() if not name.startswith("joint")})
