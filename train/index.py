# PYTHON_ARGCOMPLETE_OK
"""Index foreign WebDataset tars, so that they train as they are: nothing is copied, and OUT is a data set like others.

train/index.py --tars 'TARS/*.tar' --map MAP.json --out OUT
"""

import sys
from argparse import Namespace
from functools import partial

from train.command_line import Parser, explained


def main() -> int:
    """Parse, scan, publish; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    from pipeline import record
    from train import indexing

    names = ("map", "out", "skip_incomplete", "statistics", "threads")
    request = indexing.Request(tars=tuple(asked.tars), **{name: getattr(asked, name) for name in names})
    built, measured = indexing.build(request, _say)
    if asked.json:
        sys.stdout.write(record.dumps({"counts": built.counts, "statistics": measured}).decode() + "\n")
        return 0
    sys.stdout.write("\n".join(indexing.summary(built, measured)) + "\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def parser() -> Parser:
    """The flags."""
    flags = Parser(__doc__)
    flags.add_argument(
        "--tars", required=True, nargs="+", metavar="URL", help="tars; names may have * or a range: {0000..0041}"
    )
    flags.add_argument(
        "--map", required=True, metavar="FILE", help="JSON: which member is which sensor (train/README.md)"
    )
    flags.add_argument("--out", required=True, metavar="URL", help="the data set that points at them")
    flags.add_argument("--skip-incomplete", action="store_true", help="leave out, and count, what lacks a member")
    flags.add_argument(
        "--statistics",
        type=int,
        default=1024,
        metavar="N",
        help="training samples that statistics are taken of (1024); 0: all, and so each is decoded once",
    )
    flags.add_argument("--threads", type=int, default=2, help="tars at once (2)")
    flags.add_argument("--json", action="store_true", help="print JSON")
    return flags


if __name__ == "__main__":
    sys.exit(main())
