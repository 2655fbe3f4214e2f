"""A coordinate frame as SVG: ticks at round numbers, faint lines, and where a point comes to lie."""

import math
from dataclasses import dataclass
from html import escape

Ends = tuple[float, float]
WIDTH, HEIGHT = 340.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 34.0
_HALF_NUMBER = 6.0
"""Px. A number that stands nearer to the right edge than that is cut off when centred."""
MARGINS = (_LEFT + _RIGHT, _TOP + _BOTTOM)
"""Px of a drawing, across and down, that its axes take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Two axes."""

    x: Ends
    """Values at the left and right edge."""
    y: Ends
    """Values at the lower and upper edge."""
    width: float = WIDTH
    """Of the drawing, px."""
    height: float = HEIGHT
    """Of the drawing, px."""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing, px from its upper left corner."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return (
            _LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM),
        )

    @property
    def floor(self) -> float:
        """Of the lower edge, px."""
        return self.height - _BOTTOM

    @property
    def ceiling(self) -> float:
        """Of the upper edge, px."""
        return _TOP


def ticks(ends: Ends, count: int = 4) -> list[float]:
    """About `count` round numbers within `ends`: multiples of 1, 2 or 5 times a power of ten."""
    low, high = ends
    rough = (high - low) / count
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def padded(values: list[float], *, least: float | None = None) -> Ends:
    """Ends that hold all values with a little room; `least` is below all of them."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return (low - room if least is None else least), high + room


def grid(frame: Frame, x_name: str, *, x_ticks: bool = True) -> list[str]:
    """Lines and numbers of the axes."""
    parts = []
    for value in ticks(frame.y):
        x, y = frame.at(frame.x[0], value)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{frame.width - _RIGHT:.0f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(frame.x, 5) if x_ticks else ():
        x, _ = frame.at(value, frame.y[0])
        anchor, x = ("end", frame.width) if x > frame.width - _RIGHT - _HALF_NUMBER else ("middle", x)
        parts.append(f'<text x="{x:.1f}" y="{frame.floor + 15:.0f}" text-anchor="{anchor}">{short(value)}</text>')
    middle = (frame.width + _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{frame.height - 4:.0f}" text-anchor="middle">{escape(x_name)}</text>')
    return parts


def short(value: float) -> str:
    """As few characters as a tick needs."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.4g}{letter}"
    if value and abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{round(value, 6):g}"
