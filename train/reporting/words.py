"""Pieces of HTML that every section needs."""

from collections.abc import Sequence
from html import escape

from numpy import uint8
from numpy.typing import NDArray

from pipeline.page import png

STYLE = """
.tiles { display: flex; flex-wrap: wrap; gap: .6em; margin: 1em 0 } .tiles div { background: var(--card); border-radius: 6px; padding: .5em .9em; flex: 1 1 8.5em }
.tiles b { display: block; font-size: 1.25em; font-variant-numeric: tabular-nums } .tiles span { font-size: 13px; color: var(--soft) }
.told { border-left: 3px solid var(--line); padding-left: .8em; color: var(--soft); font-size: 14px } .told b { color: var(--ink) } .here { margin-top: -.6em; padding-top: .3em; color: var(--ink) }
.key { display: inline-block; margin-right: 1em } .key svg { display: inline; margin-right: .35em; vertical-align: -1px }
.absent { background: var(--card); border-radius: 6px; padding: .7em 1em } .plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 1.2em }
.plots.wide { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)) } .plots h3 { margin: .3em 0 } .plots svg { width: 100% } .strip { display: flex; gap: 3px } .strip img { flex: 1 1 0; min-width: 0; width: 120px; max-width: 160px; aspect-ratio: 1 }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 1em }
.query { display: flex; gap: 6px; margin: .5em 0 1em; max-width: 860px } .query figure { flex: 1 1 0; min-width: 0 } .query img { width: 100%; aspect-ratio: 1; outline: 3px solid transparent; outline-offset: -3px }
.query .right img { outline-color: var(--good) } .query figcaption { font-size: 12px; line-height: 1.35 } .query .asked { margin-right: 10px }
"""  # noqa: E501


def told(see: str, bad: str, here: str = "") -> str:
    """What one should see in a picture, what would be a bad sign, and what this run's numbers say."""
    return f'<p class="told"><b>To see:</b> {escape(see)} <b>A bad sign:</b> {escape(bad)}</p>{said(here)}'


def said(here: str) -> str:
    """What this run's numbers say; empty where they say nothing."""
    return f'<p class="told here"><b>Here:</b> {escape(here)}</p>' if here else ""


def absent(why: str) -> str:
    """Why there is nothing here."""
    return f'<p class="absent">Not shown: {escape(why)}</p>'


def tiles(facts: Sequence[tuple[str, str]]) -> str:
    """A few numbers, large, each with its name."""
    inside = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts)
    return f'<div class="tiles">{inside}</div>'


def image(rgb: NDArray[uint8], alt: str) -> str:
    """A picture of (H, W, 3) bytes."""
    height, width, _ = rgb.shape
    return f'<img src="{png.address(rgb)}" width="{width}" height="{height}" alt="{escape(alt)}">'


def plots(figures: Sequence[str], *, wide: bool = False) -> str:
    """Figures beside each other, as many as fit; wide ones are two a row."""
    return f'<div class="plots{" wide" if wide else ""}">{"".join(figures)}</div>'


def plot(title: str, drawing: str, caption: str) -> str:
    """A drawing with a title over it and words (text) under it."""
    return f"<figure><h3>{escape(title)}</h3>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def number(value: float | None, digits: int = 4) -> str:
    """A number for people; a dash where there is none."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"
