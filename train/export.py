# PYTHON_ARGCOMPLETE_OK
"""Write the weights of a run, or of a weights file, in the layout that another program reads.

train/export.py RUN_OR_FILE --layout safetensors --out FILE
"""

import sys
import textwrap
from argparse import Namespace
from functools import partial

from train.choices import WHICH
from train.command_line import EXIT_CODES, Parser, explained, one_of
from train.models import layouts
from train.models.layouts import LAYOUTS, Layout

_EXAMPLES = """\
examples:
  train/export.py RUN --layout safetensors --out release/model.safetensors    (writes release/README.md, too)
  train/export.py RUN --step 2000 --layout released --out CROMA_mine.pt
  train/export.py RUN --layout torchgeo --image-px 224 --out torchgeo_224.pt
  train/export.py CROMA_base.pt --layout safetensors --out croma/base.safetensors
  train/export.py s3://bucket/run --layout official --out s3://bucket/official.pt

A file's layout is recognised by its keys. Nothing in a file is ever run. The same weights give the same bytes."""


def main() -> int:
    """Parse, export; the exit code."""
    return explained(partial(_run, parser().parse_args()))


def _run(asked: Namespace) -> int:
    from train import release

    written = release.export(release.Request(**vars(asked)), say=partial(print, file=sys.stderr))
    sys.stdout.write(f"{written}\n")
    return 0


def parser() -> Parser:
    """The flags."""
    flags = Parser(__doc__, epilog=f"{_table()}\n\n{_EXAMPLES}\n\n{EXIT_CODES}")
    names = sorted({name for table in LAYOUTS.values() for name in table})
    files = ", ".join(layouts.SUFFIXES)
    flags.add_argument(
        "source", metavar="RUN_OR_FILE", help=f"a run's folder, or a weights file ({files}); path or URL"
    )
    flags.add_argument("--layout", type=one_of(names), choices=names, required=True, help="what to write")
    flags.add_argument("--out", required=True, metavar="FILE", help="path or URL; written over if it is there")
    flags.add_argument("--step", type=int, help="of the run, instead of its last finished checkpoint")
    flags.add_argument(
        "--image-px", type=int, metavar="PX", help="layout torchgeo: its image_size (the recipe's, or 120)"
    )
    flags.add_argument(
        "--weights", choices=WHICH, default="model", help="of a run: the last step's, or their moving average (model)"
    )
    flags.add_argument("--data", metavar="URL", help="model card: where the run's data set lies now, if it was moved")
    return flags


def _table() -> str:
    lines = [
        f"layouts of {objective}:\n" + "\n".join(map(_line, table.values())) for objective, table in LAYOUTS.items()
    ]
    return "\n\n".join(lines)


def _line(layout: Layout) -> str:
    text = f"{' or '.join(layout.suffixes)}: {layout.about}"
    first, rest = f"  {layout.name:<12}", " " * 14
    return textwrap.fill(text, 100, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
