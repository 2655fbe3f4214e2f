"""InfoNCE against a plain loop, and two ranks against one. Run as a script, this file is one rank."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from train.models.contrastive import MAX_LOGIT_SCALE, ContrastiveHead, gather_rows, info_nce
from train.models.croma import Croma, CromaConfig

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
RANKS, BATCH = 2, 6


def _features(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    s1, s2 = (torch.randn(4, 5, generator=draw, dtype=dtype).requires_grad_() for _ in range(2))
    return s1, s2, torch.tensor(1.3, dtype=dtype).requires_grad_()


def _plain_loop(s1: Tensor, s2: Tensor, scale: Tensor, *, detach: bool) -> Tensor:
    total = torch.zeros((), dtype=s1.dtype)
    s1, s2 = (x / x.norm(dim=1, keepdim=True) for x in (s1, s2))
    for a, b in ((s1, s2), (s2, s1)):
        for i in range(len(a)):
            logits = torch.stack([scale.exp() * (a[i] @ (b[j].detach() if detach else b[j])) for j in range(len(b))])
            total = total + logits.logsumexp(0) - logits[i]
    return total / (2 * len(s1))


@pytest.mark.parametrize("mode", ["exact", "official"])
def test_value_and_gradient_are_a_plain_loop(mode) -> None:
    inputs = _features()
    loss, expected = info_nce(*inputs, mode=mode), _plain_loop(*inputs, detach=mode == "official")
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_exact_passes_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda *x: info_nce(*x, mode="exact"), _features())


def test_official_gradient_is_another_one() -> None:
    inputs = _features()
    exact, official = (
        torch.autograd.grad(info_nce(*inputs, mode=mode), inputs[0])[0] for mode in ("exact", "official")
    )
    assert official.norm() < 0.9 * exact.norm()


def test_gathering_alone_is_the_identity() -> None:
    rows = torch.randn(2, 3, 4, requires_grad=True)
    assert gather_rows(rows, mode="exact") is rows
    official = gather_rows(rows, mode="official")
    assert torch.equal(official, rows)
    assert not official.requires_grad


def test_exact_clamps_the_scale_and_official_does_not() -> None:
    s1, s2 = torch.randn(4, 8), torch.randn(4, 8)
    for mode, expected in (("exact", MAX_LOGIT_SCALE), ("official", 7.0)):
        head = ContrastiveHead(8, mode=mode)
        with torch.no_grad():
            head.logit_scale.fill_(7.0)
        head(s1, s2).backward()
        assert head.logit_scale.item() == pytest.approx(expected)
        assert head.logit_scale.grad.item() != 0
    assert ContrastiveHead(8).logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_low_precision_features_are_compared_in_float32() -> None:
    s1, s2, scale = (x.detach() for x in _features(torch.float32))
    low = info_nce(s1.bfloat16(), s2.bfloat16(), scale)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, info_nce(s1.bfloat16().float(), s2.bfloat16().float(), scale), rtol=0, atol=0)
    head = ContrastiveHead(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(s1.bfloat16(), s2.bfloat16()).dtype == torch.float32


# ── two ranks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(mode) -> Croma:
    torch.manual_seed(0)
    config = CromaConfig(
        encoder_dim=16, depth=3, heads=2, image_px=32, decoder_dim=16, decoder_heads=2, mask_ratio=0.5, mode=mode
    )
    return Croma(config)


def _step(model: torch.nn.Module, rows: slice) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    s1, s2 = (torch.rand(BATCH, bands, 32, 32, generator=draw)[rows] for bands in (2, 12))
    noise_s1, noise_s2 = (torch.rand(BATCH, 16, generator=draw)[rows] for _ in range(2))
    losses = model(s1, s2, noise_s1_BL=noise_s1, noise_s2_BL=noise_s2)
    losses.total.backward()
    values = {f"grad.{name.removeprefix('module.')}": p.grad for name, p in model.named_parameters()}
    return values | {f"loss.{name}": part for name, part in losses.parts.items()} | {"loss.total": losses.total}


def _run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    share = BATCH // RANKS
    for mode in ("exact", "official"):
        values = _step(DistributedDataParallel(_model(mode)), slice(rank * share, (rank + 1) * share))
        save_file({name: x.detach().clone() for name, x in values.items()}, folder / f"{mode}-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::UserWarning", __file__]
    started = [
        subprocess.Popen([*command, str(rank), str(folder)], env=env, stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        for process in started:
            _, stderr = process.communicate(timeout=120)
            assert process.returncode == 0, stderr
    finally:
        for process in started:
            process.kill()
            process.wait()
    return folder


@pytest.mark.parametrize("mode", ["exact", "official"])
def test_two_ranks_under_ddp_are_one(mode, ranks: Path) -> None:
    one = _step(_model(mode), slice(None))
    two = [load_file(ranks / f"{mode}-{rank}.safetensors") for rank in range(RANKS)]
    for name, expected in one.items():
        # Losses are per rank and mean to the whole; DDP has averaged the gradients already.
        found = torch.stack([values[name] for values in two])
        torch.testing.assert_close(found.mean(dim=0), expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        if name.startswith("grad."):
            assert torch.equal(found[0], found[1]), name
    assert two[0]["loss.contrastive"] != two[1]["loss.contrastive"]


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), Path(sys.argv[2]))
