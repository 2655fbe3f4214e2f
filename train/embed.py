# PYTHON_ARGCOMPLETE_OK
"""Write the frozen features of a data set: pooled ones as GeoParquet, tokens as WebDataset shards.

train/embed.py --run RUN --data OUT --sensor s2 --out features.parquet
"""

import sys
from argparse import Namespace
from functools import partial

from train.choices import POOLINGS, SENSORS, WHICH
from train.command_line import Parser, explained, samples, threads


def main() -> int:
    """Parse, read, embed; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    from train import embedding, features

    splits = ("train", "val") if asked.split == "all" else (asked.split,)
    encoder = features.open_encoder(asked.run, asked.step, asked.trained_on, asked.weights)
    names = ("data", "out", "sensor", "pooling", "batch", "threads")
    request = embedding.Request(splits=splits, **{name: getattr(asked, name) for name in names})
    count = embedding.embed(encoder, request, _say)
    _say(f"{asked.out}: {count} samples")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def parser() -> Parser:
    """The flags."""
    flags = Parser(__doc__)
    flags.add_argument("--run", required=True, metavar="URL", help="the run whose last checkpoint is used")
    flags.add_argument("--step", type=int, help="of the run, instead of its last checkpoint")
    flags.add_argument(
        "--weights", choices=WHICH, default="model", help="the last step's, or their moving average (model)"
    )
    flags.add_argument("--data", required=True, metavar="URL", help="a data set that `ingest build-shards` finished")
    flags.add_argument("--out", required=True, metavar="URL", help="a .parquet file; for tokens a folder")
    flags.add_argument("--split", choices=("train", "val", "all"), default="all", help="(all)")
    flags.add_argument("--sensor", choices=SENSORS, default="s2", help="whose features (s2)")
    flags.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="pooled",
        help="one vector a sample (projected: for CROMA's retrieval across sensors), or one a token",
    )
    flags.add_argument("--batch", type=samples, default=16, help="samples at once (16); fewer for large chips")
    flags.add_argument("--threads", type=threads, default=4, help="readers (4)")
    flags.add_argument("--trained-on", metavar="URL", help="where the run's data set lies now, if it was moved")
    return flags


if __name__ == "__main__":
    sys.exit(main())
