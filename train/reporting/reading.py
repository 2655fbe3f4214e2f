"""Sentences that say what the numbers of this run mean, each from the numbers alone: numbers → text.

No threshold is chosen here: a number is compared with another of the run (untrained, chance, band statistics, the
published recipe), with its 95 % interval, or with what it could be at most.
"""

from collections.abc import Mapping, Sequence
from math import exp, isfinite

from train.reporting.intervals import wilson

Ends = tuple[float, float]
_MOST_SAMPLES = 10_000_000


def extent(*, samples: int, train: int | None, published: int, name: str) -> str:
    """How much was learned from, and what that lets one expect.

    Args:
        samples: read by the run so far, 1 or more.
        train: samples of the training split; None: not known.
        published: samples that the published training reads.
        name: of the recipe of this project that repeats it.
    """
    each = f", each of {train:,} training samples {samples / train:,.1f} times" if train else ""
    said = f"{samples:,} samples were read{each}. The published training (recipe {name}) reads {published:,}"
    if samples >= published:
        return f"{said}: no more than this run, so what is flat or low below is a finding."
    return (
        f"{said}, {_times(published / samples)} as many. The less of that a run has done, the more are flat patches, "
        "features of low rank, and probes no better than an untrained model's to be expected, and no sign of a fault. "
        "More chips of more places, more steps (--steps) and a larger recipe change it; more steps alone read the same "
        "chips again."
    )


def ahead(*, done: int, steps: int) -> str:
    """That the run is not at its end; empty where it is."""
    if done >= steps:
        return ""
    return (
        f"The run is not at its end: {steps - done:,} of {steps:,} steps are still to come, in which the learning rate "
        "falls, and with it, as a rule, the losses. "
    )


def falls(parts: Mapping[str, Ends]) -> str:
    """Which losses fell from the first to the last tenth of the steps."""
    risen = [f"{name} ({first:.4g} → {last:.4g})" for name, (first, last) in parts.items() if not last < first]
    if not risen:
        return f"{'it' if len(parts) == 1 else f'all {len(parts)}'} fell from the first to the last tenth of the steps."
    return f"{len(parts) - len(risen)} of {len(parts)} fell from the first to the last tenth; not {', '.join(risen)}."


def guessing(last: float, guess: float, batch: int) -> str:
    """Where the contrastive part stands beside guessing."""
    if not isfinite(last):
        return ""
    if last >= guess:
        return f" The contrastive part ({last:.3f}) is no better than guessing among {batch} ({guess:.3f})."
    return (
        f" The contrastive part is {guess - last:.3f} below guessing: as if it chose among {exp(last):.1f} images "
        f"instead of {batch}."
    )


def waiting(share: float) -> str:
    """What waiting for data costs."""
    if not 0 <= share < 1:
        return ""
    return f"a step waits {share:.1%} of its time (median): so much is the most that faster reading could save."


def flat(within: Mapping[str, Sequence[float]]) -> str:
    """How much of the pattern inside hidden patches is there: correlations within patches, by sensor."""
    said = []
    for sensor, values in within.items():
        known = [max(value, 0.0) ** 2 for value in values if isfinite(value)]
        if known:
            said.append(f"{sum(known) / len(known):.0%} of {sensor}'s")
    if not said:
        return ""
    return (
        f"inside hidden patches the prediction carries {' and '.join(said)} variance (square of the correlation within "
        "patches, mean over bands). At 0 % no pattern inside patches is right."
    )


def beside(value: float, between: Ends, others: Mapping[str, float]) -> str:
    """A share with its interval beside other values: which of them it lies above, and which it cannot be told from."""
    low, high = between
    told = {
        "lies above": [name for name, other in others.items() if other < low],
        "cannot be told from": [name for name, other in others.items() if low <= other <= high],
        "lies below": [name for name, other in others.items() if other > high],
    }
    verdicts = [f"{verdict} {_listed(names, others)}" for verdict, names in told.items() if names]
    return f"{value:.3f} ({low:.3f} to {high:.3f}) {', and '.join(verdicts)}."


def apart(ours: Ends, theirs: Ends) -> str:
    """How two intervals lie: `above`, `below`, or `overlap`."""
    if ours[0] > theirs[1]:
        return "above"
    return "below" if ours[1] < theirs[0] else "overlap"


def compared(value: float, others: Mapping[str, float], *, samples: int) -> str:
    """An accuracy beside others on the same samples, by their intervals; and how many would tell what these do not."""
    ours, said = wilson(value, samples), []
    for name, other in others.items():
        how = apart(ours, wilson(other, samples))
        if how != "overlap":
            said.append(f"{how} {name} ({other:.3f})")
            continue
        count = needed(value, other)
        more = f"about {count:,} would tell {value:.3f} and {other:.3f} apart" if count else "they are the same"
        said.append(f"not to be told from {name} by {samples} samples: {more}")
    return f"trained is {'; '.join(said)}."


def needed(one: float, other: float) -> int | None:
    """So many samples, to two digits, that the 95 % intervals of two shares come apart; None: more than ten million."""
    low, high = 0, 1
    while apart(wilson(one, high), wilson(other, high)) == "overlap":
        low, high = high, high * 2
        if high > _MOST_SAMPLES:
            return None
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if apart(wilson(one, middle), wilson(other, middle)) == "overlap":
            low = middle
        else:
            high = middle
    return high


def ranks(trained: float, *, untrained: float, bands: float, samples: int, width: int) -> str:
    """An effective rank beside what is possible and what the images give."""
    most = min(samples, width)
    moved = "raised it from" if trained > untrained else "lowered it from" if trained < untrained else "left it at"
    few = f" ({samples} samples cannot show more)" if samples < width else ""
    return (
        f"{trained:.1f} of at most {most}{few}; training {moved} {untrained:.1f}. Plain band statistics of the same "
        f"images have {bands:.1f}. What all samples share counts as one dimension: chips that are alike have few."
    )


def moved(by: float, whence: str) -> str:
    """How far heads lie on average from where they would be without content."""
    return f"heads lie {by:.2f} patches on average from {whence}; at 0 they would not look at what is there."


def sure(samples: int) -> str:
    """How sure a share of so many validation samples is."""
    if not samples:
        return "without validation samples there are neither pictures nor probes. Ingest a larger area, or with --val."
    low, high = wilson(0.5, samples)
    return f"{samples:,} validation samples: a share of a half is known to within ±{(high - low) / 2:.1%} (95 %)."


def _listed(names: Sequence[str], values: Mapping[str, float]) -> str:
    return " and ".join(f"{name} ({values[name]:.3f})" for name in names)


def _times(ratio: float) -> str:
    return f"{ratio:,.1f} times" if ratio < 10 else f"{float(f'{ratio:.2g}'):,.0f} times"
