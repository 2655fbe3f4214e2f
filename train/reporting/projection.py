"""The space of features in two dimensions: principal components, each sample a point.

Axes: N samples, D width, K components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.page.document import Number, table
from pipeline.page.drawing import COLOURS, legend, svg
from train.probes.spectrum import rank_me
from train.reporting import reading, words
from train.reporting.axes import MARGINS, Frame, padded
from train.reporting.encoded import BANDS, RANDOM, TRAINED, Look

Floats = NDArray[np.float64]
PALETTE = tuple(f"var(--c{number})" for number in range(8))
_SIDE = 400.0


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
    labels = [*chain.from_iterable(one.labels for one in looks)]
    splits = [split for one in looks for split in (_split(one),) * len(one.ids)]
    known = sorted({label for label in labels if label is not None})
    groups = [f"class {label}" if label is not None else "unknown" for label in labels] if known else splits
    colours = {f"class {label}": PALETTE[number % 7] for number, label in enumerate(known)} | {"unknown": PALETTE[7]}
    colours = (
        {one: colours[one] for one in sorted({*groups})}
        if known
        else {one: COLOURS[one] for one in dict.fromkeys(splits)}
    )
    by_group = "land cover" if known else "split"
    places = place_colours(lonlat_N2)
    axes = tuple(f"component {number}: {share:.0%} of the variance" for number, share in enumerate(found.shares_K, 1))
    titles = [f"{group} {lonlat[0]:.3f}, {lonlat[1]:.3f}" for group, lonlat in zip(groups, lonlat_N2, strict=True)]
    caption = f"{len(features)} samples: " + ", ".join(f"{len(one.ids)} {_split(one)}" for one in looks)
    return (
        words.plots(
            [
                words.plot(
                    f"By {by_group}",
                    scatter(found.points_NK, [colours[group] for group in groups], titles, axes),
                    caption,
                ),
                words.plot(
                    "By place", scatter(found.points_NK, places, titles, axes), "red to the east, blue to the north"
                ),
            ],
            wide=True,
        )
        + legend(colours)
        + words.told(
            "a cloud that fills both directions; kinds of land apart; the two splits on top of each other.",
            "a line or a point (collapse), one component with nearly all of the variance, or islands that are places "
            "or dates and not kinds of land.",
        )
        + _ranks(looks)
    )


def place_colours(lonlat_N2: Floats) -> list[str]:
    """Redder to the east, bluer to the north; grey where the place is not known."""
    low, high = (np.nan_to_num(edge(lonlat_N2, axis=0)) for edge in (np.nanmin, np.nanmax))
    shares_N2 = (lonlat_N2 - low) / np.maximum(high - low, 1e-9)
    return [
        "var(--c7)" if np.isnan(east + north) else f"rgb({50 + 190 * east:.0f},90,{50 + 190 * north:.0f})"
        for east, north in shares_N2
    ]


def scatter(points_N2: Floats, colours: Sequence[str], titles: Sequence[str], axes: Sequence[str]) -> str:
    """A dot for each sample; both axes to the same scale."""
    frame = _frame(points_N2)
    parts = [f'<rect width="{frame.width:.0f}" height="{frame.height:.0f}" rx="6" fill="var(--card)"/>']
    parts.append(
        f'<text x="{frame.width / 2:.0f}" y="{frame.height - 8:.0f}" text-anchor="middle">{escape(axes[0])}</text>'
    )
    turned = f"translate(18 {frame.height / 2:.0f}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(axes[1])}</text>')
    for (across, up), colour, title in zip(points_N2.tolist(), colours, titles, strict=True):
        left, top = frame.at(across, up)
        dot = f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{colour}" fill-opacity=".75">'
        parts.append(f"{dot}<title>{escape(title)}</title></circle>")
    return svg(frame.width, frame.height, parts, said=f"{len(points_N2)} samples along {axes[0]} and {axes[1]}")


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
