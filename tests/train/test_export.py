"""`train/export.py`: a run's weights in every layout, a card that is true, and one message for what cannot be."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_pairs import write_pairs

from pipeline import manifest, record
from pipeline.errors import PretrainError, UsageError
from pipeline.store import Store
from train import checkpoint, release
from train.checkpoint import Checkpoint
from train.models import croma_names, satmae_names, weights
from train.models.croma import Croma, CromaConfig
from train.models.layouts import LAYOUTS
from train.stream.config import StreamState
from train.stream.normalise import constants

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
CONFIG = CromaConfig(encoder_dim=32, depth=3, image_px=24, decoder_dim=16, decoder_heads=2)
BANDS = {"s1_bands": ["VH"], "s2_bands": ["B02", "B8A"]}
CROMA = sorted(LAYOUTS["croma"])


def _croma(seed: int, config: CromaConfig = CONFIG) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return Croma(config).state_dict()


def _save(
    run: Path, state: dict[str, torch.Tensor], *, step: int = 40, data: Store | None = None, **recipe: Any
) -> str:
    """A checkpoint as a run would leave it."""
    sha = "a" * 64 if data is None else manifest.load(data).index_sha256
    stream = StreamState(plan_version=1, index_sha256=sha, seed=0, lanes=4, samples_consumed=16 * step)
    versions = {"torch": "2.13.0", "sentinel-pretrain": "0.1.0"}
    saved = Checkpoint(step=step, stream=stream, recipe=recipe, versions=versions, model=state, optimizer={})
    store = Store.at(run)
    checkpoint.save(store, saved)
    if data is not None:
        store.publish("run.json", record.dumps({"data": data.url}))
    return str(run)


@pytest.fixture
def run(tmp_path: Path) -> str:
    recipe = {"name": "mine", "model": record.to_json(CONFIG), "stream": BANDS}
    return _save(tmp_path / "run", _croma(0), data=write_pairs(str(tmp_path / "pairs")), **recipe)


def _export(source: str, layout: str, out: Path, **more: Any) -> str:
    said: list[str] = []
    written = release.export(release.Request(source=source, layout=layout, out=str(out), **more), said.append)
    return "\n".join([*said, written])


def _suffix(layout: str, objective: str = "croma") -> str:
    return LAYOUTS[objective][layout].suffixes[0]


@pytest.mark.parametrize("layout", CROMA)
def test_a_run_travels_in_every_layout(layout: str, run: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{_suffix(layout)}"
    assert f"layout {layout}" in _export(run, layout, out)
    found, state = weights.read(out), _croma(0)
    assert found.layout.name == layout
    assert all(torch.equal(x, state[name]) for name, x in found.state.items())
    assert len(found.state) in (len(state), sum(croma_names.part(n) in croma_names.RELEASED_PARTS for n in state))


@pytest.mark.parametrize("layout", [name for name in CROMA if name != "safetensors"])
def test_a_file_travels_and_comes_back_the_same(layout: str, run: str, tmp_path: Path) -> None:
    first, ours, second = tmp_path / "a.pt", tmp_path / "b.safetensors", tmp_path / "c.pt"
    _export(run, layout, first, **({"image_px": 40} if layout == "torchgeo" else {}))
    _export(str(first), "safetensors", ours)
    _export(str(ours), layout, second, **({"image_px": 40} if layout == "torchgeo" else {}))
    assert second.read_bytes() == first.read_bytes()


def test_safetensors_comes_back_the_same_with_its_history(run: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = tmp_path / "a.safetensors", tmp_path / "b" / "a.safetensors"
    _export(run, "safetensors", first)
    _export(str(first), "safetensors", second)
    assert second.read_bytes() == first.read_bytes()
    assert (tmp_path / "README.md").read_bytes() == (tmp_path / "b" / "README.md").read_bytes()
    with safe_open(first, "pt") as file:
        told = file.metadata()
    assert json.loads(told["recipe"])["name"] == "mine"
    assert json.loads(told["versions"])["torch"] == "2.13.0"
    assert (told["format"], told["step"], told["samples"]) == ("pt", "40", "640")


def test_the_last_checkpoint_or_the_one_asked_for(run: str, tmp_path: Path) -> None:
    recipe = {"model": record.to_json(CONFIG)}
    _save(Path(run), _croma(1), step=50, **recipe)
    for step, seed in ((None, 1), (40, 0)):
        _export(run, "official", tmp_path / "a.pt", step=step)
        assert torch.equal(
            weights.read(tmp_path / "a.pt").state["decoder.mask_token"], _croma(seed)["decoder.mask_token"]
        )
    with pytest.raises(UsageError, match=r"no finished checkpoint of step 45; its steps are \[40, 50\]"):
        _export(run, "official", tmp_path / "a.pt", step=45)


def test_the_card_tells_what_a_user_needs(run: str, tmp_path: Path) -> None:
    _export(run, "safetensors", tmp_path / "model.safetensors")
    card = (tmp_path / "README.md").read_text()
    stats = manifest.load_stats(Store.at(tmp_path / "pairs"))
    for sensor, names in (("s1", ("VH",)), ("s2", ("B02", "B8A"))):
        stretch = constants(getattr(stats, sensor), names)
        for band, mean, std in zip(names, stretch.mean, stretch.std, strict=True):
            assert f"| {band} | {mean} | {std} |" in card
    assert "| recipe | mine |" in card
    assert "| steps | 40 |" in card
    assert "| samples seen | 640 |" in card
    assert "licence" in card
    assert str(tmp_path) not in card


def test_the_card_loads_the_weights(run: str, tmp_path: Path) -> None:
    _export(run, "safetensors", tmp_path / "model.safetensors")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    assert code is not None
    assert "decoder_heads=2" in code[1]
    code_at = code[1].replace("model.safetensors", str(tmp_path / "model.safetensors"))
    found: dict[str, Any] = {"s1": torch.rand(1, 2, 24, 24), "s2": torch.rand(1, 12, 24, 24)}
    model = Croma(CONFIG)
    model.load_state_dict(_croma(0))
    with torch.no_grad():
        exec(code_at, found)
        assert torch.equal(found["features"]["joint_GAP"], model.encode(found["s1"], found["s2"])["joint_GAP"])


def test_secrets_stay_at_home(tmp_path: Path) -> None:
    run = _save(tmp_path / "run", _croma(0), model=record.to_json(CONFIG), stream=BANDS)
    Store.at(run).publish("run.json", record.dumps({"data": "memory://user:pw@bucket/data?sig=hidden"}))
    _export(run, "safetensors", tmp_path / "a.safetensors")
    for path in (tmp_path / "README.md", tmp_path / "a.safetensors"):
        assert b"bucket/data" in path.read_bytes()
        assert not re.search(rb"pw@|hidden", path.read_bytes())


def test_constants_of_a_moved_data_set(run: str, tmp_path: Path) -> None:
    (tmp_path / "pairs").rename(tmp_path / "moved")
    _export(run, "safetensors", tmp_path / "a.safetensors")
    assert "export with --data" in (tmp_path / "README.md").read_text()
    _export(run, "safetensors", tmp_path / "a.safetensors", data=str(tmp_path / "moved"))
    assert "| VH | -" in (tmp_path / "README.md").read_text()
    other = write_pairs(str(tmp_path / "other"), shards=(("train", 3),))
    with pytest.raises(UsageError, match="not the data set of the run"):
        _export(run, "safetensors", tmp_path / "a.safetensors", data=other.url)


def test_constants_of_the_recipe_come_first(tmp_path: Path) -> None:
    own = {"s1_constants": {"mean": [-7.5], "std": [2.5]}, "s2_constants": None}
    run = _save(tmp_path / "run", _croma(0), model=record.to_json(CONFIG), stream={**BANDS, **own})
    _export(run, "safetensors", tmp_path / "a.safetensors")
    assert "| VH | -7.5 | 2.5 |" in (tmp_path / "README.md").read_text()


def test_satmae_travels_without_its_model(tmp_path: Path) -> None:
    seeds = {"patch_embed.0.proj.bias", "blocks.0.norm1.bias"}
    state = {name: torch.randn(2, 3) for name in sorted(satmae_names.expected(seeds))}
    run = _save(tmp_path / "run", state, objective="satmae", stream={"s2_bands": ["B02"]})
    _export(run, "official", tmp_path / "a.pth")
    _export(str(tmp_path / "a.pth"), "safetensors", tmp_path / "b.safetensors")
    _export(str(tmp_path / "b.safetensors"), "official", tmp_path / "c.pth")
    assert (tmp_path / "c.pth").read_bytes() == (tmp_path / "a.pth").read_bytes()
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found.keys() == {"model"}
    assert all(torch.equal(found["model"][name], state[name]) for name in state)
    assert "SatMAE" in (tmp_path / "README.md").read_text()
    with pytest.raises(UsageError, match=r"'satmae' have no layout 'released'.*official"):
        _export(run, "released", tmp_path / "d.pt")


def test_readers_with_other_heads_are_not_misled(tmp_path: Path) -> None:
    config = CromaConfig(encoder_dim=32, depth=2, heads=4, image_px=24, decoder_dim=16, decoder_heads=4)
    run = _save(tmp_path / "run", _croma(0, config), model=record.to_json(config))
    with pytest.raises(UsageError, match=r"\{'heads': 4\}.*'heads': 16"):
        _export(run, "torchgeo", tmp_path / "a.pt")
    assert "something else" in _export(run, "released", tmp_path / "a.pt")
    for changes, message in (({"encoder_dim": 24}, "width 24.*16 heads"), ({"optical_bands": 3}, r"2 \+ 3 bands")):
        other = CromaConfig(**{**record.to_json(CONFIG), "heads": 8, **changes})
        source = _save(tmp_path / message, _croma(0, other))
        with pytest.raises(UsageError, match=message):
            _export(source, "torchgeo", tmp_path / "a.pt")


def test_torchgeo_is_of_one_image_size(run: str, tmp_path: Path) -> None:
    for px, asked in ((24, {}), (64, {"image_px": 64})):
        _export(run, "torchgeo", tmp_path / "a.pt", **asked)
        assert torch.load(tmp_path / "a.pt", weights_only=True)["attn_bias"].shape == (
            1,
            16,
            (px // 8) ** 2,
            (px // 8) ** 2,
        )
    with pytest.raises(UsageError, match="--image-px 20"):
        _export(run, "torchgeo", tmp_path / "a.pt", image_px=20)
    with pytest.raises(UsageError, match="leave --image-px out"):
        _export(run, "released", tmp_path / "a.pt", image_px=64)


def test_what_cannot_be_is_told(run: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my own words")
    (tmp_path / "bare.pt").write_bytes(b"no weights")
    foreign = _save(tmp_path / "foreign", {}, objective="itr")
    broken = _save(tmp_path / "broken", {"weight": torch.zeros(1)})
    _export(run, "released", tmp_path / "five.pt")
    cases = (
        ({"source": foreign}, r"objective 'itr' has no layouts.*croma"),
        ({"source": broken}, "first: contrastive.*first: weight"),
        ({"image_px": 0, "layout": "torchgeo"}, "--image-px 0"),
        ({"source": str(tmp_path / "nowhere")}, "holds no finished checkpoint"),
        ({"source": str(tmp_path / "README.md")}, "holds no finished checkpoint"),
        ({"source": str(tmp_path / "nowhere.pt")}, "there is no file"),
        ({"source": str(tmp_path / "bare.pt")}, "neither safetensors nor"),
        ({"source": str(tmp_path / "five.pt"), "step": 3}, "--step, --data and --weights are for runs"),
        ({"source": str(tmp_path / "five.pt")}, r"\['contrastive', 'decoder'\], which a file of layout released lacks"),
        ({"out": str(tmp_path / "a.safetensors")}, "is written to .pt or .pth"),
        ({"layout": "safetensors"}, "is written to .safetensors"),
        ({"layout": "safetensors", "out": str(tmp_path / "a.safetensors")}, "no model card"),
    )
    for changes, message in cases:
        asked = {"source": run, "layout": "official", "out": str(tmp_path / "out.pt"), **changes}
        with pytest.raises(PretrainError, match=message):
            release.export(release.Request(**asked), print)
    assert (tmp_path / "README.md").read_text() == "my own words"
    assert not (tmp_path / "out.pt").exists()


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train" / "export.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


@pytest.mark.slow
def test_the_command(run: str, tmp_path: Path) -> None:
    help_text = _command("--help").stdout
    assert all(f"  {name}" in help_text for name in CROMA)
    outs = [tmp_path / str(i) / "a.safetensors" for i in range(2)]
    for out in outs:
        done = _command(run, "--layout", "safetensors", "--out", str(out))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "layout safetensors" in done.stdout
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert len(load_file(outs[0])) == len(_croma(0))
    failed = _command(str(tmp_path / "nowhere.pt"), "--layout", "official", "--out", str(tmp_path / "b.pt"))
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: there is no file")
    assert len(failed.stderr.splitlines()) == 1
