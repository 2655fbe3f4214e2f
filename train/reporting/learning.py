"""How the run learned, and how fast: sections from the rows of steps and of probings."""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.page.document import Number, table
from pipeline.page.drawing import legend
from train.recipes.croma import CromaRun
from train.reporting import reading, words
from train.reporting.curves import Guide, Marks, curve
from train.reporting.folder import RunFolder
from train.reporting.history import Floats

_PACE = {
    "samples_per_s": ("Throughput, samples/s", 1.0),
    "mfu": ("Model FLOPs utilisation, %", 100.0),
    "data_wait_share": ("Waiting for data, % of a step", 100.0),
    "memory_mb": ("Largest memory so far, MB", 1.0),
}
"""Of a row's pace: title, and what it is multiplied by."""
_SOME = 20
"""Steps that are listed."""
_NO_MFU = "Model FLOPs utilisation is not known: train/pace.py does not list this run's device."


def section(run: RunFolder) -> str:
    """Loss by part, rate and gradient."""
    if not len(run.history):
        return words.absent("no step is written down: the run did not come to the end of its first one.")
    marks, guides = marks_of(run), _guides(run)
    figures = [
        curve(f"Loss: {name}", *points, marks=marks, guide=guides.get(name)) for name, points in losses(run).items()
    ]
    figures += [
        curve("Learning rate", *series(run, "lr"), marks=marks, colour="var(--c5)"),
        curve("Gradient norm, before clipping", *series(run, "grad_norm"), marks=marks, colour="var(--c5)"),
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
            _here(run),
        )
        + _table(run)
    )


def pace(run: RunFolder) -> str:
    """Throughput, utilisation and waiting."""
    if not len(run.history):
        return words.absent("no step is written down.")
    marks, figures, rows = marks_of(run), [], []
    for name, (title, factor) in _PACE.items():
        steps_N, values_N = series(run, f"pace.{name}")
        known = values_N[np.isfinite(values_N)] * factor
        if len(known):
            figures.append(curve(title, steps_N, values_N * factor, marks=marks, colour="var(--c2)"))
            rows.append((title, *(Number(words.number(x)) for x in (np.median(known), known.min(), known.max()))))
    no_mfu = "" if np.isfinite(run.history.column("pace.mfu")).any() else f"<p>{_NO_MFU}</p>"
    return (
        words.plots(figures)
        + no_mfu
        + words.told(
            "flat throughput, and a share of waiting near 0: the device, not the disk, decides how long a run takes.",
            "waiting above a fifth (more readers, a cache, or --reader-processes help), throughput that sinks, or "
            "memory that climbs to the end.",
            reading.waiting(_median(run.history.column("pace.data_wait_share"))),
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


def series(run: RunFolder, name: str) -> tuple[Floats, Floats]:
    """Steps and values (N,) of one field; NaN where a row has none."""
    return run.history.column("step"), run.history.column(name)


def losses(run: RunFolder) -> dict[str, tuple[Floats, Floats]]:
    """The loss (`total`) and its parts over the steps."""
    parts = run.history.within("parts")
    found = {"total": series(run, "loss")}
    return found | ({name: series(run, f"parts.{name}") for name in parts} if len(parts) != 1 else {})


def marks_of(run: RunFolder) -> Marks:
    """Where the run went on, and what it skipped."""
    skipped_N = run.history.column("skipped") == 1
    return Marks(
        resumed=[step for step in run.resumed if step <= run.done],
        skipped=run.history.column("step")[skipped_N].astype(int).tolist(),
    )


def tenths(values_N: Floats) -> tuple[float, float]:
    """Mean of the first and of the last tenth of the steps whose value is finite."""
    known = values_N[np.isfinite(values_N)]
    size = max(1, len(known) // 10)
    return (float(known[:size].mean()), float(known[-size:].mean())) if len(known) else (math.nan, math.nan)


def _here(run: RunFolder) -> str:
    parts = {name: tenths(values_N) for name, (_, values_N) in losses(run).items()}
    guide = _guides(run).get("contrastive")
    if guide is None or "contrastive" not in parts:
        return reading.falls(parts)
    return reading.falls(parts) + reading.guessing(parts["contrastive"][1], guide.value, _batch(run))


def _median(values_N: Floats) -> float:
    known = values_N[np.isfinite(values_N)]
    return float(np.median(known)) if len(known) else math.nan


def _batch(run: RunFolder) -> int:
    return run.recipe.stream.global_batch if run.recipe is not None else 0


def _guides(run: RunFolder) -> dict[str, Guide]:
    if not isinstance(run.recipe, CromaRun):
        return {}
    batch = _batch(run)
    return {"contrastive": Guide(value=math.log(batch), name=f"guessing among {batch}: {math.log(batch):.2f}")}


def _events(run: RunFolder) -> str:
    marks = marks_of(run)
    quarantined = int(np.nansum(run.history.column("quarantined")))
    said = [
        f"resumed behind step {_some(marks.resumed)}" if marks.resumed else "",
        f"started {run.attempts} times" if run.attempts > 1 and not marks.resumed else "",
        f"{_counted(len(marks.skipped), 'step was', 'steps were')} not learned from: {_some(marks.skipped)}"
        if marks.skipped
        else "no step was skipped",
        f"{_counted(quarantined, 'sample was', 'samples were')} damaged, and others stood in" if quarantined else "",
        f"{_counted(run.history.broken, 'line', 'lines')} of metrics.jsonl cut short, as a kill leaves the last one"
        if run.history.broken
        else "",
    ]
    dots = legend({"resumed": "var(--c3)", "skipped": "var(--bad)"})
    return f"{dots}<p>On the way: {'; '.join(filter(None, said))}.</p>"


def _some(steps: Sequence[int]) -> str:
    """The first of many."""
    left = len(steps) - _SOME
    return ", ".join(f"{step:,}" for step in steps[:_SOME]) + (f" and {left:,} more" if left > 0 else "")


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _table(run: RunFolder) -> str:
    rows = []
    for name, (steps_N, values_N) in losses(run).items():
        known = np.where(np.isfinite(values_N), values_N, np.inf)
        at = int(known.argmin())
        cells = (*tenths(values_N), float(known[at]))
        rows.append((name, *(Number(f"{value:.4f}") for value in cells), Number(f"{steps_N[at]:,.0f}")))
    return table(("loss", "first tenth", "last tenth", "least", "at step"), rows)
