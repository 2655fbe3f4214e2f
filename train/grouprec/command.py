"""What the flags of train/itr.py ask for: runs of methods and seeds and their table, or recommendations."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from pipeline import record
from pipeline.errors import UsageError
from pipeline.store import Store
from train.grouprec import drift, evaluate, job, outcome, planted_check, report, source, tabulate
from train.grouprec.baselines import Ease, Popularity
from train.grouprec.interactions import Dataset
from train.grouprec.job import Options, Surroundings
from train.grouprec.modes import MODES, FitConfig
from train.grouprec.names import PROTOCOLS, Mode, Protocol
from train.grouprec.outcome import Outcome
from train.grouprec.serve import Server
from train.grouprec.source import Source
from train.grouprec.tabulate import Line

GROUPS_NAME = "groups.json"
_NARROWEST = 190
"""Columns that the table takes: a narrower terminal wraps it, rather than losing digits."""
BASELINES: Mapping[str, Callable[[Dataset], evaluate.Scorer]] = {"popularity": Popularity.of, "ease": Ease.of}


def run(asked: Namespace, around: Surroundings) -> bool:
    """Do what the flags ask for; whether it was finished.

    Raises:
        PretrainError: it cannot be done.
    """
    _check(asked)
    found = source.read(asked.data, asked.members, seed=asked.seed)
    if asked.recommend:
        _recommend(asked, found, around)
        return True
    for sentence in _defects(found):
        around.say(f"{found.name}: {sentence}")
    if asked.begin_from is not None:
        around = replace(around, before=drift.read(Store.at(asked.begin_from)))
    outcomes = _baselines(asked, found) + _runs(asked, found, around)
    if len(outcomes) < len(_names(asked.baselines, BASELINES, "baselines")) + asked.seeds * len(_modes(asked)):
        return False
    if around.peers.rank == 0:
        for warning in tabulate.warnings(outcomes):
            around.say(f"warning: {warning}")
        _show(tabulate.lines(outcomes), as_json=asked.json)
        if asked.report is not None:
            page = Store.at(asked.report)
            report.publish(page, outcomes, planted_check.check(), _defects(found))
            around.say(f"{page.url.rstrip('/')}/report.html: to be opened in any browser")
    return True


def configure(asked: Namespace, mode: Mode, data: str) -> FitConfig:
    """A mode with the changes that the flags make."""
    config = MODES[mode](data)
    changes: dict[str, Any] = {
        name: getattr(asked, name)
        for name in ("epochs", "lr", "batch", "negatives", "scorer")
        if getattr(asked, name) is not None
    }
    if asked.backbone is not None:
        changes["layers"] = (config.layers or 2) if asked.backbone == "lightgcn" else 0
    if config.grouping is not None and (asked.identifier or asked.groups is not None):
        identify = config.grouping.identify
        identify = replace(identify, identifier=asked.identifier or identify.identifier, groups=asked.groups)
        changes["grouping"] = replace(config.grouping, identify=identify)
    changed = replace(config, **changes)
    return drift.inherited(changed) if asked.begin_from is not None else changed


def _check(asked: Namespace) -> None:
    for name in ("seeds", "checkpoint_every", "keep", "top"):
        if getattr(asked, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(asked, name)}: use 1 or more.")
    if asked.groups is not None and (asked.groups < 1 or asked.identifier != "kmeans"):
        raise UsageError(
            f"--groups {asked.groups}: use 1 or more, with --identifier kmeans; the others find the number."
        )
    if asked.report is not None and Path(asked.report).is_file():
        raise UsageError(f"--report {asked.report} is a file. Give a folder: the page and its numbers go in there.")


def _defects(found: Source) -> list[str]:
    return [] if found.defects is None else found.defects.sentences()


def _names(text: str, known: Iterable[str], flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--{flag} {text}: {unknown[0]!r} is none of {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _some(text: str, known: Iterable[str], flag: str) -> list[str]:
    known = list(known)
    names = _names(text, known, flag)
    if not names:
        raise UsageError(f"--{flag} {text!r}: name one or more of {', '.join(known)}.")
    return names


def _modes(asked: Namespace) -> list[Mode]:
    return [cast("Mode", name) for name in _some(asked.mode, MODES, "mode")]


def _protocols(asked: Namespace, data: Dataset) -> list[Protocol]:
    """Those asked for; without a word the listed negatives, or all items where none are listed."""
    if asked.protocols is None:
        return ["listed" if data.user_cases.negatives_RN.size else "full"]
    return [cast("Protocol", name) for name in _some(asked.protocols, PROTOCOLS, "protocols")]


def _place(asked: Namespace, mode: str, seed: int) -> Store:
    return Store.at(asked.out).within(f"{mode}-seed-{seed}")


def _baselines(asked: Namespace, found: Source) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for name in _names(asked.baselines, BASELINES, "baselines"):
        started = perf_counter()
        scorer = BASELINES[name](found.data)
        seconds = perf_counter() - started
        outcomes.append(outcome.of_baseline(scorer, found, name, _protocols(asked, found.data), seconds=seconds))
    return outcomes


def _runs(asked: Namespace, found: Source, around: Surroundings) -> list[Outcome]:
    options = Options(
        resume=asked.resume,
        checkpoint_every=asked.checkpoint_every,
        keep=asked.keep,
        protocols=_protocols(asked, found.data),
    )
    outcomes: list[Outcome] = []
    for mode in _modes(asked):
        config = configure(asked, mode, found.name)
        for seed in range(asked.seed, asked.seed + asked.seeds):
            store = _place(asked, mode, seed)
            around.say(f"{mode}, seed {seed}: {store.url}")
            done = job.fit(found, config, store, options, seed=seed, around=around)
            if done is None:
                return outcomes
            outcomes.append(done)
            if around.peers.rank == 0 and config.grouping is not None:
                groups = Server(job.load(found, config, store, seed=seed)).export(asked.top)
                store.publish(GROUPS_NAME, json.dumps(groups).encode())
    return outcomes


def _recommend(asked: Namespace, found: Source, around: Surroundings) -> None:
    modes = _modes(asked)
    if len(modes) != 1:
        raise UsageError(f"--recommend takes one --mode, not {asked.mode}.")
    store = _place(asked, modes[0], asked.seed)
    trainer = job.load(found, configure(asked, modes[0], found.name), store, seed=asked.seed)
    answer = Server(trainer).recommend(asked.recommend, asked.top)
    if around.peers.rank:
        return
    for note in answer.notes:
        around.say(f"note: {note}")
    if asked.json:
        sys.stdout.write(record.dumps(answer).decode() + "\n")
        return
    for item, score in zip(answer.items, answer.scores, strict=True):
        sys.stdout.write(f"{item}\t{score:.4f}\n")


def _show(lines: list[Line], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(record.dumps({"lines": lines}).decode() + "\n")
        return
    table = Table(title="expected over random order of ties · in brackets as published evaluators order them")
    for column in ("data", "who", "among", "rows", "ties", "method", *tabulate.FIGURES):
        table.add_column(column)
    for line in lines:
        among = f"{line.protocol}{', no leaked' if line.without_leaked else ''}"
        shown = [
            f"{one.mean:.3f}{'' if one.half is None else f' ±{one.half:.3f}'} ({other.mean:.3f})"
            for one, other in zip(line.figures["expected"], line.figures["argsort"], strict=True)
        ]
        table.add_row(line.data, line.who, among, str(line.rows), f"{line.ties:.1f}", line.method, *shown)
    Console(width=max(Console().width, _NARROWEST)).print(table)
