"""The optimizer, and a learning rate that is a pure function of the samples consumed.

Why not a scheduler object: it would be state to save, and Accelerate's steps once per process, so that the curve would
change with the world size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import StreamError

REFERENCE_BATCH = 256
"""The global batch at which a base learning rate holds as it is (Goyal et al. 2017, linear scaling)."""
_UNDECAYED = ("cls_token", "pos_embed")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    base_lr: float
    """Learning rate at a global batch of `REFERENCE_BATCH`; scaled linearly."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    weight_decay: float = 0.01
    """Decoupled; of matrices only."""
    decay_tokens: bool = False
    """Decay also class and mask tokens: whatever has more than one axis, as MAE and SatMAE do."""
    warmup: float = 0.05
    """Share of the samples in which the rate rises linearly from 0."""
    floor: float = 0.0
    """Share of the peak at which the cosine ends."""
    grad_clip: float | None = None
    """Largest norm of the gradient; None: not clipped."""
    skip_sigmas: float | None = 6.0
    """A step is skipped whose loss or gradient norm is so many standard deviations above the last 128; None: never."""
    skips: int = 10
    """So many skipped steps in a row end the run."""


def peak_lr(config: OptimConfig, global_batch: int) -> float:
    """The highest learning rate of a run."""
    return config.base_lr * global_batch / REFERENCE_BATCH


def lr_at(samples: int, *, total: int, peak: float, config: OptimConfig) -> float:
    """The learning rate of the step that ends behind `samples`: a linear rise, then half a cosine down to the floor.

    Args:
        samples: consumed over all ranks, those of the step included.
        total: samples of the whole run.
        peak: the highest rate.
        config: for warm-up and floor.
    """
    rise = config.warmup * total
    if samples < rise:
        return peak * samples / rise
    progress = min((samples - rise) / max(total - rise, 1), 1.0)
    return peak * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def adamw(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors and scalars (biases, norms, temperature; mostly tokens) alone."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if _decays(parameter, config)]
    others = [parameter for parameter in parameters if not _decays(parameter, config)]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(parameter.device.type in {"cpu", "cuda"} for parameter in parameters)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=config.betas, fused=fused)


def finetune_groups(
    module: nn.Module, *, depth: int, layer_decay: float, weight_decay: float
) -> dict[str, tuple[float, float]]:
    """Learning rate scale and weight decay of each parameter of a ViT that is fine-tuned (BEiT, MAE, SatMAE).

    Layer i of `depth` blocks learns at `layer_decay ** (depth + 1 - i)`: 0 for what stands before the blocks, 1 to
    `depth` for the blocks; the rest at full rate. As released, codes of band groups count as the rest, and decay.

    Returns:
        (scale, decay) by name.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    return {
        name: (
            layer_decay ** (depth + 1 - _layer(name, depth)),
            0.0 if parameter.ndim == 1 or name in _UNDECAYED else weight_decay,
        )
        for name, parameter in named
    }


def _layer(name: str, depth: int) -> int:
    part, _, rest = name.partition(".")
    if part in {*_UNDECAYED, "patch_embed"}:
        return 0
    return int(rest.partition(".")[0]) + 1 if part == "blocks" else depth + 1


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def skip_if(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Let the next step change nothing where `skip`, a scalar on the device, holds: as gradient scalers do it.

    The fused AdamW obeys it without a look from the host; the others are asked on the host.
    """
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]


def step(optimizer: torch.optim.Optimizer) -> None:
    """Update, unless the last `skip_if` held."""
    if optimizer.defaults["fused"] or not bool(optimizer.found_inf):  # type: ignore[attr-defined]
        optimizer.step()


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state by name: `exp_avg/s1_encoder.linear_input.weight`."""
    named = ((name, parameter) for name, parameter in module.named_parameters() if parameter in optimizer.state)
    return {f"{kind}/{name}": value for name, parameter in named for kind, value in optimizer.state[parameter].items()}


def load_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer back what `optimizer_tensors` took.

    Raises:
        StreamError: the tensors are of other parameters.
    """
    parameters = dict(module.named_parameters())
    unknown = [name for name in tensors if name.partition("/")[2] not in parameters]
    if unknown:
        raise StreamError(
            f"the checkpoint's optimizer knows {unknown[0]}, which the model has not. "
            "Resume with the code and the recipe that wrote it."
        )
    for name, tensor in tensors.items():
        kind, _, parameter = name.partition("/")
        device = "cpu" if kind == "step" and not optimizer.defaults["fused"] else parameters[parameter].device
        optimizer.state[parameters[parameter]][kind] = tensor.to(device)


def _decays(parameter: Tensor, config: OptimConfig) -> bool:
    return parameter.ndim > 1 if config.decay_tokens else sum(size > 1 for size in parameter.shape) > 1
