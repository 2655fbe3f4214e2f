"""The page: sections of HTML that need nothing beside themselves. Every text of the data set is escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any

import shapely

from ingest.care.report.drawing import COLOURS, bars, cell_map, histogram, legend, table
from pipeline.manifest import Manifest, Stats
from pipeline.stats import BandStats

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #111; background: #fff }
h1 { font-size: 1.6em } h2 { margin-top: 2em; border-bottom: 1px solid #ddd } h3 { margin: 1.5em 0 .3em; font-size: 1em }
table { border-collapse: collapse; margin: .5em 0 } th, td { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid #999; font-weight: 600 } .n { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto } svg text { font-size: 11px; fill: #333 }
i { display: inline-block; width: .8em; height: .8em; margin-left: 1em }
.grid { display: flex; flex-wrap: wrap; gap: 1.2em } .band { width: 200px } .band p, figcaption { margin: 0; font-size: 12px; color: #333 }
figure { margin: 0; max-width: 100%; overflow-wrap: anywhere } figure.pair { width: 266px }
figure img { image-rendering: pixelated; display: block; margin-bottom: 3px; max-width: 100% }
figure.pair div { display: flex; gap: 4px } figure.pair img { width: 131px; height: 131px }
"""  # noqa: E501


def document(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A page of sections: heading and HTML of each."""
    body = "".join(f"<h2>{escape(name)}</h2>{html}" for name, html in sections)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
    )


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
    rows = [(band, _Number(f"{n:,}"), *(_Number(f"{value:.2f}") for value in values)) for band, n, *values in columns]
    return f'<div class="grid">{pictures}</div>' + table(("band", "pixels", "mean", "std", "min", "max"), rows)


class _Number:
    """A number that was written out: it stands to the right all the same."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def sheet(shard: str, figures: Sequence[str]) -> str:
    """The contact sheet of one shard."""
    return f'<h3>{escape(shard)}</h3><div class="grid">{"".join(figures)}</div>'


def figure(addresses: Sequence[str], caption: Sequence[str], *, is_pair: bool) -> str:
    """A sample's pictures with what is known of it."""
    pictures = "".join(f'<img src="{one}" alt="">' for one in addresses)
    said = "<br>".join(escape(line) for line in caption)
    kind = ' class="pair"' if is_pair else ""
    return f"<figure{kind}><div>{pictures}</div><figcaption>{said}</figcaption></figure>"
