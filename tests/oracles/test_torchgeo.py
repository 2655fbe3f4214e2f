"""Our weights in torchgeo's CROMA, and torchgeo's in ours: equal features, both ways.

torchgeo lives in an environment of its own (`make oracle`): its torchvision breaks what is installed beside it.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from train.models import containers, weights
from train.models.croma import Croma, CromaConfig
from train.models.layouts import LAYOUTS

pytestmark = [pytest.mark.train, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-oracle" / "bin" / "python"
SCRIPT = Path(__file__).with_name("torchgeo_croma.py")
ATOL = 1e-5
NAMES = {"SAR": "sar", "optical": "optical", "joint": "joint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model at one image size."""

    dim: int
    depth: int
    image_px: int
    batch: int = 2


CASES = {
    "small-48": Case(dim=32, depth=2, image_px=48),
    "small-120": Case(dim=32, depth=2, image_px=120),
    "odd-depth-64": Case(dim=48, depth=5, image_px=64),
    "base-120": Case(dim=768, depth=12, image_px=120, batch=1),
}
OURS, THEIRS = tuple(CASES), ("small-48", "odd-depth-64")


def _config(case: Case) -> CromaConfig:
    return CromaConfig(encoder_dim=case.dim, depth=case.depth, image_px=case.image_px)


def _model(case: Case) -> Croma:
    """A model with no two weights alike."""
    torch.manual_seed(1)
    model = Croma(_config(case))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def _inputs(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.rand(case.batch, 2, case.image_px, case.image_px), torch.rand(
        case.batch, 12, case.image_px, case.image_px
    )


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases, after torchgeo has run them in one process: its import takes longer than most."""
    if not PYTHON.exists():
        (pytest.fail if os.environ.get("REQUIRE_REAL") == "1" else pytest.skip)(
            f"{PYTHON} is missing: run `make oracle`"
        )
    folder = tmp_path_factory.mktemp("oracle")
    for direction, names in (("ours", OURS), ("theirs", THEIRS)):
        for name in names:
            case, at = CASES[name], folder / f"{direction}-{name}"
            at.mkdir()
            sizes = {"encoder_dim": case.dim, "encoder_depth": case.depth, "image_size": case.image_px}
            (at / "config.json").write_text(json.dumps(sizes))
            save_file(dict(zip(("sar", "optical"), _inputs(case), strict=True)), at / "inputs.safetensors")
            if direction == "ours":
                content = LAYOUTS["croma"]["torchgeo"].to_file(_model(case).state_dict(), case.image_px)
                (at / "weights.pt").write_bytes(containers.torch_bytes(content))
    # Its own packages only; and its bytecode stays, so that only the first import is slow.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    done = subprocess.run([PYTHON, SCRIPT, folder], env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _check(model: Croma, case: Case, outputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        features = model.encode(*_inputs(case))
    assert len(features) == 6
    for name, ours in features.items():
        sensor, _, kind = name.partition("_")
        torch.testing.assert_close(ours, outputs[f"{NAMES[sensor]}_{kind}"], rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", OURS)
def test_torchgeo_computes_the_same_from_our_weights(oracle: Path, name: str) -> None:
    case, at = CASES[name], oracle / f"ours-{name}"
    outputs = load_file(at / "outputs.safetensors")
    _check(_model(case), case, outputs)
    assert torch.equal(torch.load(at / "weights.pt", weights_only=True)["attn_bias"], outputs["attn_bias"])


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_the_same_from_torchgeos_weights(oracle: Path, name: str) -> None:
    case, at = CASES[name], oracle / f"theirs-{name}"
    found = weights.read(at / "weights.pt")
    assert found.layout.name == "torchgeo"
    config = weights.config_of(found.state)
    assert (config.encoder_dim, config.depth, config.heads, config.patch) == (case.dim, case.depth, 16, 8)
    model = Croma(config).eval()
    weights.initial(model, at / "weights.pt")
    _check(model, case, load_file(at / "outputs.safetensors"))
