# PYTHON_ARGCOMPLETE_OK
"""Find groups of users without labels, then recommend to users and groups (ITR).

python train/itr.py --data ../shared/data/itr/camra2011 --out RUN
accelerate launch --config_file infra/accelerate/cpu-two-ranks.yaml train/itr.py --data DATA --out RUN
python train/itr.py --data DATA --out RUN --recommend members:3,17,42
"""

import os
import sys
from argparse import Namespace
from functools import partial

from train.command_line import INTERRUPTED, Parser, explained, seed
from train.grouprec.names import IDENTIFIERS, MODE_NAMES, PROTOCOLS, SCORERS
from train.stop import EXIT_CODE, stoppable


def main() -> int:
    """Parse, run, print; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    say = _silent if int(os.environ.get("RANK", "0")) else _say
    from train import ranks
    from train.grouprec import command
    from train.grouprec.job import Surroundings
    from train.grouprec.peers import Peers

    os.environ["ACCELERATE_USE_CPU"] = "true"  # a step is too small for a GPU
    try:
        accelerator = ranks.start("no")
        peers = Peers(rank=accelerator.process_index, world_size=accelerator.num_processes)
        with stoppable() as request:
            around = Surroundings(peers=peers, say=say, asked_to_stop=lambda: request.made)
            finished = command.run(asked, around)
    except KeyboardInterrupt:
        say("interrupted: the same command with --resume goes on from the last checkpoint")
        return INTERRUPTED
    if not finished:
        say("stopped: saved; the same command with --resume goes on")
    return 0 if finished else EXIT_CODE


def parser() -> Parser:
    """The flags; a test freezes them."""
    flags = Parser(__doc__)
    flags.add_argument(
        "--data",
        required=True,
        metavar="URL",
        help="a folder in the format of Mafengwo and CAMRa2011, a .csv or .parquet with columns user and item, or "
        "planted:users=2000,items=500,groups=5,per_user=30,noise=0.2",
    )
    flags.add_argument(
        "--members", metavar="URL", help="table with columns group and user, for a table of interactions"
    )
    flags.add_argument("--out", required=True, metavar="URL", help="a folder of each method and seed goes in here")
    flags.add_argument("--mode", default="recommended", help=f"one or more of {','.join(MODE_NAMES)} (recommended)")
    flags.add_argument("--baselines", default="popularity", help="none or more of popularity,ease (popularity)")
    flags.add_argument("--seed", type=seed, default=0, help="the first (0)")
    flags.add_argument("--seeds", type=int, default=1, help="how many; more than one give confidence intervals (1)")
    flags.add_argument("--epochs", type=int, help="at most, instead of the mode's")
    flags.add_argument("--lr", type=float, help="learning rate, instead of the mode's")
    flags.add_argument("--batch", type=int, help="pairs of a step over all ranks, instead of the mode's")
    flags.add_argument("--negatives", type=int, help="drawn for each positive, instead of the mode's")
    flags.add_argument("--backbone", choices=("mf", "lightgcn"), help="instead of the mode's")
    flags.add_argument("--scorer", choices=SCORERS, help="instead of the mode's")
    flags.add_argument("--identifier", choices=IDENTIFIERS, help="what finds groups, instead of the mode's (gim)")
    flags.add_argument("--groups", type=int, help="how many kmeans finds (by silhouette)")
    flags.add_argument(
        "--protocols",
        help=f"among what is ranked: one or more of {','.join(PROTOCOLS)} (listed; full where no negatives are listed)",
    )
    flags.add_argument(
        "--from",
        dest="begin_from",
        metavar="URL",
        help="begin from a finished run (a folder OUT/MODE-seed-N): who did not change since keeps vectors and group",
    )
    flags.add_argument("--resume", action="store_true", help="go on from the last checkpoints in OUT, if there are any")
    flags.add_argument("--checkpoint-every", type=int, default=10, metavar="EPOCHS", help="(10)")
    flags.add_argument("--keep", type=int, default=2, metavar="N", help="newest checkpoints that stay (2)")
    flags.add_argument("--report", metavar="URL", help="a folder that gets a page about the runs, and its numbers")
    flags.add_argument(
        "--recommend", metavar="WHO", help="user:NAME, members:NAME,NAME or group:NUMBER of a finished run"
    )
    flags.add_argument("--top", type=int, default=10, metavar="N", help="items to recommend (10)")
    flags.add_argument("--json", action="store_true", help="print JSON")
    return flags


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _silent(_: str) -> None:
    """What the other ranks say."""


if __name__ == "__main__":
    sys.exit(main())
