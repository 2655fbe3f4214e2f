"""What ranks tell each other: sums, means, and errors, so that all of them stop together or none does.

Why: a rank that raises alone leaves the others waiting in a collective until they are killed, with their tracebacks on
top of the one message that matters.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pipeline.errors import PretrainError, SourceError, StreamError, UsageError
from train import plugins
from train.options import RANK_TIMEOUT_S
from train.stream.heap import keep_freed_memory

T = TypeVar("T")
_HALF = 32
_WATCH_S = 0.2
_BROKEN = re.compile(r"gloo/transport.*(timed out|timeout|connect|clos|reset|broken pipe|unreachable)", re.IGNORECASE)
"""gloo's errors of connections, which are plain RuntimeErrors (torch 2.13)."""
_wait: ContextVar[timedelta] = ContextVar("wait", default=timedelta(seconds=RANK_TIMEOUT_S))
"""How long this process's groups wait for a rank: a group cannot be asked."""


class Lost(PretrainError):
    """Another rank is silent or gone, and this one cannot go on without it."""

    exit_code = SourceError.exit_code


def start(precision: str, *, timeout_s: float = RANK_TIMEOUT_S) -> Accelerator:
    """Join the process group that the launcher asked for.

    Args:
        precision: `no` or `bf16`, the recipe's choice.
        timeout_s: how long any exchange waits for a rank that is silent; then it fails.

    Raises:
        UsageError: several processes were asked for, but each would train alone, or two on one GPU; or something that
            is not done here.
    """
    plugins.refuse(os.environ)
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ:
        raise UsageError(
            "accelerate launch was asked for several processes but starts one alone: `--cpu` and MULTI_CPU need MPI. "
            "Use --config_file infra/accelerate/cpu-two-ranks.yaml."
        )
    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        # Never more than torch chose (its default counts cores, not hyperthreads) or the caller did.
        fair = max(1, len(os.sched_getaffinity(0)) // on_this_machine())
        torch.set_num_threads(min(torch.get_num_threads(), fair))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_leave_with, args=(os.getppid(),), name="leave", daemon=True).start()
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    # Without `cpu` accelerate forms no process group where there is no GPU: each rank would train alone.
    cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    if not cpu and on_this_machine() > torch.cuda.device_count():
        raise UsageError(
            f"{on_this_machine()} processes were launched on a machine of {torch.cuda.device_count()} GPUs, and each "
            "needs its own. Give accelerate launch a smaller --num_processes (that of all machines together)."
        )
    _join("gloo" if cpu else "nccl", timedelta(seconds=timeout_s))
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[ddp])
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise UsageError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but they form groups of {accelerator.num_processes}. "
            "Use a file of infra/accelerate."
        )
    return accelerator


def finish(accelerator: Accelerator) -> None:
    """Leave the process group; nothing may hold the wrapped module any more.

    The module goes first. Where its gradient reducer is the last to let go of the group (torch 2.13), the group waits
    for its threads with the interpreter's lock in hand, and they for the lock: about one run in twenty on a busy
    machine never ended.
    """
    accelerator.free_memory()
    accelerator.end_training()


def _join(backend: str, timeout: timedelta) -> None:
    """Form the group of all ranks; those that torchrun started again apart from what those before left in its store.

    Accelerate would form it, but does not pass on 600 s, which it takes for the default (1.15): gloo's is half an hour,
    for which a run stands still when a machine loses its power.

    torchrun's store lives on through its restarts (torch 2.13), and with it the addresses of ranks that are dead: about
    every second restart on a busy machine waited for them for ever. Machines count their restarts apart, so several of
    them need a new store each time, for which infra/accelerate/launch.py asks.
    """
    _wait.set(timeout)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restarts == 0 or os.environ.get("GROUP_WORLD_SIZE") != "1":
        dist.init_process_group(backend, timeout=timeout)
        return
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    own = PrefixStore(f"restart-{restarts}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)


def on_this_machine() -> int:
    """Ranks of this run that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _leave_with(launcher: int) -> None:
    """End this process when its launcher is gone.

    torchrun starts ranks in sessions of their own: a SIGKILL of the launcher, or of its group, leaves them training and
    writing into OUT, beside the run that was started in their place.
    """
    while os.getppid() == launcher:
        time.sleep(_WATCH_S)
    os._exit(1)


@contextmanager
def losing(timeout_s: float) -> Iterator[None]:
    """Within, an exchange that fails for want of another rank is a `Lost` with words.

    Raises:
        Lost: another rank did not answer for `timeout_s`, or its connection broke.
    """
    try:
        yield
    except RuntimeError as error:
        if not _BROKEN.search(str(error)) and not isinstance(error, dist.DistNetworkError):
            raise
        why = str(error).splitlines()[0].rpartition("] ")[2]
        raise Lost(
            f"rank {os.environ.get('RANK')} lost another one: {why}. A process, a machine or the network is gone, or "
            f"was silent for {timeout_s:g} s (--rank-timeout). A launcher with --max-restarts starts all ranks again; "
            "otherwise the same command with --resume goes on from the last checkpoint."
        ) from error


def guard(accelerator: Accelerator) -> None:
    """Refuse a loader or a scheduler that was given to `accelerator.prepare`.

    It would split batches that are already one rank's own, and step the rate once per process (accelerate 1.15).

    Raises:
        StreamError: one was.
    """
    if accelerator._dataloaders or accelerator._schedulers:  # noqa: SLF001 - there is no public way to ask
        raise StreamError("accelerator.prepare was given a loader or a scheduler. Give it the module only.")


def together(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Run `action` on every rank; an error of one becomes an error of all.

    Raises:
        PretrainError: this rank's own, or a StreamError that tells which rank failed and why.
    """
    error: PretrainError | None = None
    result: T | None = None
    try:
        result = action()
    except PretrainError as caught:
        error = caught
    fail_together(accelerator, error)
    return result  # type: ignore[return-value]  # there was no error, so there is a result


def fail_together(accelerator: Accelerator, error: PretrainError | None) -> None:
    """Raise on every rank if `error` is one on any."""
    messages: list[str] = gather_object(["" if error is None else str(error)])
    if error is not None:
        raise error
    failed = next((rank for rank, message in enumerate(messages) if message), None)
    if failed is not None:
        raise StreamError(f"rank {failed} of {accelerator.num_processes}: {messages[failed]}")


def joined(own: Sequence[int]) -> list[int]:
    """The numbers of all ranks."""
    everyone: list[int] = gather_object(list(own))
    return everyone


def check_equal(facts: Sequence[object]) -> None:
    """Raise StreamError unless `facts` are the same on all ranks."""
    everyone: list[str] = gather_object([repr(tuple(facts))])
    different = next((rank for rank, theirs in enumerate(everyone) if theirs != everyone[0]), None)
    if different is not None:
        raise StreamError(
            f"ranks disagree: rank 0 has {everyone[0]}, rank {different} has {everyone[different]}. "
            "Start all of them with the same code, flags and data."
        )


def exchange(hashes_B: Tensor, *, damaged: int, failed: bool, stop: bool) -> tuple[int, int, bool, bool]:
    """All ranks' hashes and damaged samples, and whether any rank failed or is to stop, in one exchange of hosts.

    Args:
        hashes_B: (B,) int64 on the host; ignored where `failed`.
        damaged: how many damaged samples this rank met.
        failed: whether this rank did.
        stop: whether this rank was asked to.

    Returns:
        The sum of the hashes modulo 2^64, the sum of `damaged`, and whether any rank `failed`, or is to `stop`.
    """
    own = sum(hashes_B.tolist()) % 2**64
    # Halves: a sum of 32-bit numbers does not overflow int64 at any world size.
    total = torch.tensor([damaged, int(failed), int(stop), own >> _HALF, own % 2**_HALF])
    if dist.is_initialized():
        dist.all_reduce(total, group=_hosts())
    all_damaged, any_failed, any_stop, high, low = total.tolist()
    return ((high << _HALF) + low) % 2**64, all_damaged, bool(any_failed), bool(any_stop)


@lru_cache(maxsize=1)
def _hosts() -> dist.ProcessGroup | None:
    """All ranks, reached without their devices."""
    if dist.get_backend() == "gloo":
        return None
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_wait.get())
    return group


def mean(values: Sequence[Tensor]) -> Tensor:
    """The mean over ranks of N scalars, (N,) float64 on the device, which is not waited for."""
    stacked_N = torch.stack([value.detach().to(torch.float64) for value in values])
    if dist.is_initialized():
        dist.all_reduce(stacked_N)
        stacked_N /= dist.get_world_size()
    return stacked_N
