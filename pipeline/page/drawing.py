"""Numbers → inline SVG: a map of cells, and bars. Colours follow the page's light or dark style."""

from collections.abc import Mapping, Sequence
from html import escape
from math import cos, radians

import numpy as np

COLOURS = {"train": "#2a7f3f", "val": "#2b6cb0", "rejected": "#d97706", "left out": "#9ca3af"}
"""By what became of a cell."""
_WIDTH, _HEIGHT, _EDGE = 860.0, 460.0, 24.0
_SMALLEST = 5.0
"""Pixels. Cells far apart would otherwise be too small to be seen."""
Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


def cell_map(cells: Sequence[tuple[Box, str, str]]) -> str:
    """A map, north up, of cells with what became of them (a key of `COLOURS`) and a title."""
    if not cells:
        return "<p>No cell.</p>"
    boxes = np.array([box for box, _, _ in cells])
    west, south = boxes[:, :2].min(0).tolist()
    east, north = boxes[:, 2:].max(0).tolist()
    squeeze = max(cos(radians((south + north) / 2)), 0.1)
    scale = min(
        (_WIDTH - 2 * _EDGE) / max((east - west) * squeeze, 1e-6), (_HEIGHT - 2 * _EDGE) / max(north - south, 1e-6)
    )
    height = min(_HEIGHT, (north - south) * scale + 2 * _EDGE)
    shift = _EDGE + max(0.0, (_WIDTH - 2 * _EDGE - (east - west) * squeeze * scale) / 2)
    order = ("left out", "rejected", "val", "train")
    parts = [f'<rect width="{_WIDTH:.0f}" height="{height:.0f}" fill="var(--card)" stroke="var(--line)"/>']
    for (w, s, e, n), became, title in sorted(cells, key=lambda cell: order.index(cell[1])):
        wide, high = max((e - w) * squeeze * scale, _SMALLEST), max((n - s) * scale, _SMALLEST)
        x = shift + ((w + e) / 2 - west) * squeeze * scale - wide / 2
        y = _EDGE + (north - (n + s) / 2) * scale - high / 2
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{COLOURS[became]}" '
            f'fill-opacity=".8" stroke="var(--paper)" stroke-width=".5"><title>{escape(title)}</title></rect>'
        )
    label = f"{west:.3f} to {east:.3f} degrees east, {south:.3f} to {north:.3f} north"
    drawn = svg(_WIDTH, height, parts, said=f"Map of {len(cells)} cells: {label}")
    return f"{drawn}<p><small>North is up: {label}.</small></p>"


def bars(
    counts: Sequence[float],
    ends: tuple[float, float],
    unit: str,
    *,
    size: tuple[float, float],
    names: Sequence[str] = (),
) -> str:
    """A histogram of equal bins between `ends`, or of bins that have `names`."""
    width, height = size
    tallest = max([*counts, 1])
    step = width / max(len(counts), 1)
    parts = [
        f'<rect x="{i * step:.2f}" y="{height - height * count / tallest:.2f}" width="{max(step - 0.6, 0.4):.2f}" '
        f'height="{height * count / tallest:.2f}" fill="var(--c7)"><title>{count:,.0f}</title></rect>'
        for i, count in enumerate(counts)
    ]
    parts.append(f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="var(--soft)"/>')
    for i, name in enumerate(names):
        parts.append(f'<text x="{(i + 0.5) * step:.1f}" y="{height + 13}" text-anchor="middle">{escape(name)}</text>')
    if not names:
        parts.append(f'<text x="0" y="{height + 13}">{ends[0]:g}</text>')
        parts.append(f'<text x="{width}" y="{height + 13}" text-anchor="end">{ends[1]:g} {escape(unit)}</text>')
    return svg(width, height + 17, parts, said=f"Histogram from {ends[0]:g} to {ends[1]:g} {unit}")


def histogram(values: Sequence[float], unit: str, *, bins: int = 24) -> str:
    """A histogram of values between the least and the largest, or a word where there is none."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)])
    if not known.size:
        return "<p>None known.</p>"
    low, high = min(0.0, float(known.min())), max(float(known.max()), 1e-9)
    counts, _ = np.histogram(known, bins=bins, range=(low, high))
    said = f"<p>{known.size:,} values, median {np.median(known):.2f} {escape(unit)}</p>"
    ends = (round(low, 2), round(high, 2))
    return bars(counts.tolist(), ends, unit, size=(400, 110)) + said


def legend(colours: Mapping[str, str]) -> str:
    """What colours mean."""
    dots = (f'<i class="dot" style="background:{colour}"></i>{escape(name)}' for name, colour in colours.items())
    return f"<p>{' '.join(dots)}</p>"


def svg(width: float, height: float, parts: Sequence[str], *, said: str) -> str:
    """A drawing of some width and height; `said` is what it shows, for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(said)}">' + "".join(parts) + "</svg>"
    )
