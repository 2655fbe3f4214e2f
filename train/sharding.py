"""Parameters in shards: of every weight, gradient and moment a rank keeps its own rows (FSDP2, Zhao et al. 2023).

Before a layer runs, forward or backward, its weights are gathered; behind the backward its gradients are averaged and
cut again. The gradient is DDP's, the mean over ranks. Accelerate's `fsdp_version=2` does not shard on a CPU and says
nothing (1.15), so `fully_shard` is called here.

A scalar has no rows: it stays whole on every rank, and its gradient is averaged by a hook.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from train.models.blocks import layers_of
from train.models.contrastive import ContrastiveHead

Precision = Literal["no", "bf16"]
_NORM_EPS = 1e-6
"""That of `torch.nn.utils.clip_grad_norm_`."""


def mesh_of(device: torch.device) -> DeviceMesh:
    """All ranks in a row, with `device` the kind of each one's; there must be a process group."""
    return init_device_mesh(device.type, (dist.get_world_size(),))


def shard(module: nn.Module, *, mesh: DeviceMesh, precision: Precision = "no") -> None:
    """Move `module` to the mesh's devices and cut its parameters, in place; names stay. Build the optimizer afterwards.

    Args:
        module: its layers are the units that are gathered, then what is left of it. Where ranks were initialised
            differently the shards make one model all the same.
        mesh: one-dimensional, of all ranks.
        precision: `bf16` gathers weights in bfloat16, averages gradients in float32 and autocasts the forward; weights,
            gradients and moments stay float32 where they are kept.
    """
    scalars = [parameter for parameter in module.parameters() if parameter.ndim == 0]
    for parameter in scalars:  # in the same order on all ranks
        _keep_whole(parameter, mesh)
    for head in [part for part in module.modules() if isinstance(part, ContrastiveHead)]:
        # It compares in its weights' dtype, which is to stay float32.
        fully_shard(head, mesh=mesh, ignored_params=set(scalars))
    policy = _policy(precision, mesh.device_type)
    for layer in layers_of(module):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=set(scalars))
    if precision == "bf16":
        _autocast(module, mesh.device_type)


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients so that their norm is at most `limit`; whole parameters are the same on all ranks.

    The host waits for nothing. Without shards this is `torch.nn.utils.clip_grad_norm_`, and no rank is asked.

    Args:
        parameters: with averaged gradients; those without are left out.
        limit: largest norm; infinite for measuring only.

    Returns:
        Scalar float32 on the gradients' device: the norm before, over all parameters and all ranks.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shards = [grad for grad in grads if isinstance(grad, DTensor)]
    own = [grad.to_local() for grad in shards]
    whole = [grad for grad in grads if not isinstance(grad, DTensor)]
    norm = get_total_norm(whole) if whole or not own else own[0].new_zeros(())
    if shards:
        squares = get_total_norm(own).square()
        dist.all_reduce(squares, group=shards[0].device_mesh.get_group())
        norm = torch.hypot(norm, squares.sqrt())
    if grads:
        torch._foreach_mul_([*own, *whole], (limit / (norm + _NORM_EPS)).clamp(max=1.0))
    return norm


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may lie in shards; called on all ranks alike."""
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found


def cut(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """An optimizer's whole tensors as `module`'s parameters lie, to be given to `load_optimizer`; no rank is asked.

    Args:
        tensors: by kind and name of the parameter, `exp_avg/NAME`, the same on all ranks.
        module: sharded or not.
    """
    parameters = dict(module.named_parameters())
    return {name: _cut(tensor, parameters.get(name.partition("/")[2])) for name, tensor in tensors.items()}


def _cut(tensor: Tensor, parameter: Tensor | None) -> Tensor:
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    mesh = parameter.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)


def _keep_whole(parameter: nn.Parameter, mesh: DeviceMesh) -> None:
    """Let all ranks begin with rank 0's `parameter` and learn from their mean gradient, as DDP does."""
    group = mesh.get_group()
    parameter.data = parameter.data.to(mesh.device_type)
    dist.broadcast(parameter.data, group=group, group_src=0)

    def average(accumulated: Tensor) -> None:
        if accumulated.grad is not None:
            dist.all_reduce(accumulated.grad, group=group)
            accumulated.grad.div_(mesh.size())

    parameter.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]


def _policy(precision: Precision, device_type: str) -> MixedPrecisionPolicy:
    # A CPU's LayerNorm sums the gradient of bfloat16 weights in bfloat16, 40 % off; there weights travel as they are.
    if precision == "no" or device_type == "cpu":
        return MixedPrecisionPolicy()
    # Inputs are autocast's business: in bfloat16, noise would hide other patches.
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)


def _autocast(module: nn.Module, device_type: str) -> None:
    forward = module.forward

    def autocasting(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, torch.bfloat16):
            return forward(*args, **kwargs)

    module.forward = autocasting
