"""What went in: where the samples lie, how many, how far apart in time the two sensors are, and each band's values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import cos, isfinite, radians
from typing import Any

import pyarrow as pa

from pipeline.manifest import Manifest, Stats
from pipeline.page.document import Number, table
from pipeline.page.drawing import COLOURS, bars, cell_map, histogram, legend
from pipeline.stats import BandStats
from train.reporting import reading, words

MOST_CELLS = 20_000
"""Samples on the map: more would make a page that no browser opens."""
_METRES_A_DEGREE = 111_320.0
_COLUMNS = ["key", "split", "lon", "lat", "time", "gap_hours", "cloud"]


def section(known: Manifest, index: pa.Table, stats: Stats) -> str:
    """The section; pixels' statistics are those of the training samples."""
    rows = index.select(_COLUMNS).to_pylist()
    return (
        _counts(known)
        + places(rows, chip_px=known.chip_px)
        + words.told(
            "validation samples in blocks of their own, apart from those trained on, over all of the area.",
            "validation samples strewn among training ones: neighbours see the same ground, and every probe flatters.",
            reading.sure(known.samples("val")),
        )
        + _distributions(rows, is_pair=known.kind == "pair")
        + _statistics(stats)
    )


def places(rows: Sequence[Mapping[str, Any]], *, chip_px: int) -> str:
    """The map: a square of a chip's size at the centre of each sample; those of one place are one square."""
    known = [row for row in rows if isfinite(row["lon"]) and isfinite(row["lat"])]
    dates = Counter((row["lon"], row["lat"], row["split"]) for row in known)
    shown = list(dates.items())[:MOST_CELLS]
    cells = [(_box(lon, lat, chip_px * 10.0), split, f"{split}, {count} samples") for (lon, lat, split), count in shown]
    drawn = legend({split: COLOURS[split] for split in ("train", "val")}) + cell_map(cells)
    left = len(rows) - sum(count for _, count in shown)
    return drawn + (f"<p>{left:,} more samples are not drawn: too many, or of unknown place.</p>" if left else "")


def _box(lon: float, lat: float, side_m: float) -> tuple[float, float, float, float]:
    high = side_m / 2 / _METRES_A_DEGREE
    wide = high / max(cos(radians(lat)), 0.01)
    return lon - wide, lat - high, lon + wide, lat + high


def _counts(known: Manifest) -> str:
    size = sum(shard.bytes for shard in known.shards)
    rejected = {name: count for name, count in known.counts.items() if name != "accepted"}
    rows = [
        ("kind", f"{known.kind}s, chips of {known.chip_px} x {known.chip_px} pixels of 10 m"),
        ("train", f"{known.samples('train'):,} samples"),
        ("val", f"{known.samples('val'):,} samples"),
        ("rejected", ", ".join(f"{count:,} for {name}" for name, count in rejected.items()) or "none"),
        ("Sentinel-2", " ".join(known.s2_bands) or "none"),
        ("Sentinel-1", " ".join(known.s1_bands) or "none"),
        ("shards", f"{len(known.shards):,}, {size / 1e6:,.1f} MB together"),
        ("made by", f"{known.created_by}, plan {known.plan_fingerprint[:12]}"),
    ]
    return table((), rows)


def _distributions(rows: Sequence[Mapping[str, Any]], *, is_pair: bool) -> str:
    months = [0] * 12
    for row in rows:
        if row["time"] is not None:
            months[row["time"].month - 1] += 1
    parts = {"Month of the Sentinel-2 image": bars(months, (1, 12), "", size=(400, 110), names="JFMAMJJASOND")}
    if is_pair:
        gaps = [row["gap_hours"] for row in rows if row["gap_hours"] is not None]
        parts["Hours between Sentinel-2 and Sentinel-1"] = histogram(gaps, "h")
    parts["Cloud"] = histogram([100 * row["cloud"] for row in rows if row["cloud"] is not None], "%")
    figures = "".join(f"<div><h3>{name}</h3>{drawing}</div>" for name, drawing in parts.items())
    see = "all seasons that the model is to know" + (", and hours between the sensors, not days." if is_pair else ".")
    return f'<div class="grid">{figures}</div>' + words.told(
        see,
        "one month alone, or gaps in which fields are harvested and snow falls: then the two images differ in truth.",
    )


def _statistics(stats: Stats) -> str:
    known = [(part, unit) for part, unit in ((stats.s2, "DN"), (stats.s1, "dB")) if part is not None]
    if not known:
        return words.absent("the data set has no training sample, hence no statistics of bands.")
    told = words.told(
        "one hump a band; the model reads mean - 2 std to mean + 2 std as 0 to 1, unless the recipe says otherwise.",
        "a spike at either end (saturation, or an offset that was not removed), or a std near 0.",
    )
    return "<h3>Values of each band, training samples</h3>" + "".join(_bands(*one) for one in known) + told


def _bands(stats: BandStats, unit: str) -> str:
    pictures = "".join(
        f'<div class="band"><h3>{band}</h3>{bars(counts, stats.bin_range, unit, size=(200, 50))}</div>'
        for band, counts in zip(stats.bands, stats.histogram, strict=True)
    )
    columns = zip(stats.bands, stats.count, stats.mean, stats.std, stats.minimum, stats.maximum, strict=True)
    rows = [(band, Number(f"{n:,}"), *(Number(f"{value:.2f}") for value in values)) for band, n, *values in columns]
    head = ("band", "pixels", f"mean ({unit})", "std", "min", "max")
    return f'<div class="grid">{pictures}</div>' + table(head, rows)
