"""How the run learned, and how fast: sections from the rows of steps and of probings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.page.document import Number, table
from pipeline.page.drawing import legend
from train.recipes.croma import CromaRun
from train.reporting import words
from train.reporting.curves import Floats, Guide, Marks, curve
from train.reporting.folder import RunFolder

_PACE = {
    "samples_per_s": ("Throughput, samples/s", 1.0),
    "mfu": ("Model FLOPs utilisation, %", 100.0),
    "data_wait_share": ("Waiting for data, % of a step", 100.0),
    "memory_mb": ("Largest memory so far, MB", 1.0),
}
"""Of a row's pace: title, and what it is multiplied by."""
_NO_MFU = "Model FLOPs utilisation is not known: train/pace.py does not list this run's device."


def section(run: RunFolder) -> str:
    """Loss by part, rate and gradient."""
    if not run.rows:
        return words.absent("no step is written down: the run did not come to the end of its first one.")
    marks, guides = marks_of(run), _guides(run)
    figures = [
        curve(f"Loss: {name}", *points, marks=marks, guide=guides.get(name)) for name, points in losses(run).items()
    ]
    figures += [
        curve("Learning rate", *series(run.rows, "lr"), marks=marks, colour="var(--c5)"),
        curve("Gradient norm, before clipping", *series(run.rows, "grad_norm"), marks=marks, colour="var(--c5)"),
    ]
    return (
        words.plots(figures)
        + _events(run)
        + words.told(
            "every part of the loss falls, quickly at first, and goes on falling as the rate comes down; the "
            "contrastive part leaves the dashed line of guessing. Faint: each step. Bold: mean over "
            "a twentieth of the steps.",
            "a part that stays where it began, that rises while the rate falls, or a gradient norm that grows step by "
            "step. Validation is further down: a training loss alone says nothing of what was learned.",
        )
        + _table(run)
    )


def pace(run: RunFolder) -> str:
    """Throughput, utilisation and waiting."""
    if not run.rows:
        return words.absent("no step is written down.")
    marks, figures, rows = marks_of(run), [], []
    for name, (title, factor) in _PACE.items():
        steps_N, values_N = series([row["pace"] | {"step": row["step"]} for row in run.rows], name)
        known = values_N[np.isfinite(values_N)] * factor
        if len(known):
            figures.append(curve(title, steps_N, values_N * factor, marks=marks, colour="var(--c2)"))
            rows.append((title, *(Number(words.number(x)) for x in (np.median(known), known.min(), known.max()))))
    no_mfu = "" if any(row["pace"].get("mfu") is not None for row in run.rows) else f"<p>{_NO_MFU}</p>"
    return (
        words.plots(figures)
        + no_mfu
        + words.told(
            "flat throughput, and a share of waiting near 0: the device, not the disk, decides how long a run takes.",
            "waiting above a tenth (more readers, a cache, or --reader-processes help), throughput that sinks, or "
            "memory that climbs to the end.",
        )
        + table(("each step", "median", "least", "most"), rows)
    )


def probes(run: RunFolder) -> str:
    """What was found on the validation split while the run went on; empty where it did not look."""
    if not run.probes:
        return ""
    names = list(run.probes[-1]["values"])
    steps_N = np.array([row["step"] for row in run.probes], np.float64)
    figures = [
        curve(
            f"{name} ({run.probes[-1]['val_samples']} samples)",
            steps_N,
            np.array([row["values"].get(name, np.nan) for row in run.probes], np.float64),
            marks=marks_of(run),
            colour="var(--c1)",
        )
        for name in names
    ]
    return "<h3>Probes on the validation split, during training</h3>" + words.plots(figures)


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[Floats, Floats]:
    """Steps and values (N,) of one field; NaN where a row has none."""
    values = [row.get(name) for row in rows]
    steps = np.array([row["step"] for row in rows], np.float64)
    return steps, np.array([np.nan if value is None else value for value in values], np.float64)


def losses(run: RunFolder) -> dict[str, tuple[Floats, Floats]]:
    """The loss (`total`) and its parts over the steps."""
    parts = {name: None for row in run.rows for name in row["parts"]}
    found = {"total": series(run.rows, "loss")}
    for name in parts:
        found[name] = series([row["parts"] | {"step": row["step"]} for row in run.rows], name)
    return found if len(parts) != 1 else {"total": found["total"]}


def marks_of(run: RunFolder) -> Marks:
    """Where the run went on, and what it skipped."""
    return Marks(
        resumed=[step for step in run.resumed if step <= run.done],
        skipped=[row["step"] for row in run.rows if row["skipped"]],
    )


def tenths(values_N: Floats) -> tuple[float, float]:
    """Mean of the first and of the last tenth of the steps whose value is finite."""
    known = values_N[np.isfinite(values_N)]
    size = max(1, len(known) // 10)
    return (float(known[:size].mean()), float(known[-size:].mean())) if len(known) else (math.nan, math.nan)


def _guides(run: RunFolder) -> dict[str, Guide]:
    if not isinstance(run.recipe, CromaRun):
        return {}
    batch = run.recipe.stream.global_batch
    return {"contrastive": Guide(value=math.log(batch), name=f"guessing among {batch}: {math.log(batch):.2f}")}


def _events(run: RunFolder) -> str:
    marks = marks_of(run)
    quarantined = sum(row.get("quarantined", 0) for row in run.rows)
    said = [
        f"resumed behind step {', '.join(map(str, marks.resumed))}" if marks.resumed else "",
        f"started {run.attempts} times" if run.attempts > 1 and not marks.resumed else "",
        f"{len(marks.skipped)} steps were not learned from: {', '.join(map(str, marks.skipped[:20]))}"
        if marks.skipped
        else "no step was skipped",
        f"{quarantined} samples were damaged and others stood in" if quarantined else "",
    ]
    dots = legend({"resumed": "var(--c3)", "skipped": "var(--bad)"})
    return f"{dots}<p>On the way: {'; '.join(filter(None, said))}.</p>"


def _table(run: RunFolder) -> str:
    rows = []
    for name, (steps_N, values_N) in losses(run).items():
        known = np.where(np.isfinite(values_N), values_N, np.inf)
        at = int(known.argmin())
        cells = (*tenths(values_N), float(known[at]))
        rows.append((name, *(Number(f"{value:.4f}") for value in cells), Number(f"{steps_N[at]:.0f}")))
    return table(("loss", "first tenth", "last tenth", "least", "at step"), rows)
