"""One quantity over the steps of a run: every step faint, their running mean bold, and what happened on the way.

Of a long run no more is drawn than an eye can tell apart, so that its page is no larger than a short run's.

Axes: N steps, M points that are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

from pipeline.page.drawing import svg
from train.reporting import words
from train.reporting.axes import Frame, grid, padded
from train.reporting.history import Floats

_MOST = 400
"""Points of a curve: more are no more to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What happened at some steps."""

    resumed: Sequence[int] = ()
    """Steps that were done when the run went on after a stop."""
    skipped: Sequence[int] = ()
    """Steps that were not learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A value to compare with."""

    value: float
    """In the curve's unit."""
    name: str
    """What it is."""


def curve(
    title: str,
    steps_N: Floats,
    values_N: Floats,
    *,
    marks: Marks,
    guide: Guide | None = None,
    colour: str = "var(--c0)",
) -> str:
    """A figure; steps whose value is not finite are left out."""
    known_N = np.isfinite(values_N)
    steps_N, values_N = steps_N[known_N], values_N[known_N]
    if not len(steps_N):
        return words.plot(title, "", "Nothing was measured.")
    every, smooth = swung(steps_N, values_N), thinned(steps_N, smoothed(values_N))
    seen = [*usual(values_N), *smooth[1].tolist(), *([guide.value] if guide else [])]
    zero = 0.0 if min(seen) >= 0 and min(seen) < 0.4 * max(seen) else None
    frame = Frame(x=(0.0, float(steps_N[-1])), y=padded(seen, least=zero))
    parts = grid(frame, "step") + _marks(frame, marks) + _guide(frame, guide)
    inside = np.clip(every[1], *frame.y)
    parts.append(_line(frame, every[0], inside, f'stroke="{colour}" stroke-opacity=".35"'))
    parts.append(_line(frame, *smooth, f'stroke="{colour}" stroke-width="2"'))
    said = (
        f"{words.number(values_N[0])} at step {steps_N[0]:,.0f}, "
        f"{words.number(values_N[-1])} at step {steps_N[-1]:,.0f}"
    ) + _beyond(frame, values_N)
    return words.plot(title, svg(frame.width, frame.height, parts, said=f"{title}: {said}"), said)


def smoothed(values_N: Floats) -> Floats:
    """Mean over a twentieth of the steps around each (at the ends over those that there are)."""
    half = max(1, len(values_N) // 40)
    sums = np.concatenate(([0.0], np.cumsum(values_N)))
    at = np.arange(len(values_N))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values_N))
    found: Floats = (sums[high] - sums[low]) / (high - low)
    return found


def thinned(steps_N: Floats, values_N: Floats) -> tuple[Floats, Floats]:
    """Means of neighbouring points, (M,) each, M at most `_MOST`."""
    parts = np.array_split(np.arange(len(steps_N)), min(len(steps_N), _MOST))
    means = [np.array([x[part].mean() for part in parts]) for x in (steps_N, values_N)]
    return means[0], means[1]


def swung(steps_N: Floats, values_N: Floats) -> tuple[Floats, Floats]:
    """Every step; of more than `_MOST` the least and the largest of neighbours, (M,) each: spikes stay."""
    if len(steps_N) <= _MOST:
        return steps_N, values_N
    parts = np.array_split(np.arange(len(steps_N)), _MOST // 2)
    ends = [sorted((part[values_N[part].argmin()], part[values_N[part].argmax()])) for part in parts]
    at = np.concatenate(ends)
    return steps_N[at], values_N[at]


def usual(values_N: Floats) -> list[float]:
    """What a frame should hold: all values; of more than `_MOST` all but the outermost hundredths of neighbours."""
    if len(values_N) <= _MOST:
        return list(values_N.tolist())
    parts = np.array_split(values_N, _MOST // 2)
    return [float(np.quantile(part, share)) for part in parts for share in (0.01, 0.99)]


def _beyond(frame: Frame, values_N: Floats) -> str:
    """That some steps are drawn at the frame's edge."""
    low, high = frame.y
    count = int(((values_N < low) | (values_N > high)).sum())
    ends = f"{words.number(values_N.min())} to {words.number(values_N.max())}"
    return f"; outside the picture: {count:,} of {len(values_N):,} steps (all are within {ends})" if count else ""


def _line(frame: Frame, steps: Floats, values: Floats, how: str) -> str:
    points = " ".join("{:.1f},{:.1f}".format(*frame.at(x, y)) for x, y in zip(steps, values, strict=True))
    return f'<polyline points="{points}" fill="none" stroke-linejoin="round" {how}/>'


def _marks(frame: Frame, marks: Marks) -> list[str]:
    parts = []
    for x, said in _gathered(frame, marks.resumed, "resumed behind step"):
        parts.append(
            f'<path d="M{x} {frame.ceiling}V{frame.floor}" stroke="var(--c3)" stroke-dasharray="4 3">'
            f"<title>{said}</title></path>"
        )
    for x, said in _gathered(frame, marks.skipped, "not learned from: step"):
        parts.append(
            f'<path d="M{x} {frame.floor}v-14" stroke="var(--bad)" stroke-width="2"><title>{said}</title></path>'
        )
    return parts


def _gathered(frame: Frame, steps: Sequence[int], what: str) -> Iterator[tuple[int, str]]:
    """Where marks stand, px, and what they say: one for all steps that would stand on top of each other."""
    for x, ones in groupby(steps, lambda step: round(frame.at(step, frame.y[0])[0])):
        first, *others = ones
        yield x, f"{what} {first:,}" + (f" and {len(others):,} more, up to {others[-1]:,}" if others else "")


def _guide(frame: Frame, guide: Guide | None) -> list[str]:
    if guide is None:
        return []
    x, y = frame.at(frame.x[1], guide.value)
    left, _ = frame.at(frame.x[0], guide.value)
    return [
        f'<path d="M{left:.1f} {y:.1f}H{x:.1f}" stroke="var(--soft)" stroke-dasharray="2 3"/>',
        f'<text x="{x:.1f}" y="{y - 4:.1f}" text-anchor="end">{escape(guide.name)}</text>',
    ]
