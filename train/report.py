# PYTHON_ARGCOMPLETE_OK
"""Write one page about a run: what went in, how it learned, what came out, and how to do it again.

train/report.py RUN --out page.html
"""

import sys
from argparse import Namespace
from functools import partial

from train.command_line import Parser, explained


def main() -> int:
    """Parse, look, write; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    from pipeline.errors import redact
    from train.models.containers import File
    from train.reporting import story

    target = asked.out or f"{asked.run.rstrip('/')}/report.html"
    html = story.page(story.Request(run=asked.run, data=asked.data, samples=asked.samples))
    file = File.at(target)
    file.store.publish(file.name, html.encode())
    sys.stderr.write(f"{redact(target)}: {len(html) / 1e6:.1f} MB, to be opened in any browser\n")
    return 0


def parser() -> Parser:
    """The flags."""
    flags = Parser(__doc__)
    flags.add_argument("run", metavar="RUN", help="the run's folder (URL), finished or not")
    flags.add_argument("--data", metavar="URL", help="where its data set lies now, if it was moved")
    flags.add_argument("--out", metavar="URL", help="the page (RUN/report.html)")
    flags.add_argument(
        "--samples", type=int, default=256, metavar="N", help="of each split that the model looks at, at most (256)"
    )
    return flags


if __name__ == "__main__":
    sys.exit(main())
