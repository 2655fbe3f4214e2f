"""What all training commands have in common before they begin: a parser that helps, without torch."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from pipeline.errors import PretrainError

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""
EXIT_CODES = """exit codes:
  0 done · 1 a bug, told with its traceback · 2 bad input: what, and what to do · 69 a store, a server or another rank
  is gone: try again · 75 stopped and saved: again with --resume · 130 interrupted. Launchers have their own codes."""


class Parser(argparse.ArgumentParser):
    """Flags in full, the nearest one named for a slip of the keyboard, and completed by argcomplete where it is on."""

    def __init__(self, description: str | None, *, epilog: str = EXIT_CODES) -> None:
        """Both texts are printed as they are."""
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, epilog=epilog, formatter_class=formatter, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but what is no flag is told before what is missing: a slip is both."""
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        known = [option for action in self._actions for option in action.option_strings]
        for word in sys.argv[1:] if args is None else args:
            flag = word.partition("=")[0]
            if flag.startswith("--") and len(flag) > 2 and flag not in known:
                self.error(f"there is no {flag}{near(flag, known)}")
        return super().parse_args(args, namespace)


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A type of argparse that names the nearest of `names` for a slip of the keyboard."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}{near(text, names)}")
        return text

    return name


def whole(first: int, last: int) -> Callable[[str], int]:
    """A type of argparse: a whole number from `first` to `last`."""

    def number(text: str) -> int:
        if not text.isdecimal() or not first <= int(text) <= last:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {first} to {last}")
        return int(text)

    return number


def near(text: str, names: Sequence[str]) -> str:
    """A question that names the nearest of `names`, or nothing.

    >>> near("--recpie", ["--recipe", "--data"])
    ': did you mean --recipe?'
    """
    found = get_close_matches(text, names, n=1)
    return f": did you mean {found[0]}?" if found else ""


seed = whole(0, 2**53)
"""What every generator takes and JSON keeps."""
samples = whole(1, 2**24)
"""That are in memory at once."""
threads = whole(1, 2**10)
"""Of one process."""


def explained(work: Callable[[], int]) -> int:
    """The exit code of `work`; bad input and Ctrl-C are one message, which the first rank of each machine says."""
    say = sys.stderr.write if os.environ.get("LOCAL_RANK", "0") == "0" else len
    try:
        return work()
    except PretrainError as error:
        say(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted\n")
        return INTERRUPTED
