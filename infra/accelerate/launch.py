"""`accelerate launch`, ended with the exit code of what it launched, for schedulers that act on it.

python infra/accelerate/launch.py --config_file infra/accelerate/gpu-nodes.yaml train/croma.py ...

accelerate itself ends with 1 whatever happened. Here 75 means that it or its ranks were stopped: start it again
with --resume. 2 is an error that ranks explained, 128 + N a rank that died by signal N. After SIGTERM ranks have
TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (30) to save. With --max_restarts several machines start their ranks again.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial

from accelerate.commands import launch
from accelerate.utils.launch import prepare_simple_launcher_cmd_env
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

AGAIN = 75
"""What a rank ends with that was asked to stop, and saved."""


def main() -> int:
    """Launch what the command line says; the exit code."""
    launch.simple_launcher = _become
    launch.multi_gpu_launcher = partial(_meet, launch.multi_gpu_launcher)
    return run(launch.main)


def run(launched: Callable[[], object]) -> int:
    """Launch; the exit code."""
    try:
        launched()
    except ChildFailedError as error:
        return _as_shell(error.get_first_failure()[1].exitcode)
    except SignalException:
        return AGAIN
    return 0


def _become(asked: Namespace) -> None:
    """Turn into a lone process, rather than wait for it: a signal that ended the waiting would leave it alone."""
    command, environment = prepare_simple_launcher_cmd_env(asked)
    os.execvpe(command[0], command, environment)  # noqa: S606  that is what becoming is


def _meet(launcher: Callable[[Namespace], None], asked: Namespace) -> None:
    """Launch ranks; those of several machines that may be started again such that all of them are, and meet anew.

    accelerate (1.15) makes the launchers meet once, so that each starts its own ranks again, in one store that lasts:
    there the new ones read where the dead ones listened. torchrun's c10d brings the launchers together again, but also
    keeps its store if nothing is said (2.13), and guesses from names which machine is the head.
    """
    if asked.num_machines > 1 and asked.max_restarts > 0:
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
        head = f"is_host={asked.machine_rank == 0}"
        asked.rdzv_backend, asked.rdzv_conf = "c10d", ",".join(filter(None, (head, asked.rdzv_conf)))
    launcher(asked)


def _as_shell(code: int) -> int:
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
