"""What group recommendation costs: users that are identified and trained on, and the released code's epoch.

    python tests/benchmarks/grouprec.py --users 10000,100000,1000000 --json
    python tests/benchmarks/grouprec.py --data ../shared/data/itr/camra2011 --json

Each size runs in a process of its own, so that its memory is its own. Processor seconds tell most on a machine that
does other work, too.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from train.grouprec import modes, planted, source
from train.grouprec.fit import Trainer
from train.grouprec.planted import Planted


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--users", default="10000,100000", help="sizes of planted data, ten interactions a user")
    flags.add_argument("--data", help="instead: epochs of reference mode on a benchmark, at its batch of 512 pairs")
    flags.add_argument("--epochs", type=int, default=5, help="of --data (5)")
    flags.add_argument("--threads", type=int, default=1, help="(1)")
    flags.add_argument("--one", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--json", action="store_true", help="print JSON instead of lines")
    asked = flags.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.one:
        rows = [scale(asked.one)]
    elif asked.data:
        rows = [reference(asked.data, asked.epochs)]
    else:
        rows = [_alone(int(users), asked.threads) for users in asked.users.split(",")]
    sys.stdout.write(json.dumps(rows) + "\n" if asked.json else "".join(f"{row}\n" for row in rows))


def scale(users: int) -> dict[str, Any]:
    """Identify the groups of trained vectors, and an epoch of one negative a positive."""
    data, _ = planted.dataset(Planted(users=users, items=max(users // 10, 1000), groups=20, per_user=11))
    config = modes.recommended("planted")
    assert config.grouping is not None
    alone = replace(config, layers=0, negatives=1, batch=8192, epochs=2, select=False)
    trainer = Trainer(data, replace(alone, grouping=replace(config.grouping, warmup=1, steps=1)), seed=0)
    plain = _timed(trainer.epoch)
    grouped = _timed(trainer.epoch)
    return {
        "users": users,
        "interactions": len(data.user_items),
        "epoch_cpu_s": plain[0],
        "epoch_with_identification_cpu_s": grouped[0],
        "epoch_s": plain[1],
        "epoch_with_identification_s": grouped[1],
        "groups": len(trainer.state.center_GD),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def reference(url: str, epochs: int) -> dict[str, Any]:
    """Epochs of the released code's computation, without those that look for groups."""
    found = source.read(url, None, seed=0)
    trainer = Trainer(found.data, modes.reference(found.name), seed=0)
    trainer.epoch()
    spent = sorted(_timed(trainer.epoch) for _ in range(epochs))
    return {
        "data": found.name,
        "epoch_cpu_s": spent[epochs // 2][0],
        "epoch_s": sorted(seconds for _, seconds in spent)[epochs // 2],
        "fastest_epoch_cpu_s": spent[0][0],
    }


def _timed(action: Any) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def _alone(users: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(users), "--threads", str(threads), "--json"]
    (row,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found: dict[str, Any] = row
    return found


if __name__ == "__main__":
    main()
