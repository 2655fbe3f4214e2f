"""Two ranks that share the parameters learn what two ranks under DDP and one process alone learn. Run as a script, this
file is one rank."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from train.models.blocks import set_recompute
from train.models.contrastive import MAX_LOGIT_SCALE
from train.models.croma import Croma
from train.models.satmae import Satmae
from train.optim import OptimConfig, adamw, set_lr
from train.recipes import croma, satmae
from train.sharding import gradient_norm, mesh_of, shard

pytestmark = [pytest.mark.train, pytest.mark.slow]
RANKS, BATCH, STEPS, RATE, CLIP = 2, 8, 3, 1e-3, 0.25
"""Every step of both models is clipped."""
CONFIGS = {
    "croma": dataclasses.replace(croma.tiny().model, image_px=48),
    "satmae": dataclasses.replace(satmae.tiny_group().model, image_px=48),
}
CASES = ("croma", "satmae", "croma-bf16", "croma-recompute")


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return Croma(CONFIGS["croma"]) if name == "croma" else Satmae(CONFIGS["satmae"])


def inputs(name: str, step: int, rows: slice = slice(None)) -> tuple[list[Tensor], dict[str, Tensor]]:
    draw, config = torch.Generator().manual_seed(step), CONFIGS[name]
    if name == "croma":
        images = [torch.rand(BATCH, bands, 48, 48, generator=draw)[rows] for bands in (2, 12)]
        noises = ("noise_s1_BL", "noise_s2_BL")
        return images, {noise: torch.rand(BATCH, config.patches, generator=draw)[rows] for noise in noises}
    images = [torch.randn(BATCH, len(config.bands), 48, 48, generator=draw)[rows]]
    return images, {"noise": torch.rand(BATCH, config.noise_count, generator=draw)[rows]}


def learn(
    name: str, module: nn.Module, wrapped: nn.Module, rows: slice = slice(None), *, autocast: bool = False
) -> tuple[torch.optim.Optimizer, list[list[float]]]:
    """Three steps; loss of these rows and norm of the averaged gradient of each."""
    optimizer, told = adamw(module, OptimConfig(base_lr=1.0, weight_decay=0.1)), []
    set_lr(optimizer, RATE)
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        images, noises = inputs(name, step, rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = wrapped(*images, **noises).total
        total.backward()
        told.append([total.item(), gradient_norm(module.parameters(), CLIP).item()])
        optimizer.step()
    return optimizer, told


def whole(tensor: Tensor) -> Tensor:
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach().clone()


def _one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    mesh, share = mesh_of(torch.device("cpu")), BATCH // RANKS
    rows = slice(rank * share, (rank + 1) * share)
    for case in CASES:
        name, _, how = case.partition("-")
        plain, sharded = build(name), build(name)
        _, under_ddp = learn(name, plain, DistributedDataParallel(plain), rows, autocast=how == "bf16")
        set_recompute(sharded, on=how == "recompute")
        shard(sharded, mesh=mesh, precision="bf16" if how == "bf16" else "no")
        optimizer, in_shards = learn(name, sharded, sharded, rows)
        _keep(folder / f"{case}-{rank}", plain, under_ddp, kind="ddp")
        _keep(folder / f"{case}-{rank}", sharded, in_shards, kind="sharded")
        if not how:
            facts = {
                "parameters": sum(parameter.nbytes for parameter in plain.parameters()),
                "own": sum(local(parameter).nbytes for parameter in sharded.parameters()),
                "own_moments": sum(local(state["exp_avg"]).nbytes for state in optimizer.state.values()),
                "whole": [n for n, parameter in sharded.named_parameters() if not isinstance(parameter, DTensor)],
            }
            (folder / f"{case}-{rank}.facts.json").write_text(json.dumps(facts))
    _clamps(folder, rank, mesh)
    dist.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _keep(path: Path, module: nn.Module, told: list[list[float]], *, kind: str) -> None:
    save_file({name: whole(value) for name, value in module.state_dict().items()}, f"{path}.{kind}.safetensors")
    Path(f"{path}.{kind}.json").write_text(json.dumps(told))


def _clamps(folder: Path, rank: int, mesh: Any) -> None:
    """A temperature that ranks begin with differently is rank 0's, and clamped; its norm is measured alone."""
    module = build("croma")
    with torch.no_grad():
        module.contrastive.logit_scale.fill_(7.0 + rank)
    shard(module, mesh=mesh)
    assert module.contrastive.logit_scale.item() == 7.0
    images, noises = inputs("croma", 0, slice(rank, rank + 2))
    module(*images, **noises).total.backward()
    scale = module.contrastive.logit_scale
    assert scale.item() == pytest.approx(MAX_LOGIT_SCALE)
    squares = sum(whole(parameter.grad).square().sum().item() for parameter in module.parameters())
    assert gradient_norm(module.parameters(), math.inf).item() == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert gradient_norm([scale], math.inf).item() == pytest.approx(abs(scale.grad.item()))
    save_file({"grad": scale.grad.clone()}, folder / f"scale-{rank}.safetensors")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    harness.run_ranks(__file__, folder)
    return folder


def told(folder: Path, case: str, kind: str) -> Tensor:
    """Loss, its mean over ranks, and norm of each step."""
    return torch.tensor([json.loads((folder / f"{case}-{r}.{kind}.json").read_text()) for r in range(RANKS)]).mean(0)


@pytest.mark.parametrize("case", ["croma", "satmae"])
def test_each_rank_holds_its_share(case: str, ranks: Path) -> None:
    facts = [json.loads((ranks / f"{case}-{rank}.facts.json").read_text()) for rank in range(RANKS)]
    for fact in facts:
        assert fact["own"] == pytest.approx(fact["parameters"] / RANKS, rel=0.01)
        assert fact["own_moments"] == fact["own"]
        assert fact["whole"] == (["contrastive.logit_scale"] if case == "croma" else [])
    scalars = 4 * len(facts[0]["whole"])
    assert sum(fact["own"] for fact in facts) == facts[0]["parameters"] + scalars


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor], case: str) -> None:
    """Each tensor went the same way: AdamW divides rounding by tiny moments, so single numbers may differ more."""
    begun = build(case.partition("-")[0]).state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        way = (value - begun[name]).norm().item()
        assert (found[name] - value).norm().item() <= (2e-2 if "bf16" in case else 5e-3) * way, name


@pytest.mark.parametrize("case", CASES)
def test_shards_learn_what_ddp_learns(case: str, ranks: Path) -> None:
    torch.testing.assert_close(told(ranks, case, "sharded"), told(ranks, case, "ddp"), rtol=2e-5, atol=0)
    for rank in range(RANKS):
        sharded, ddp = (load_file(ranks / f"{case}-{rank}.{kind}.safetensors") for kind in ("sharded", "ddp"))
        check_same(sharded, ddp, case)


@pytest.mark.parametrize("case", ["croma", "satmae"])
def test_shards_learn_what_one_process_learns(case: str, ranks: Path) -> None:
    module = build(case)
    _, alone = learn(case, module, module)
    torch.testing.assert_close(told(ranks, case, "sharded"), torch.tensor(alone), rtol=2e-5, atol=0)
    check_same(load_file(ranks / f"{case}-0.sharded.safetensors"), module.state_dict(), case)


def test_the_scalar_learns_from_all_ranks(ranks: Path) -> None:
    one, two = (load_file(ranks / f"scale-{rank}.safetensors")["grad"] for rank in range(RANKS))
    assert torch.equal(one, two)
    assert one.item() != 0


@pytest.mark.parametrize("limit", [0.01, 1e6, math.inf])
def test_without_shards_clipping_is_torchs(limit: float) -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(()))] for _ in range(2))
    for seed, pair in enumerate(zip(ours, theirs, strict=True)):
        for parameter in pair:
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    ours.append(nn.Parameter(torch.zeros(2)))  # without a gradient
    assert torch.equal(gradient_norm(ours, limit), nn.utils.clip_grad_norm_(theirs, limit))
    for one, two in zip(ours, theirs, strict=False):
        assert torch.equal(one.grad, two.grad)


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), Path(sys.argv[2]))
