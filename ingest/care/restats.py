"""The statistics of a finished data set, measured again: of all samples, or by split, season, orbit and more.

Samples are read in shard order, a few at a time. Sums merge, so that groups of several data sets can be put together.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from ingest.care.samples import DataSet, Row
from ingest.measure import Tally
from pipeline import record
from pipeline.errors import UsageError
from pipeline.sample import Sample
from pipeline.stats import BandStats

_SEASONS = ("winter", "spring", "summer", "autumn")
_GROUPS: Mapping[str, Callable[[Sample, Row], str]] = {
    "split": lambda _, row: str(row["split"]),
    "season": lambda sample, _: season(sample.meta.acquired[0].month, sample.meta.center_lonlat[1]),
    "orbit": lambda sample, _: sample.meta.orbit_state or "unknown",
    "backscatter": lambda sample, _: sample.meta.backscatter or "none",
    "zone": lambda sample, _: str(sample.meta.epsg),
    "year": lambda sample, _: str(sample.meta.acquired[0].year),
}
NAMES = tuple(_GROUPS)
"""What statistics can be told apart by."""


def season(month: int, lat: float) -> str:
    """Name of a month's season on its own hemisphere.

    >>> season(1, 48.0), season(1, -30.0)
    ('winter', 'summer')
    """
    return _SEASONS[(month % 12 // 3 + (2 if lat < 0 else 0)) % 4]


def measure(data: DataSet, by: Sequence[str] = (), *, threads: int = 4) -> dict[str, Tally]:
    """Statistics of every group of samples; without `by` those of the split for training.

    Raises:
        UsageError: nothing is told apart by such a name.
        CorruptShard: a sample is damaged.
    """
    unknown = [name for name in by if name not in _GROUPS]
    if unknown:
        raise UsageError(f"--by {','.join(unknown)}: choose from {', '.join(NAMES)}.")
    rows = (row for row in data.rows() if by or row["split"] == "train")
    found: dict[str, Tally] = {}
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(rows, 4 * threads)):
            for row, sample in zip(some, pool.map(data.read, some), strict=True):
                name = " ".join(_GROUPS[one](sample, row) for one in by) or "train"
                found.setdefault(name, Tally(s2_bands=data.manifest.s2_bands)).add(sample)
    return dict(sorted(found.items()))


def as_json(found: Mapping[str, Tally]) -> dict[str, Any]:
    """Everything, mergeable: count, mean, m2, extremes and histogram of every band."""
    return {
        name: {"samples": tally.samples, "s2": record.to_json(tally.s2), "s1": record.to_json(tally.s1)}
        for name, tally in found.items()
    }


def lines(found: Mapping[str, Tally]) -> list[str]:
    """A table for a person."""
    head = f"{'group':<24} {'samples':>8}  {'band':<5} {'pixels':>12} {'mean':>10} {'std':>10} {'min':>9} {'max':>9}"
    body = [
        f"{name:<24} {tally.samples:>8}  {line}"
        for name, tally in found.items()
        for stats in (tally.s2, tally.s1)
        if stats is not None
        for line in _band_lines(stats)
    ]
    return [head, *body]


def _band_lines(stats: BandStats) -> list[str]:
    columns = zip(stats.bands, stats.count, stats.mean, stats.std, stats.minimum, stats.maximum, strict=True)
    return [
        f"{band:<5} {count:>12} {mean:>10.2f} {std:>10.2f} {low:>9.2f} {high:>9.2f}"
        for band, count, mean, std, low, high in columns
    ]
