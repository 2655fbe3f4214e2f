"""The flags of every training command: operational choices. Scientific ones are recipes."""

from argparse import Namespace
from collections.abc import Sequence

from train.choices import MODES, ON_CORRUPT, SERVICES
from train.command_line import Parser, one_of, samples, seed
from train.options import RANK_TIMEOUT_S


def parser(description: str, recipes: Sequence[str]) -> Parser:
    """The parser; a test freezes its flags."""
    flags = Parser(description)
    _what(flags, recipes)
    _course(flags)
    _machine(flags)
    return flags


def _what(flags: Parser, recipes: Sequence[str]) -> None:
    """What is computed, of which samples."""
    flags.add_argument("--recipe", type=one_of(recipes), choices=recipes, required=True, help="what to compute")
    flags.add_argument("--data", required=True, metavar="URL", help="a data set that `ingest build-shards` finished")
    flags.add_argument(
        "--out", required=True, metavar="URL", help="the run's folder: checkpoints, metrics.jsonl, curves"
    )
    flags.add_argument("--steps", type=int, help="length of the run and of its schedule, instead of the recipe's")
    flags.add_argument("--batch", type=samples, help="global batch, instead of the recipe's; the rate scales with it")
    flags.add_argument(
        "--mode",
        choices=MODES,
        help="the paper's mathematics, or what the released code does, defects included (the recipe's: exact)",
    )
    flags.add_argument(
        "--ema",
        type=float,
        metavar="DECAY",
        help="keep a moving average of the weights: 256 samples leave DECAY of it (the recipe's: none)",
    )
    flags.add_argument("--bbox", metavar="W,S,E,N", help="train on chips with their centre in here only (degrees)")
    flags.add_argument("--dates", metavar="START/END", help="train on images of these days only, both included")
    flags.add_argument("--max-cloud", type=float, metavar="PERCENT", help="train on images with no more clouds only")
    flags.add_argument("--seed", type=seed, default=0, help="of first weights, order, augmentation and masks (0)")


def _course(flags: Parser) -> None:
    """How the run goes: from where, and what it leaves."""
    flags.add_argument(
        "--dry-run", action="store_true", help="say what would run and what follows from it; write nothing"
    )
    flags.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT, if there is one")
    flags.add_argument(
        "--init",
        metavar="FILE",
        help="begin with these weights, of any layout that train/export.py writes; what they lack begins anew",
    )
    flags.add_argument("--checkpoint-every", type=int, default=100, metavar="STEPS", help="(100)")
    flags.add_argument("--keep", type=int, default=2, metavar="N", help="newest checkpoints that stay (2)")
    flags.add_argument("--keep-every", type=int, metavar="STEPS", help="besides, those of every so many steps stay")
    flags.add_argument(
        "--probe-every",
        type=int,
        metavar="STEPS",
        help="probe the model on the val split every so many steps, and at the end (never): OUT/probes.jsonl",
    )
    flags.add_argument(
        "--probe-samples", type=int, default=2048, metavar="N", help="samples that probes look at, at most (2048)"
    )
    flags.add_argument(
        "--log",
        action="append",
        default=[],
        choices=SERVICES,
        help="send curves and pictures there, too; may be given again; needs the extra of that name",
    )


def _machine(flags: Parser) -> None:
    """How much of the machine it takes; the result is the same."""
    flags.add_argument(
        "--shard", action="store_true", help="less memory: ranks share weights, gradients and moments (FSDP2)"
    )
    flags.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="less memory: N samples of a rank at a time; the result is that of the whole batch",
    )
    flags.add_argument("--compile", action="store_true", help="compile each layer (minutes at the start, then faster)")
    flags.add_argument(
        "--recompute",
        action="store_true",
        help="less memory: run each layer again in the backward pass, a third slower",
    )
    flags.add_argument(
        "--cache",
        metavar="DIR",
        help="where shards of other machines are kept (this machine's folder for temporary files)",
    )
    flags.add_argument(
        "--cache-gb", type=float, metavar="GB", help="how many of them (half of what is free there); 0: none are kept"
    )
    flags.add_argument(
        "--on-corrupt",
        choices=ON_CORRUPT,
        default="stop",
        help="what a sample does whose bytes are damaged in the store: stop the run (the default), or let another one "
        "stand in its place, counted in each row and listed in OUT/quarantine.jsonl; over 1 %% of them stop it, too",
    )
    flags.add_argument("--threads", type=int, default=4, help="readers of each rank (4)")
    flags.add_argument(
        "--reader-processes",
        type=int,
        default=0,
        metavar="N",
        help="processes that read for each rank, --threads readers in each; 0: threads of the rank (the default). "
        "For a GPU that waits for its data: 2, with 6 threads each",
    )
    flags.add_argument(
        "--rank-timeout",
        type=float,
        default=RANK_TIMEOUT_S,
        metavar="SECONDS",
        help="how long ranks wait for one that is silent; then they end, for the launcher to start all again (600)",
    )


def parse(description: str, recipes: Sequence[str], arguments: Sequence[str] | None = None) -> Namespace:
    """The flags of this process."""
    asked: Namespace = parser(description, recipes).parse_args(arguments)
    return asked
