"""The learning rate as a function of samples, and an optimizer whose state travels by name."""

import pytest
import torch
from torch import nn

from pipeline.errors import StreamError
from train.optim import OptimConfig, adamw, load_optimizer, lr_at, optimizer_tensors, peak_lr, set_lr

pytestmark = pytest.mark.train
CONFIG = OptimConfig(base_lr=1e-3, warmup=0.1, floor=0.1)


def rate(samples: int, config: OptimConfig = CONFIG) -> float:
    return lr_at(samples, total=1000, peak=2.0, config=config)


def test_rises_linearly_then_falls_as_a_cosine() -> None:
    assert rate(0) == 0
    assert rate(50) == pytest.approx(1.0)
    assert rate(100) == pytest.approx(2.0)
    assert rate(550) == pytest.approx(1.1)
    assert rate(1000) == pytest.approx(0.2)
    assert rate(5000) == pytest.approx(0.2)
    falling = [rate(samples) for samples in range(100, 1001, 10)]
    assert falling == sorted(falling, reverse=True)


def test_no_warm_up_begins_at_the_peak() -> None:
    assert rate(0, OptimConfig(base_lr=1e-3, warmup=0.0)) == 2.0


def test_peak_scales_with_the_batch() -> None:
    assert peak_lr(CONFIG, 256) == CONFIG.base_lr
    assert peak_lr(CONFIG, 512) == 2 * CONFIG.base_lr


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    module.token, module.scale = nn.Parameter(torch.zeros(1, 1, 5)), nn.Parameter(torch.tensor(1.0))
    decaying, others = adamw(module, CONFIG).param_groups
    assert [tuple(one.shape) for one in decaying["params"]] == [(4, 3)]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert len(others["params"]) == 5


def _steps(module: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        module(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        set_lr(optimizer, 0.01 * (seed + 1))
        optimizer.step()


def test_state_goes_round_to_the_bit() -> None:
    torch.manual_seed(0)
    whole, half, resumed = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    half.load_state_dict(whole.state_dict())
    _steps(whole, adamw(whole, CONFIG), range(6))
    first = adamw(half, CONFIG)
    _steps(half, first, range(3))
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(first, half).items()}
    assert {name.partition("/")[0] for name in tensors} == {"exp_avg", "exp_avg_sq", "step"}
    resumed.load_state_dict(half.state_dict())
    second = adamw(resumed, CONFIG)
    load_optimizer(second, resumed, tensors)
    _steps(resumed, second, range(3, 6))
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_state_of_another_model_is_refused() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(StreamError, match=r"head\.weight"):
        load_optimizer(adamw(module, CONFIG), module, {"exp_avg/head.weight": torch.zeros(1)})
