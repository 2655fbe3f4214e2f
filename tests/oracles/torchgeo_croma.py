"""torchgeo's CROMA, run by the Python of `.venv-oracle`: the weights of each case in, its features out.

    torchgeo_croma.py FOLDER

Each folder in FOLDER is a case: `config.json` (arguments of `torchgeo.models.CROMA`), `inputs.safetensors` (`sar`,
`optical`) and `weights.pt`, loaded strictly. Without `weights.pt` torchgeo's own first weights are written there. Out
comes `outputs.safetensors`: its features, and the `attn_bias` that it computed by itself.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def allow_torchvision() -> None:
    """Import torchvision where its operators, which CROMA does not use, cannot be loaded: beside a CPU-only torch."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBRARIES.append(library)


LIBRARIES: list[torch.library.Library] = []
"""Kept alive: a library that is collected takes its operators along."""


def main(folder: Path) -> None:
    """Run every case."""
    allow_torchvision()
    from torchgeo.models import CROMA

    for case in sorted(path.parent for path in folder.glob("*/config.json")):
        torch.manual_seed(0)
        model = CROMA(**json.loads((case / "config.json").read_text())).eval()
        outputs = {"attn_bias": model.attn_bias.clone()}
        if (case / "weights.pt").exists():
            model.load_state_dict(torch.load(case / "weights.pt", weights_only=True))
        else:
            torch.save(shaken(model).state_dict(), case / "weights.pt")
        inputs = load_file(case / "inputs.safetensors")
        with torch.no_grad():
            outputs |= model(x_sar=inputs["sar"], x_optical=inputs["optical"])
        save_file({name: value.contiguous() for name, value in outputs.items()}, case / "outputs.safetensors")


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """`model` with no two weights alike: first norms are all ones, and would hide one that is in another's place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
