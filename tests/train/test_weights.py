"""Weights under other names and in other containers: round trips to the bit, and errors that name what is wrong."""

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import ContractError, UsageError
from pipeline.store import Store
from train.models import containers, croma_names, satmae_names, weights
from train.models.containers import File
from train.models.croma import Croma, CromaConfig
from train.models.layouts import LAYOUTS, OURS, Layout

pytestmark = pytest.mark.train

CONFIG = CromaConfig(encoder_dim=16, depth=3, heads=2, image_px=32, decoder_dim=16, decoder_heads=2)
GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).resolve().parents[3] / "shared" / "golden")) / "satmae"
DEEP = (600_000).to_bytes(8, "little") + b'{"a":' * 100_000 + b" " * 100_000
"""A header that no recursive parser survives."""
State = dict[str, torch.Tensor]


def _model(seed: int, config: CromaConfig = CONFIG) -> Croma:
    torch.manual_seed(seed)
    return Croma(config)


def _satmae(groups: int = 2) -> State:
    """Every name of a SatMAE with two blocks and one decoder block; groups=0 is the temporal one."""
    torch.manual_seed(groups)
    seeds = {f"patch_embed.{group}.proj.bias" for group in range(groups)} | {
        "blocks.0.norm1.bias",
        "blocks.1.norm1.bias",
    }
    return {name: torch.randn(2, 3) for name in sorted(satmae_names.expected(seeds))}


def _equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _bytes(layout: Layout, state: State) -> bytes:
    content = layout.to_file(state, 32)
    return containers.safetensors_bytes(content, {"b": "1", "a": "2"}) if layout.name == OURS else _torch(content)


def _torch(content: Any) -> bytes:
    return containers.torch_bytes(content)


def _read(path: Path, data: bytes) -> weights.Weights:
    path.write_bytes(data)
    return weights.read(path)


ALL = [layout for table in LAYOUTS.values() for layout in table.values()]


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: f"{layout.objective}-{layout.name}")
def test_every_layout_goes_round_to_the_bit(layout: Layout, tmp_path: Path) -> None:
    state = _model(0).state_dict() if layout.objective == "croma" else _satmae()
    data = _bytes(layout, state)
    found = _read(tmp_path / f"a{layout.suffixes[0]}", data)
    covered = croma_names.RELEASED_PARTS if layout.name in ("released", "torchgeo") else croma_names.PARTS
    kept = {name: x for name, x in state.items() if layout.objective == "satmae" or croma_names.part(name) in covered}
    assert found.layout == layout
    assert _equal(dict(found.state), kept)
    assert _bytes(layout, dict(found.state)) == data


def test_official_names() -> None:
    names = croma_names.to_official(_model(0).state_dict())
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


def test_released_layout_is_five_plain_dicts_of_plain_tensors(tmp_path: Path) -> None:
    path = tmp_path / "released.pt"
    path.write_bytes(_bytes(LAYOUTS["croma"]["released"], _model(0).state_dict()))
    found = torch.load(path, weights_only=True)
    assert set(found) == {*croma_names.RELEASED_PARTS}
    assert {type(found), *map(type, found.values())} == {dict}
    assert "transformer.layers.2.1.net.3.weight" in found["s2_encoder"]
    assert {"0.weight", "1.weight", "3.bias"} <= found["s1_GAP_FFN"].keys()


def test_a_view_is_written_without_what_it_looks_into() -> None:
    large = torch.zeros(100_000)
    assert len(containers.torch_bytes({"a": large[:10]})) < 4000
    assert len(containers.safetensors_bytes({"a": large[:10], "b": large[:10]}, {})) < 400


def test_released_satmae_brings_flags_and_optimizer(tmp_path: Path) -> None:
    state = _satmae(3)
    flags = argparse.Namespace(lr=1e-4, model="mae_vit_base", device="cuda", groups=[[0, 1], [2]])
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    path = tmp_path / "pretrain-vit-base-e199.pth"
    torch.save({"model": state, "optimizer": optimizer, "epoch": 199, "scaler": {}, "args": flags}, path)
    found = weights.read(path)
    assert (found.layout.objective, found.layout.name) == ("satmae", "official")
    assert _equal(dict(found.state), state)


@pytest.mark.parametrize(
    ("groups", "depth", "count"), [(3, 12, 264), (3, 24, 408), (0, 12, 254), (0, 24, 398)], ids=["B", "L", "B-t", "L-t"]
)
def test_satmae_has_as_many_names_as_the_published_models(groups: int, depth: int, count: int) -> None:
    seeds = {f"patch_embed.{group}.proj.bias" for group in range(groups)}
    seeds |= {
        f"{stem}.{i}.norm1.bias" for stem, blocks in (("blocks", depth), ("decoder_blocks", 8)) for i in range(blocks)
    }
    names = satmae_names.expected(seeds)
    assert len(names) == count
    assert satmae_names.expected(names | {"up_block1.up_conv.bias"}) - names == {"up_block1.up_conv.bias"}


@pytest.mark.parametrize("file", ["group_weights", "temporal_weights"])
def test_satmae_names_are_the_official_ones(file: str) -> None:
    path = GOLDEN / f"{file}.safetensors"
    if not path.exists():
        (pytest.fail if os.environ.get("REQUIRE_REAL") == "1" else pytest.skip)(f"{path} is not there: set GOLDEN_DIR")
    assert weights.read(path).layout.objective == "satmae"

    assert satmae_names.expected(load_file(path)) == set(load_file(path))


class _Bomb:
    """A pickle of this creates a file when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["torch archive", "inside the flags", "bare pickle"])
def test_code_in_a_file_is_never_run(where: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bad.pt"
    if where == "bare pickle":
        path.write_bytes(pickle.dumps({"model": _Bomb(mark)}))
    else:
        bomb = _Bomb(mark) if where == "torch archive" else argparse.Namespace(a=_Bomb(mark))
        torch.save({"model": _satmae(), "args": bomb}, path)
    with pytest.raises(ContractError, match=r"bad\.pt"):
        weights.read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if where != "bare pickle" else pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb is a dud, and the test worthless"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.7, 0.99, 0.9999])
@pytest.mark.parametrize("name", ["official", OURS])
def test_a_file_cut_short_is_one_error(name: str, share: float, tmp_path: Path) -> None:
    layout = LAYOUTS["croma"][name]
    data = _bytes(layout, _model(0).state_dict())
    with pytest.raises(ContractError, match="cut"):
        _read(tmp_path / f"cut{layout.suffixes[0]}", data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "0 keys"),
        ({"weight": torch.zeros(1)}, r"begin with \['weight'\]"),
        ([torch.zeros(1)], "holds a list"),
        ({"model": {3: torch.zeros(1)}}, "first: blocks.0.attn.proj.bias.*first: 3"),
        ({"model": {"blocks.0.norm1.weight": "text"}}, "no tensors.*blocks.0.norm1.weight"),
        ({"s1_encoder": {}, "s2_encoder": torch.zeros(1)}, "first: joint_encoder"),
        ({"attn_bias": torch.zeros(1)}, "first: joint_encoder"),
        ({"radar_encoder.x": torch.zeros(1), "own": torch.zeros(1)}, "first: contrastive.*first: own"),
    ],
)
def test_a_file_of_something_else_is_one_error(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ContractError, match=message):
        weights.read(path)


def test_a_foreign_header_is_one_error(tmp_path: Path) -> None:
    for data in (b"", b"\x80\x02}q\x00.", b"\xff" * 8 + b"{", b"\x10" + b"\0" * 7 + b"{not json at all", DEEP):
        with pytest.raises(ContractError, match="foreign"):
            _read(tmp_path / "foreign.safetensors", data)
    with pytest.raises(UsageError, match="there is no file"):
        weights.read(tmp_path / "nowhere.pt")
    with pytest.raises(UsageError, match="there is no file"):
        weights.read(tmp_path)


@pytest.mark.parametrize("name", ["released", "official", "torchgeo", OURS])
def test_one_name_too_many_or_too_few_is_named(name: str, tmp_path: Path) -> None:
    layout, state = LAYOUTS["croma"][name], _model(0).state_dict()
    state["s2_encoder.transformer.layers.2.0.strange"] = state.pop("s2_encoder.transformer.layers.1.0.to_out.bias")
    with pytest.raises(ContractError, match=r"first: s2_.*1\.0\.to_out\.bias.*first: s2_.*2\.0\.strange"):
        _read(tmp_path / f"a{layout.suffixes[0]}", _bytes(layout, state))


def test_a_size_that_cannot_be_is_named(tmp_path: Path) -> None:
    layout, state = LAYOUTS["croma"][OURS], _model(0).state_dict()
    wrong = {
        "s1_GAP_FFN.1.bias": (torch.zeros(3), r"s1_GAP_FFN\.1\.bias has shape \(3,\)"),
        "s2_encoder.linear_input.weight": (torch.zeros(3), r"decides the model's size, has shape \(3,\)"),
        "decoder.decoder_pos_embed": (torch.zeros(1, 15, 16), "15 patches"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(ContractError, match=message):
            _read(tmp_path / "a.safetensors", _bytes(layout, {**state, name: value}))
    shallow = {name: x for name, x in state.items() if not name.startswith("s2_encoder.transformer.layers")}
    with pytest.raises(ContractError, match="no layers"):
        _read(tmp_path / "a.safetensors", _bytes(layout, shallow))


def test_reads_from_a_store_as_from_disk() -> None:
    state = _model(0).state_dict()
    for name, suffix in ((OURS, "safetensors"), ("official", "pt")):
        Store.at("memory://").publish(f"weights.{suffix}", _bytes(LAYOUTS["croma"][name], state))
        found = weights.read(f"memory://weights.{suffix}")
        assert found.layout.name == name
        assert _equal(dict(found.state), state)
    assert found.metadata == {}
    assert weights.read("memory://weights.safetensors").metadata == {"a": "2", "b": "1"}


def test_a_signed_url_keeps_its_query_and_hides_it() -> None:
    file = File.at("https://user:pw@host/deep/w.pt?sig=a/b")
    assert (file.name, file.url) == ("w.pt?sig=a/b", "https://host/deep/w.pt")


def test_config_of_names_and_shapes() -> None:
    state = _model(0).state_dict()
    assert weights.config_of(state, heads=2, decoder_heads=2) == CONFIG
    released = {name: x for name, x in state.items() if croma_names.part(name) in croma_names.RELEASED_PARTS}
    assert weights.config_of(released) == CromaConfig(encoder_dim=16, depth=3)
    with torch.device("meta"):
        large = Croma(CromaConfig(encoder_dim=1024, depth=24)).state_dict()
    assert weights.config_of(large) == CromaConfig(encoder_dim=1024, depth=24)
    with pytest.raises(UsageError, match="width 16 cannot be of a model with 3 heads"):
        weights.config_of(state, heads=3)
    with pytest.raises(ContractError, match="no patches of 7 px"):
        weights.config_of(state, patch=7)


@pytest.mark.parametrize("patch", [4, 16])
def test_other_patches_are_read_and_configured(patch: int, tmp_path: Path) -> None:
    config = CromaConfig(
        encoder_dim=16, depth=2, heads=2, patch=patch, image_px=64, decoder_dim=16, decoder_heads=2, optical_bands=3
    )
    state = _model(0, config).state_dict()
    found = _read(tmp_path / "a.pt", _bytes(LAYOUTS["croma"]["official"], state))
    assert weights.config_of(found.state, heads=2, decoder_heads=2, patch=patch) == config


def test_initial_covers_what_the_file_covers(tmp_path: Path) -> None:
    source, target = _model(0), _model(1)
    (tmp_path / "a.pt").write_bytes(_bytes(LAYOUTS["croma"]["released"], source.state_dict()))
    decoder = target.decoder.mask_token.clone()
    weights.initial(target, tmp_path / "a.pt")
    s1, s2 = torch.rand(1, 2, 32, 32), torch.rand(1, 12, 32, 32)
    assert _equal(source.encode(s1, s2), target.encode(s1, s2))
    assert torch.equal(target.decoder.mask_token, decoder)


def test_initial_takes_another_image_size(tmp_path: Path) -> None:
    source = _model(0)
    target = _model(1, CromaConfig(encoder_dim=16, depth=3, heads=2, image_px=48, decoder_dim=16, decoder_heads=2))
    table = target.decoder.decoder_pos_embed.clone()
    (tmp_path / "a.pt").write_bytes(_bytes(LAYOUTS["croma"]["official"], source.state_dict()))
    weights.initial(target, tmp_path / "a.pt")
    assert torch.equal(target.decoder.mask_token, source.decoder.mask_token)
    assert torch.equal(target.decoder.decoder_pos_embed, table)


def test_initial_of_another_model_changes_nothing(tmp_path: Path) -> None:
    model = _model(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    deeper = _model(0, CromaConfig(encoder_dim=16, depth=4, heads=2, image_px=32, decoder_dim=16, decoder_heads=2))
    for layout, state in (("croma", deeper.state_dict()), ("satmae", _satmae())):
        (tmp_path / "a.pt").write_bytes(_bytes(LAYOUTS[layout]["official"], state))
        with pytest.raises(ContractError, match="unexpected"):
            weights.initial(model, tmp_path / "a.pt")
    assert _equal(model.state_dict(), before)


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
