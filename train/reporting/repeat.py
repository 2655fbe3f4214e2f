"""How to do it again: commands, versions, and the recipe, from what the run wrote down when it began."""

import json
import shlex
from collections.abc import Callable, Mapping
from datetime import date
from html import escape
from typing import Any

from pipeline import record
from pipeline.errors import redact
from pipeline.page.document import table
from train import checkpoint
from train.recipes import croma, satmae
from train.recipes.croma import CromaRun
from train.recipes.run import narrowed, override
from train.recipes.satmae import SatmaeRun
from train.reporting import words
from train.reporting.folder import RunFolder
from train.stream.where import Where

_RECIPES: Mapping[str, Callable[[], Any]] = {**croma.RECIPES, **satmae.RECIPES}
_CPU_PAIR = "--config_file infra/accelerate/cpu-two-ranks.yaml"


def section(run: RunFolder) -> str:
    """The section."""
    if not run.began:
        return words.absent("run.json is gone, which the run wrote when it began.")
    known = run.began
    lines, missing = commands(run)
    notes = "".join(f"<p>{escape(note)}</p>" for note in missing)
    facts = {
        **known.get("versions", {}),
        "git revision": known.get("revision") or "not known: it did not run in a git checkout",
    }
    derived = {name: str(value) for name, value in known.get("derived", {}).items()}
    recipe = json.dumps(known.get("recipe", {}), indent=1)
    return (
        f"<pre>{escape(chr(10).join(lines))}</pre>{notes}"
        "<h3>Made with</h3>"
        + table((), [*((name, str(value)) for name, value in facts.items()), *_machine(known)])
        + "<h3>What follows from the recipe</h3>"
        + table((), [*derived.items()])
        + f"<h3>The recipe, all of it</h3><pre>{escape(redact(recipe))}</pre>"
    )


def commands(run: RunFolder) -> tuple[list[str], list[str]]:
    """Command lines that repeat the run, its features and this page; and what they cannot say."""
    recipe, data = run.recipe, shlex.quote(redact(run.data or "DATA"))
    out = shlex.quote(redact(str(run.began.get("out", "RUN"))))
    if recipe is None:
        return [], ["The recipe is of another release: no command of this one repeats it."]
    flags, missing = flags_of(recipe)
    script = f"train/{recipe.objective}.py"
    train = f"{launcher(run.began)} {script} --recipe {recipe.name} --data {data} --out {out}"
    sensor = "joint" if isinstance(recipe, CromaRun) else "s2"
    lines = [
        " ".join([train, *flags]),
        f"python train/embed.py --run {out} --data {data} --sensor {sensor} --out features.parquet",
        f"python train/report.py {out} --data {data}",
    ]
    return lines, missing


def launcher(began: Mapping[str, Any]) -> str:
    """What starts so many ranks."""
    ranks, on_cpu = int(began.get("ranks", 1)), str(began.get("device", "cpu")).startswith("cpu")
    if ranks == 1:
        return "python"
    if on_cpu and ranks == 2:
        return f"accelerate launch {_CPU_PAIR}"
    return f"accelerate launch --num_processes {ranks}"


def flags_of(recipe: CromaRun | SatmaeRun) -> tuple[list[str], list[str]]:
    """The flags that make `recipe` of the one it is called by; and what no flag makes."""
    made = _RECIPES.get(recipe.name)
    if made is None:
        return [], [f"No recipe of this release is called {recipe.name!r}: it was built in Python; it stands below."]
    base, flags = made(), []
    changed = {
        "--steps": (recipe.steps, base.steps),
        "--batch": (recipe.stream.global_batch, base.stream.global_batch),
        "--mode": (recipe.model.mode, base.model.mode),
        "--ema": (recipe.ema, base.ema),
        "--seed": (recipe.seed, 0),
    }
    for name, (ours, theirs) in changed.items():
        flags += [name, str(ours)] if ours != theirs and ours is not None else []
    again = override(
        base,
        steps=recipe.steps,
        global_batch=recipe.stream.global_batch,
        mode=recipe.model.mode,
        seed=recipe.seed,
        ema=recipe.ema,
    )
    again = narrowed(again, recipe.stream.where)
    different = checkpoint.differences(record.to_json(recipe), record.to_json(again))
    missing = [f"The recipe {recipe.name!r} of this release differs: {'; '.join(different)}."] if different else []
    return [*flags, *_where(recipe.stream.where)], missing


def _where(where: Where | None) -> list[str]:
    if where is None:
        return []
    box = ["--bbox", ",".join(f"{side:g}" for side in where.bbox)] if where.bbox else []
    days = ["--dates", "/".join(map(date.isoformat, where.dates))] if where.dates else []
    cloud = ["--max-cloud", f"{100 * where.max_cloud:g}"] if where.max_cloud is not None else []
    return [*box, *days, *cloud]


def _machine(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("ranks", str(known.get("ranks", "?"))), ("device of rank 0", str(known.get("device", "?")))]
