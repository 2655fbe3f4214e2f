"""The sections of the page, as HTML. Every text of the data set is escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any

import shapely

from pipeline.manifest import Manifest, Stats
from pipeline.page.document import Number, table
from pipeline.page.drawing import COLOURS, bars, cell_map, histogram, legend
from pipeline.stats import BandStats


def facts(known: Manifest) -> str:
    """What the data set is."""
    size = sum(shard.bytes for shard in known.shards)
    rows = [
        ("kind", known.kind),
        ("chips", f"{known.chip_px} x {known.chip_px} pixels of 10 m"),
        ("Sentinel-2", " ".join(known.s2_bands)),
        ("Sentinel-1", " ".join(known.s1_bands) or "none"),
        ("train", f"{known.samples('train'):,} samples"),
        ("val", f"{known.samples('val'):,} samples"),
        ("shards", f"{len(known.shards):,} of {size / 1e6:,.1f} MB together, members {known.codec}"),
        ("plan", known.plan_fingerprint[:12]),
        ("made by", known.created_by),
    ]
    return table((), rows)


def where(chips: Sequence[dict[str, Any]]) -> str:
    """The map: every cell once, by the best that became of it."""
    rank = {"train": 3, "val": 2, "rejected": 1, "left out": 0}
    best: dict[str, tuple[Any, str, str]] = {}
    for chip in chips:
        became = chip["split"] if chip["status"] == "accepted" else chip["status"]
        if chip["cell_id"] not in best or rank[became] > rank[best[chip["cell_id"]][1]]:
            box = shapely.from_wkb(chip["geometry"]).bounds
            title = " ".join(filter(None, (chip["cell_id"], became, chip["reason"])))
            best[chip["cell_id"]] = (box, became, title)
    return legend(COLOURS) + cell_map(list(best.values()))


def reasons(counts: dict[tuple[str, str], int]) -> str:
    """How many chips and cells for each reason."""
    rows = [(status, reason or "", n) for (status, reason), n in sorted(counts.items(), key=lambda one: -one[1])]
    return table(("status", "reason", "how many"), rows)


def distributions(rows: Sequence[dict[str, Any]], *, is_pair: bool) -> str:
    """Gap, cloud, shift and month of the samples."""
    shifts = [(row["shift_dy"] ** 2 + row["shift_dx"] ** 2) ** 0.5 for row in rows if row["shift_dy"] is not None]
    months = [0] * 12
    for row in rows:
        months[row["time"].month - 1] += 1
    parts = {
        "Cloud": histogram([100 * row["cloud"] for row in rows if row["cloud"] is not None], "%"),
        "Month of the Sentinel-2 image": bars(months, (1, 12), "", size=(400, 110)),
    }
    if is_pair:
        parts["Hours between Sentinel-2 and Sentinel-1"] = histogram([row["gap_hours"] for row in rows], "h")
        parts["Shift of Sentinel-1 against Sentinel-2"] = histogram(shifts, "px")
    return (
        '<div class="grid">' + "".join(f"<div><h3>{name}</h3>{html}</div>" for name, html in parts.items()) + "</div>"
    )


def statistics(known: Stats) -> str:
    """Histograms and moments of every band, over the valid pixels of the training samples."""
    parts = [_bands(stats, unit) for stats, unit in ((known.s2, "DN"), (known.s1, "dB")) if stats is not None]
    return "".join(parts) or "<p>There is no training sample.</p>"


def _bands(stats: BandStats, unit: str) -> str:
    pictures = "".join(
        f'<div class="band"><h3>{escape(band)}</h3>{bars(counts, stats.bin_range, unit, size=(200, 60))}</div>'
        for band, counts in zip(stats.bands, stats.histogram, strict=True)
    )
    columns = zip(stats.bands, stats.count, stats.mean, stats.std, stats.minimum, stats.maximum, strict=True)
    rows = [(band, Number(f"{n:,}"), *(Number(f"{value:.2f}") for value in values)) for band, n, *values in columns]
    return f'<div class="grid">{pictures}</div>' + table(("band", "pixels", "mean", "std", "min", "max"), rows)


def sheet(shard: str, figures: Sequence[str]) -> str:
    """The contact sheet of one shard."""
    return f'<h3>{escape(shard)}</h3><div class="grid">{"".join(figures)}</div>'


def figure(addresses: Sequence[str], caption: Sequence[str], *, is_pair: bool) -> str:
    """A sample's pictures with what is known of it."""
    named = zip(addresses, ("Sentinel-2", "Sentinel-1"), strict=False)
    pictures = "".join(f'<img src="{one}" alt="{name}">' for one, name in named)
    said = "<br>".join(escape(line) for line in caption)
    kind = ' class="pair"' if is_pair else ""
    return f"<figure{kind}><div>{pictures}</div><figcaption>{said}</figcaption></figure>"
