"""CROMA against data that the published code produced: every tensor of the three golden files.

One test per tensor: `_VALUES[file]` computes ours under the golden's name, so a tensor that nothing computes fails.
Run as a script, this file is one rank of the two-rank check.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from golden import Golden, require, tensor_names
from golden import golden as read_golden
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.models import croma_names, weights
from train.models.blocks import patchify
from train.models.croma import Croma, CromaConfig, reconstruction_target
from train.models.masking import mask_from_order, take_patches
from train.models.positions import alibi_bias, alibi_slopes, grid_yx, patch_yx, sincos_table
from train.stream.normalise import to_uint8, two_sigma

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"radar": "s1", "optical": "s2"}


def golden(file: str) -> Golden:
    return read_golden(f"croma/{file}")


@pytest.fixture
def _present() -> None:
    require("croma")


# ── our values, under the goldens' names ────────────────────────────────────────────────────────────────────────────


def _inference() -> dict[str, Tensor]:
    data = golden("inference")
    model = _inference_model()
    released = croma_names.to_released(model.state_dict())
    values = {f"state.{part}.{name}": x for part in released for name, x in released[part].items()}
    for size in data.config["sizes"]:
        with torch.no_grad():
            out = model.encode(_pixels(data[f"in{size}.sar_u8"]), _pixels(data[f"in{size}.optical_u8"]))
        values |= {f"out{size}.{name}": x for name, x in out.items()}
    return values


def _inference_model() -> Croma:
    data = golden("inference")
    config = data.config
    released: dict[str, dict[str, Tensor]] = {}
    for name, tensor in data.under("state.").items():
        part, _, inner = name.partition(".")
        released.setdefault(part, {})[inner] = tensor
    model = Croma(
        CromaConfig(
            encoder_dim=config["encoder_dim"],
            depth=config["encoder_depth"],
            heads=config["num_heads"],
            patch=config["patch_size"],
            image_px=config["sizes"][0],
            decoder_dim=32,
        )
    )
    weights.load(model, croma_names.from_released(released), parts=croma_names.RELEASED_PARTS)
    return model.eval()


def _pixels(u8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return u8.to(dtype) / 255


class Step:
    """The golden pretraining step, taken apart into what the file recorded."""

    def __init__(self, dtype: torch.dtype = torch.float32, rows: slice = slice(None), **changes: str) -> None:
        data = golden("pretrain")
        self.model = _pretrain_model(**changes).to(dtype)
        images = _pixels(data["in.images_u8"][rows], dtype)
        optical_bands = self.model.config.optical_bands
        self.s2, self.s1 = images[:, :optical_bands].contiguous(), images[:, optical_bands:].contiguous()
        self.noise_s1, self.noise_s2 = data["in.radar_noise"][rows], data["in.optical_noise"][rows]
        self.mask_s1, self.mask_s2 = self.model.mask(self.noise_s1), self.model.mask(self.noise_s2)

    def run(self) -> "Step":
        model = self.model
        s1_ids, s2_ids = self.mask_s1.keep_ids_BK, self.mask_s2.keep_ids_BK
        s1_BLP, s2_BLP = patchify(self.s1, model.config.patch), patchify(self.s2, model.config.patch)
        self.biases = model.biases(s1_ids, s2_ids)
        self.s1_tokens = model.s1_encoder(take_patches(s1_BLP, s1_ids), self.biases.s1)
        self.s2_tokens = model.s2_encoder(take_patches(s2_BLP, s2_ids), self.biases.s2)
        self.gaps = model.pool(self.s1_tokens, self.s2_tokens)
        self.projections = model.contrastive.project(*self.gaps)
        self.contrastive = model.contrastive.loss(*self.projections)
        self.joint = model.fuse(self.s1_tokens, self.s2_tokens, self.biases)
        self.predicted = model.decoder(self.joint, s1_ids)
        self.target = reconstruction_target(s1_BLP, s2_BLP, norm=model.config.target_norm)
        self.mae_optical, self.mae_sar = model.reconstruction_losses(
            self.predicted, self.target, masks=(self.mask_s1, self.mask_s2)
        )
        self.mae = self.mae_optical + self.mae_sar
        return self

    def parameters(self) -> dict[str, Tensor]:
        """By official name."""
        return croma_names.to_official(
            {
                **dict(self.model.named_parameters()),
                "decoder.decoder_pos_embed": torch.empty(0),
            }
        )

    def grads(self, loss: Tensor) -> dict[str, Tensor]:
        params = {name: p for name, p in self.parameters().items() if p.requires_grad}
        found = torch.autograd.grad(loss, list(params.values()), retain_graph=True, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), found, strict=True)}

    def forward(self) -> "dict[str, Tensor]":
        out = self.model(self.s1, self.s2, noise_s1_BL=self.noise_s1, noise_s2_BL=self.noise_s2)
        return {"total": out.total, **out.parts}


def _pretrain_model(**changes: str) -> Croma:
    data = golden("pretrain")
    config = data.config
    patches_a_side = int(config["num_patches"] ** 0.5)
    settings = {"mode": "official", "target_norm": "joint"} | changes
    model = Croma(
        CromaConfig(
            encoder_dim=config["encoder_dim"],
            depth=config["encoder_layers"],
            heads=config["attention_heads"],
            patch=config["patch_size"],
            image_px=patches_a_side * config["patch_size"],
            optical_bands=config["total_channels"] - 2,
            decoder_dim=config["decoder_dim"],
            decoder_depth=config["decoder_layers"],
            decoder_heads=config["decoder_heads"],
            mask_ratio=config["mask_ratio"],
            **settings,
        )
    )
    weights.load(model, croma_names.from_official(data.under("state.")))
    return model


def _pretrain() -> dict[str, Tensor]:
    step = Step().run()
    fresh = Croma(step.model.config).state_dict()["decoder.decoder_pos_embed"]
    exported = croma_names.to_official(step.model.state_dict()) | {"decoder.decoder_pos_embed": fresh}
    values = {f"state.{name}": tensor for name, tensor in exported.items()}
    return values | _masks(step) | _biases(step) | _outputs(step) | _gradients(step) | _ranks() | _trajectories()


def _masks(step: Step) -> dict[str, Tensor]:
    values = {}
    for sensor, mask in (("radar", step.mask_s1), ("optical", step.mask_s2)):
        values[f"mask.{sensor}.ids_keep"] = mask.keep_ids_BK
        values[f"mask.{sensor}.ids_restore"] = mask.restore_ids_BL
        values[f"mask.{sensor}.mask_for_mae"] = mask.removed_BL
    return values


def _biases(step: Step) -> dict[str, Tensor]:
    named = {"radar": step.biases.s1, "optical": step.biases.s2, "cross": step.biases.joint_cross}
    heads = {"h0": 0, "hlast": -1}
    return {f"out.bias_{n}_s0_{h}": bias[0, i] for n, bias in named.items() for h, i in heads.items()}


def _outputs(step: Step) -> dict[str, Tensor]:
    double = Step(torch.float64).run()
    return {
        "out.radar_encodings": step.s1_tokens,
        "out.optical_encodings": step.s2_tokens,
        "out.radar_GAP": step.gaps[0],
        "out.optical_GAP": step.gaps[1],
        "out.radar_proj": step.projections[0],
        "out.optical_proj": step.projections[1],
        "out.joint_encodings": step.joint,
        "out.decoder_pred_s0_first24": step.predicted[0, :24],
        "out.contrastive_loss": step.contrastive,
        "out.mae_loss": step.mae,
        "out.mae_loss_optical": step.mae_optical,
        "out.mae_loss_radar": step.mae_sar,
        "out.contrastive_loss_f64": double.contrastive,
        "out.mae_loss_f64": double.mae,
    }


def _gradients(step: Step) -> dict[str, Tensor]:
    names = json.loads(golden("pretrain").metadata["grad_norm_names"])
    losses = {"contrastive": step.contrastive, "mae": step.mae, "total": step.contrastive + step.mae}
    values = {}
    for kind, loss in losses.items():
        grads = step.grads(loss)
        assert set(grads) == set(names)
        values[f"grad.norm_{kind}"] = torch.stack([grads[name].double().norm() for name in names])
        values |= {f"grad.{kind}.{name}": grad for name, grad in grads.items()}
    s1, s2 = torch.autograd.grad(step.contrastive, step.projections, retain_graph=True)
    return values | {"grad.contrastive.wrt_radar_proj_out": s1, "grad.contrastive.wrt_optical_proj_out": s2}


def _trajectories() -> dict[str, Tensor]:
    return {
        "train.adamw_trajectory": _trajectory(torch.float32),
        "train.adamw_trajectory_f64": _trajectory(torch.float64),
    }


def _trajectory(dtype: torch.dtype) -> Tensor:
    step, rows = Step(dtype), []
    optimizer = torch.optim.AdamW(step.model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for _ in range(len(golden("pretrain")["train.adamw_trajectory"])):
        losses = step.forward()
        rows.append(torch.stack((losses["contrastive"], losses["mae"])).double())
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    return torch.stack(rows)


def _primitives() -> dict[str, Tensor]:
    data = golden("primitives")
    values = {name: _alibi(name) for name in data.tensors if name.startswith("alibi.")}
    values |= {name: _sincos(name) for name in data.tensors if name.startswith("sincos.")}
    x = data["norm.input"]
    mean, std = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3))
    values |= {"norm.out_u8": to_uint8(x, mean, std), "norm.out_float": two_sigma(x, mean, std)}
    return values | _tiny_masks(data)


def _numbers(name: str) -> tuple[int, int, int]:
    """(heads or width, side of the grid, query or -1) of a name like `alibi.h16_n225.query0`."""
    kind, _, query = name.partition(".")[2].partition(".query")
    first, count = (int(part[1:]) for part in kind.split("_"))
    side = int(count**0.5)
    return first, side, int(query or -1)


def _alibi(name: str) -> Tensor:
    heads, side, query = _numbers(name)
    grid = grid_yx(side, side)
    bias = alibi_bias(grid, grid, alibi_slopes(heads))
    return bias[None] if query < 0 else bias[:, query]


def _sincos(name: str) -> Tensor:
    width, side, _ = _numbers(name)
    return sincos_table(side, side, width=width, dtype=torch.float64)


def _tiny_masks(data: Golden) -> dict[str, Tensor]:
    side = int(data["tinymask.radar_noise"].shape[1] ** 0.5)
    slopes = alibi_slopes(data.tensors["tinymask.bias_cross"].shape[1])
    kept = data.tensors["tinymask.radar_ids_keep"].shape[1]
    orders = (data[f"tinymask.{sensor}_noise"].argsort(dim=1, stable=True) for sensor in PARTS)
    s1, s2 = (mask_from_order(order, kept=kept) for order in orders)
    s1_yx, s2_yx = patch_yx(s1.keep_ids_BK, side), patch_yx(s2.keep_ids_BK, side)
    return {
        "tinymask.radar_ids_keep": s1.keep_ids_BK,
        "tinymask.radar_ids_restore": s1.restore_ids_BL,
        "tinymask.radar_mask": s1.removed_BL,
        "tinymask.optical_ids_keep": s2.keep_ids_BK,
        "tinymask.bias_radar": alibi_bias(s1_yx, s1_yx, slopes),
        "tinymask.bias_optical": alibi_bias(s2_yx, s2_yx, slopes),
        "tinymask.bias_cross": alibi_bias(s1_yx, s2_yx, slopes),
    }


# ── two ranks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _ranks() -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        commands = [[sys.executable, __file__, str(rank), folder] for rank in range(2)]
        env = os.environ | {
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        }
        ranks = [subprocess.Popen(c, env=env, stderr=subprocess.PIPE, text=True) for c in commands]
        try:
            for rank in ranks:
                _, stderr = rank.communicate(timeout=120)
                assert rank.returncode == 0, stderr
            found = [load_file(Path(folder) / f"{rank}.safetensors") for rank in range(2)]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    return {name: torch.cat([values[name] for values in found]) for name in found[0]}


def _run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = len(golden("pretrain")["in.images_u8"]) // 2
    step = Step(rows=slice(half * rank, half * (rank + 1))).run()
    grads = step.grads(step.contrastive)
    head, prefix = "global_contrast_loss", "grad.two_rank.contrastive"
    values = {
        "out.two_rank.contrastive_loss": step.contrastive,
        "out.two_rank.mae_loss": step.mae,
        f"{prefix}.logit_scale": grads[f"{head}.logit_scale"],
        f"{prefix}.optical_proj.weight.norm": grads[f"{head}.optical_proj.weight"].norm(),
        f"{prefix}.radar_proj.weight.norm": grads[f"{head}.radar_proj.weight"].norm(),
    }
    save_file({n: v.detach().double().reshape(1) for n, v in values.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


# ── tests ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_VALUES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "inference": functools.cache(_inference),
    "pretrain": functools.cache(_pretrain),
    "primitives": functools.cache(_primitives),
}

# (rtol, atol) by the first prefix that fits: the tolerances of the golden folder's README.
_TOLERANCES = {
    "state.": (0.0, 0.0),
    "mask.": (0.0, 0.0),
    "tinymask.": (0.0, 0.0),
    "alibi.": (0.0, 0.0),
    "out.bias": (0.0, 0.0),
    "out.contrastive_loss_f64": (0.0, 1e-7),
    "out.mae_loss_f64": (0.0, 1e-7),
    "out.contrastive_loss": (0.0, 1e-5),
    "out.mae_loss": (0.0, 1e-5),
    "out.two_rank": (0.0, 1e-5),
    "out": (0.0, 2e-5),
    "grad.": (1e-3, 1e-6),
    "train.adamw_trajectory_f64": (0.0, 1e-6),
    "train.": (0.0, 1e-4),
    "norm.out_u8": (0.0, 1.0),
    "norm.": (0.0, 1e-6),
    "sincos.": (0.0, 1e-12),
}


@pytest.mark.usefixtures("_present")
@pytest.mark.parametrize(("file", "name"), [pytest.param(*pair, id="-".join(pair)) for pair in tensor_names("croma")])
def test_tensor(file: str, name: str) -> None:
    values, data = _VALUES[file.partition("/")[2]](), read_golden(file)
    if name.startswith("in") or name.endswith(("_noise", ".input")):
        assert name in data.read, "an input that no value was computed from"
        return
    rtol, atol = next(limits for prefix, limits in _TOLERANCES.items() if name.startswith(prefix))
    expected = data.tensors[name].double()
    torch.testing.assert_close(values[name].detach().double(), expected, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("_present")
def test_forward_is_the_sum_of_its_methods() -> None:
    step = Step()
    forward, parts = step.forward(), step.run()
    for name, value in (("contrastive", parts.contrastive), ("mae", parts.mae), ("mae_sar", parts.mae_sar)):
        torch.testing.assert_close(forward[name], value, rtol=0, atol=0)
    torch.testing.assert_close(forward["total"], parts.contrastive + parts.mae, rtol=0, atol=0)


@pytest.mark.usefixtures("_present")
def test_diagnostics_of_the_readme() -> None:
    official, exact = Step().run(), Step(mode="exact").run()
    assert Step(target_norm="per_sensor").run().mae.item() == pytest.approx(3.957076, abs=1e-5)
    assert exact.mae.item() == pytest.approx(3.579553, abs=1e-5)
    assert (exact.joint - official.joint).abs().max().item() == pytest.approx(0.0510, abs=1e-4)
    assert exact.contrastive.item() == pytest.approx(official.contrastive.item(), abs=1e-6)
    for step, norms in ((official, (0.2768, 0.1363)), (exact, (0.6765, 0.3008))):
        found = [g.norm().item() for g in torch.autograd.grad(step.contrastive, step.projections)]
        assert found == pytest.approx(norms, abs=1e-4)


@pytest.mark.usefixtures("_present")
def test_a_constant_patch_has_a_zero_target() -> None:
    assert Step().run().target[0, 7].abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, (42_614_016, 85_618_944, 56_684_544, 4_723_968, 4_120_960, 1_181_185, 199_667_585, 199_552_385, 328)),
        (
            {"encoder_dim": 1024, "depth": 24},
            (151_251_968, 303_025_152, 201_488_384, 8_395_776, 4_252_032, 2_099_201, 678_908_289, 678_793_089, 634),
        ),
    ],
    ids=["base", "large"],
)
def test_parameter_counts(settings: dict[str, int], counts: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = Croma(CromaConfig(**settings))
    parts = (model.s1_encoder, model.s2_encoder, model.joint_encoder, model.s1_GAP_FFN, model.decoder)
    sizes = [sum(tensor.numel() for tensor in part.state_dict().values()) for part in (*parts, model.contrastive)]
    state = model.state_dict()
    trainable = sum(parameter.numel() for parameter in model.parameters())
    released = sum(map(len, croma_names.to_released(state).values()))
    assert (*sizes, sum(x.numel() for x in state.values()), trainable, released) == counts


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), Path(sys.argv[2]))
