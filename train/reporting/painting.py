"""What the model paints where patches are hidden: pictures, and how well they fit.

Axes: B samples, T frames, R = B T rows, C bands, H W pixels.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.page.document import Number, table
from pipeline.page.pictures import TRUE_COLOUR, radar, stretched, tails
from train import pictures
from train.features import Encoder
from train.models.satmae import Satmae
from train.pictures import GREY, Reconstruction
from train.reporting import reading, words
from train.reporting.encoded import batches, plan_of
from train.reporting.fits import Fit, fits
from train.stream.loader import stretches
from train.stream.normalise import Constants, denormalise
from train.stream.samples import Samples

SAMPLES, DRAWN = 32, 4
"""Samples that are measured, and those of them that are drawn."""
Rgb = NDArray[np.uint8]
_NAMES = {"s2": "Sentinel-2", "s1": "Sentinel-1"}
_PANELS = ("input", "what the model sees", "prediction where it was hidden")


def section(encoder: Encoder, samples: Samples) -> str:
    """Pictures of some samples, then a table over more of them."""
    made, count = reconstructions(encoder, samples)
    bands = encoder.run.stream.bands
    drawn = min(DRAWN, count)
    found = {name: fits(one, bands[name], patch=encoder.patch_px) for name, one in made.items()}
    return (
        f"<p>Left to right: {', '.join(_PANELS)}. Validation samples, cut from the middle of their chips; masks of "
        f"seed {encoder.run.seed}. {_given_away(encoder)}</p>"
        + "".join(_sensor(name, one, encoder, drawn) for name, one in made.items())
        + words.told(
            "edges, rivers and fields that run on through hidden patches, and colours that fit their surroundings.",
            "flat patches (the model knows no more than a mean), a chessboard of patch borders, or the same patch "
            "painted everywhere.",
            reading.flat({_NAMES[name]: [one.within for one in ones] for name, ones in found.items()}),
        )
        + f"<h3>How well hidden pixels are predicted ({count} samples)</h3>"
        + table(
            ("sensor", "band", "root mean squared error", "correlation", "correlation within patches"),
            [row for name, ones in found.items() for row in _rows(name, ones)],
        )
        + words.told(
            "correlations well above 0, within patches, too; radar lower: nobody can foresee speckle.",
            "a correlation within patches near 0: pictures that look right from afar and hold no pattern.",
        )
    )


@torch.no_grad()
def reconstructions(encoder: Encoder, samples: Samples) -> tuple[dict[str, Reconstruction], int]:
    """By sensor, in the stored unit (S2 digital numbers, S1 dB), and of how many samples."""
    plan, stream = plan_of(samples, SAMPLES, seed=encoder.run.seed), encoder.run.stream
    with batches(encoder, samples, plan) as read:
        batch, _ = next(read)
    made = pictures.reconstruct(encoder.module, batch, seed=encoder.run.seed)
    ends, count = stretches(samples, stream), min(plan.samples, plan.global_batch)
    return {name: _stored(one, ends[name], encoder, rows=count) for name, one in made.items()}, count


def _stored(one: Reconstruction, ends: Constants, encoder: Encoder, *, rows: int) -> Reconstruction:
    rows, scale = rows * one.frames, encoder.run.stream.scale
    images, predicted = (denormalise(x[:rows].float().cpu(), ends, scale=scale) for x in (one.images, one.predicted))
    return Reconstruction(images=images, predicted=predicted, hidden=one.hidden[:rows].cpu(), frames=one.frames)


def _given_away(encoder: Encoder) -> str:
    config = encoder.module.config
    normed = config.norm_pix if isinstance(encoder.module, Satmae) else True  # type: ignore[union-attr]
    return (
        "The target is standardised patch by patch, so each patch is given its true mean and deviation back."
        if normed
        else ""
    )


def _sensor(name: str, made: Reconstruction, encoder: Encoder, drawn: int) -> str:
    """The pictures of one sensor: for SatMAE with band groups those of each group, of stacks a row for each date."""
    bands = encoder.run.stream.bands[name]
    parts = []
    for title, mixed in _mixes(name, bands, encoder).items():
        rows = [
            _row(made, row, bands, mixed, alt=f"{title}, sample {row // made.frames + 1}")
            for row in range(drawn * made.frames)
        ]
        parts.append(f'<h3>{title}</h3><div class="shots">{"".join(rows)}</div>')
    return "".join(parts)


def _mixes(name: str, bands: Sequence[str], encoder: Encoder) -> Mapping[str, tuple[str, ...]]:
    """Which bands become red, green and blue, by title; of radar none."""
    if name == "s1":
        return {"Sentinel-1: VV, VH and VV - VH in red, green and blue": ()}
    groups = getattr(encoder.module.config, "groups", ()) or (tuple(bands),)
    return {_title(mixed): mixed for mixed in map(mix, groups)}


def mix(bands: Sequence[str]) -> tuple[str, str, str]:
    """True colour where the bands have it, or else the longest waves in red."""
    if set(TRUE_COLOUR) <= set(bands):
        return TRUE_COLOUR
    red, green, blue = (bands[max(-number, -len(bands))] for number in (1, 2, 3))
    return red, green, blue


def _title(mixed: tuple[str, str, str]) -> str:
    real = " (real colours)" if mixed == TRUE_COLOUR else ""
    return f"Sentinel-2: {', '.join(mixed)} in red, green and blue{real}"


def _row(made: Reconstruction, row: int, bands: Sequence[str], mixed: tuple[str, ...], *, alt: str) -> str:
    images = "".join(
        words.image(rgb, f"{alt}: {panel}") for rgb, panel in zip(panels(made, row, bands, mixed), _PANELS, strict=True)
    )
    date = f"date {row % made.frames + 1}" if made.frames > 1 else ""
    return f'<figure><div class="strip">{images}</div><figcaption>{date}</figcaption></figure>'


def panels(made: Reconstruction, row: int, bands: Sequence[str], mixed: tuple[str, ...]) -> tuple[Rgb, Rgb, Rgb]:
    """Input, input with `GREY` for what is hidden, and input with the prediction there; (H, W, 3) each.

    Args:
        made: in the stored unit.
        row: of it.
        bands: of it.
        mixed: those that become red, green and blue; none: radar.
    """
    at = [[*bands].index(band) for band in mixed] or [0, 1]
    true, guess = (x[row, at].numpy() for x in (made.images, made.predicted))
    hidden: NDArray[np.bool_] = made.hidden[row, at].any(dim=0).numpy()[..., None]
    if not mixed:
        seen, painted = radar(true), radar(guess)
    elif mixed == TRUE_COLOUR:
        ends = _ends(made, row, at)
        seen, painted = stretched(true, ends), stretched(guess, ends)
    else:
        seen, painted = (
            np.concatenate([stretched(x[None, i], tails(true[None, i])) for i in range(3)], -1) for x in (true, guess)
        )
    return seen, np.where(hidden, np.uint8(GREY), seen), np.where(hidden, painted, seen)


def _ends(made: Reconstruction, row: int, at: list[int]) -> tuple[float, float]:
    """Of one stretch for three bands; a cloud that the model's input clips in all of them is white."""
    low, high = tails(made.images[row, at].numpy())
    full = min(high, float(made.images[:, at].amax(dim=(0, 2, 3)).min()))
    return min(low, full / 2), full


def _rows(sensor: str, found: Sequence[Fit]) -> list[tuple[object, ...]]:
    unit, digits = ("DN", 0) if sensor == "s2" else ("dB", 2)
    return [
        (
            _NAMES[sensor],
            fit.band,
            Number(f"{fit.error:,.{digits}f} {unit}"),
            _two(fit.correlation),
            _two(fit.within),
        )
        for fit in found
    ]


def _two(value: float) -> Number:
    return Number("-" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}")
