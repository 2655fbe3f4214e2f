"""The space of features in two dimensions: principal components, each sample a point.

Axes: N samples, D width, K components.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.page.document import Number, table
from pipeline.page.drawing import COLOURS, svg
from train.probes.spectrum import rank_me
from train.reporting import reading, words
from train.reporting.axes import MARGINS, Frame, padded
from train.reporting.encoded import BANDS, RANDOM, TRAINED, Look

Floats = NDArray[np.float64]
PALETTE = tuple(f"var(--c{number})" for number in range(8))
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.5 -3.5h7v7h-7z",
    "M0 -4.5L4.5 3.5H-4.5z",
    "M0 -5L4.5 0L0 5L-4.5 0z",
)
"""A disc, a square, a triangle and a lozenge, for those to whom two colours are one."""
_COLOURED = 7
_SIDE = 400.0


@dataclass(frozen=True, slots=True)
class Dot:
    """How a sample looks."""

    colour: str
    """CSS."""
    shape: int = 0
    """Of `SHAPES`."""

    def drawn(self, x: float, y: float, title: str, *, hollow: bool) -> str:
        """At some place, px."""
        inside = f'fill="none" stroke="{self.colour}" stroke-width="1.6"' if hollow else f'fill="{self.colour}"'
        where = f'transform="translate({x:.1f} {y:.1f})"'
        return f'<path d="{SHAPES[self.shape]}" {where} {inside} opacity=".8"><title>{escape(title)}</title></path>'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Components:
    """Principal components of some features."""

    points_NK: Floats
    """Each sample along each component."""
    shares_K: Floats
    """Of the variance, falling."""


def components(features_ND: Floats, count: int = 2) -> Components:
    """The first `count`; the entry of each axis that is largest in size is positive, so that signs do not flip."""
    centred_ND = features_ND - features_ND.mean(axis=0)
    variances, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    axes_DK = axes_DD[:, ::-1][:, :count]
    axes_DK = axes_DK * np.sign(axes_DK[np.abs(axes_DK).argmax(axis=0), np.arange(axes_DK.shape[1])])
    shares = variances[::-1].clip(min=0) / max(float(variances.clip(min=0).sum()), 1e-300)
    return Components(points_NK=centred_ND @ axes_DK, shares_K=shares[:count])


def section(looks: Sequence[Look]) -> str:
    """Two pictures of the same points, and the effective rank of three kinds of features."""
    name = _name(looks[0])
    features = np.concatenate([one.features[TRAINED][name].double().numpy() for one in looks])
    if len(features) < 3 or features.shape[1] < 2:
        return words.absent("three samples and two features are needed for a plane.")
    found = components(features)
    lonlat_N2 = np.concatenate([one.lonlat_N2 for one in looks])
    covers = [*chain.from_iterable(one.covers for one in looks)]
    splits = [split for one in looks for split in (_split(one),) * len(one.ids)]
    known = any(cover.label is not None for cover in covers)
    groups, looks_of = grouped([cover.label for cover in covers]) if known else _by_split(splits)
    hollow = [cover.mixed for cover in covers]
    by_group = "most frequent class of a chip" if known else "split"
    places = place_colours(lonlat_N2)
    axes = tuple(f"component {number}: {share:.0%} of the variance" for number, share in enumerate(found.shares_K, 1))
    titles = [
        f"{split}, {cover}, {lonlat[0]:.3f} {lonlat[1]:.3f}"
        for split, cover, lonlat in zip(splits, covers, lonlat_N2, strict=True)
    ]
    dots = [looks_of[group] for group in groups]
    caption = f"{len(features)} samples: " + ", ".join(f"{len(one.ids)} {_split(one)}" for one in looks)
    return (
        words.plots(
            [
                words.plot(
                    f"By {by_group}",
                    scatter(found.points_NK, dots, titles, axes, hollow=hollow),
                    caption,
                ),
                words.plot(
                    "By place",
                    scatter(found.points_NK, places, titles, axes, hollow=hollow),
                    "red to the east, blue to the north, dark to the south-west",
                ),
            ],
            wide=True,
        )
        + _legend(looks_of, any(hollow))
        + words.told(
            "a cloud that fills both directions; kinds of land apart; the two splits on top of each other.",
            "a line or a point (collapse), one component with nearly all of the variance, or islands that are places "
            "or dates and not kinds of land.",
        )
        + _ranks(looks)
    )


def grouped(labels: Sequence[int | None]) -> tuple[list[str], dict[str, Dot]]:
    """The group of each, and how groups look: as many of the most frequent classes as there are colours."""
    counts = Counter(label for label in labels if label is not None)
    shown = sorted(label for label, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_COLOURED])
    groups = [
        "unknown" if label is None else f"class {label}" if label in shown else "other classes" for label in labels
    ]
    dots = {f"class {label}": Dot(PALETTE[at], at % len(SHAPES)) for at, label in enumerate(shown)}
    dots |= {"other classes": Dot(PALETTE[_COLOURED], 0), "unknown": Dot(PALETTE[_COLOURED], 1)}
    return groups, {name: dot for name, dot in dots.items() if name in groups}


def _by_split(splits: Sequence[str]) -> tuple[list[str], dict[str, Dot]]:
    return [*splits], {name: Dot(COLOURS[name], at) for at, name in enumerate(dict.fromkeys(splits))}


def place_colours(lonlat_N2: Floats) -> list[Dot]:
    """Redder to the east, bluer to the north; grey where the place is not known."""
    low, high = (np.nan_to_num(edge(lonlat_N2, axis=0)) for edge in (np.nanmin, np.nanmax))
    shares_N2 = (lonlat_N2 - low) / np.maximum(high - low, 1e-9)
    return [
        Dot("var(--c7)" if np.isnan(east + north) else f"rgb({50 + 190 * east:.0f},90,{50 + 190 * north:.0f})")
        for east, north in shares_N2
    ]


def scatter(
    points_N2: Floats, dots: Sequence[Dot], titles: Sequence[str], axes: Sequence[str], *, hollow: Sequence[bool]
) -> str:
    """A dot for each sample, empty where `hollow`; both axes to the same scale."""
    frame = _frame(points_N2)
    parts = [f'<rect width="{frame.width:.0f}" height="{frame.height:.0f}" rx="6" fill="var(--card)"/>']
    parts.append(
        f'<text x="{frame.width / 2:.0f}" y="{frame.height - 8:.0f}" text-anchor="middle">{escape(axes[0])}</text>'
    )
    turned = f"translate(18 {frame.height / 2:.0f}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(axes[1])}</text>')
    for (across, up), dot, title, empty in zip(points_N2.tolist(), dots, titles, hollow, strict=True):
        parts.append(dot.drawn(*frame.at(across, up), title, hollow=empty))
    return svg(frame.width, frame.height, parts, said=f"{len(points_N2)} samples along {axes[0]} and {axes[1]}")


def _legend(dots: Mapping[str, Dot], mixed: bool) -> str:
    entries = {name: dot.drawn(6, 6, name, hollow=False) for name, dot in dots.items()}
    if mixed:
        entries["empty: no class covers half of the chip"] = Dot("var(--ink)").drawn(6, 6, "empty", hollow=True)
    keys = (
        f'<span class="key">{svg(12, 12, [drawn], said=name)}{escape(name)}</span>' for name, drawn in entries.items()
    )
    return f"<p>{' '.join(keys)}</p>"


def _frame(points_N2: Floats) -> Frame:
    """As high as the points need, within limits, so that both axes have one scale."""
    (left, right), (low, high) = (padded(points_N2[:, axis].tolist()) for axis in (0, 1))
    room = min(max((high - low) / (right - left), 0.5), 1.0)
    reach = max(right - left, (high - low) / room) / 2
    middle = (left + right) / 2, (low + high) / 2
    return Frame(
        x=(middle[0] - reach, middle[0] + reach),
        y=(middle[1] - reach * room, middle[1] + reach * room),
        width=_SIDE,
        height=MARGINS[1] + (_SIDE - MARGINS[0]) * room,
    )


def _name(one: Look) -> str:
    """The features of all sensors."""
    return "joint" if "joint" in one.features[TRAINED] else "s2"


def _split(one: Look) -> str:
    return str(one.samples.rows["split"][0].as_py())


def _ranks(looks: Sequence[Look]) -> str:
    held = looks[0]
    rows, joint = [], _name(held)
    found = {whose: rank_me(held.features[whose][joint]) for whose in (TRAINED, RANDOM, BANDS)}
    here = reading.ranks(
        found[TRAINED],
        untrained=found[RANDOM],
        bands=found[BANDS],
        samples=len(held.ids),
        width=held.features[TRAINED][joint].shape[1],
    )
    for whose in (TRAINED, RANDOM, BANDS):
        for name, values in held.features[whose].items():
            if "projected" not in name:
                rows.append((whose, name, Number(f"{rank_me(values):.1f}"), Number(str(values.shape[1]))))
    return (
        f"<h3>Effective rank (RankMe) of {len(held.ids)} {_split(held)} samples</h3>"
        + table(("features", "of", "effective rank", "of dimensions"), rows)
        + words.told(
            "a rank that training raised.", "a rank of a few: most dimensions say the same.", f"{joint}, {here}"
        )
    )
