"""What needs no torch to be refused is refused before torch is imported, which takes seconds."""

import dataclasses
from argparse import Namespace

from pipeline import manifest
from pipeline.errors import UsageError
from pipeline.store import Store
from train.meter import METRICS_NAME
from train.options import Options
from train.stream.where import where

RUN_NAME = "run.json"
"""The recipe, what follows from it, and what it began on; written when a run begins."""
_STEP = "step-"
"""Folders of `checkpoint` begin so."""


def check(asked: Namespace) -> None:
    """Look at the flags of `flags.parser`, at DATA and at OUT.

    Raises:
        PretrainError: nothing can come of them.
    """
    options = options_of(asked)
    where(asked.bbox, asked.dates, asked.max_cloud)
    manifest.load(Store.at(options.data))
    check_out(Store.at(options.out), resume=options.resume)


def options_of(asked: Namespace) -> Options:
    """The flags that do not change the result.

    Raises:
        UsageError: one of them is out of range.
    """
    return Options(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(Options)})


def check_out(out: Store, *, resume: bool) -> None:
    """Raise UsageError where another run, or a data set, lies in `out`."""
    names = out.names()
    begun = any(name in {RUN_NAME, METRICS_NAME} or name.startswith(_STEP) for name in names)
    if begun and not resume:
        raise UsageError(f"{out.url} holds a run already. Go on with it by --resume, or choose another --out.")
    if manifest.MANIFEST_NAME in names and not begun:
        raise UsageError(f"{out.url} holds a data set. Choose another --out: a run has a folder of its own.")
