# PYTHON_ARGCOMPLETE_OK
"""Say what frozen features are worth: kNN, linear and MLP probes, k-means, retrieval across sensors; one table.

train/probe.py --train train.parquet --test val.parquet --probes knn,linear,mlp,kmeans
"""

import sys
from argparse import Namespace
from functools import partial

from train.choices import PROBES
from train.command_line import Parser, explained, seed


def main() -> int:
    """Parse, measure, print; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline import record
    from train import probing

    probes = tuple(name.strip() for name in asked.probes.split(",") if name.strip())
    names = ("train", "test", "label", "other", "seed")
    request = probing.Request(probes=probes, **{name: getattr(asked, name) for name in names})
    results, counts = probing.measure(request)
    if asked.json:
        sys.stdout.write(record.dumps({"results": results, **counts}).decode() + "\n")
        return 0
    table = Table(title=", ".join(f"{count} {name}" for name, count in counts.items() if count))
    for column in ("probe", "metric", "value", "chance"):
        table.add_column(column)
    for one in results:
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        table.add_row(one.probe, one.metric, f"{one.value:.3f}", chance)
    Console().print(table)
    return 0


def parser() -> Parser:
    """The flags."""
    flags = Parser(__doc__)
    flags.add_argument("--train", required=True, metavar="FILE", help="what train/embed.py wrote of one split")
    flags.add_argument("--test", required=True, metavar="FILE", help="and of another")
    flags.add_argument(
        "--label", choices=("label", "classes"), default="label", help="one class a sample, or several (label)"
    )
    flags.add_argument("--probes", default="knn,linear,mlp,kmeans", help=f"of {','.join(PROBES)}")
    flags.add_argument("--other", metavar="FILE", help="retrieval: the test samples by another sensor")
    flags.add_argument("--seed", type=seed, default=0, help="(0)")
    flags.add_argument("--json", action="store_true", help="print JSON")
    return flags


if __name__ == "__main__":
    sys.exit(main())
