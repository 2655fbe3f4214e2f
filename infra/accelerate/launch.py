"""`accelerate launch`, ended with the exit code of what it launched, for schedulers that act on it.

python infra/accelerate/launch.py --config_file infra/accelerate/gpu-nodes.yaml train/croma.py ...

accelerate itself ends with 1 whatever happened. Here 75 means that it or its ranks were stopped: start it again
with --resume. 2 is an error that ranks explained, 128 + N a rank that died by signal N. After SIGTERM ranks have
TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (30) to save.
"""

import subprocess
import sys
from collections.abc import Callable

from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

AGAIN = 75
"""What a rank ends with that was asked to stop, and saved."""


def run(launch: Callable[[], object]) -> int:
    """Launch; the exit code."""
    try:
        launch()
    except ChildFailedError as error:
        return _as_shell(error.get_first_failure()[1].exitcode)
    except subprocess.CalledProcessError as error:
        return _as_shell(error.returncode)
    except SignalException:
        return AGAIN
    return 0


def _as_shell(code: int) -> int:
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(main))
