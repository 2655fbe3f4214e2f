"""Write the weights of a run, or of a weights file, in the layout that another program reads.

train/export.py RUN_OR_FILE --layout LAYOUT --out FILE
"""

import sys
from functools import partial

from pipeline.errors import PretrainError
from train import release


def main() -> int:
    """Parse, export; the exit code."""
    asked = release.parser(__doc__).parse_args()
    try:
        written = release.export(release.Request(**vars(asked)), say=partial(print, file=sys.stderr))
    except PretrainError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
