"""A finished data set on one self-contained page: map, reasons, distributions, statistics, and pictures side by side.

Users find misalignment with their eyes first: every picture of radar stands beside the optical one of its place.
"""

import io
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

import pyarrow.parquet as pq

from ingest import chips
from ingest.care.report import page, pictures
from ingest.care.samples import DataSet, Row, open_set
from pipeline import manifest
from pipeline.errors import ContractError, redact
from pipeline.page import png
from pipeline.page.document import document
from pipeline.sample import Sample
from pipeline.store import Store

T = TypeVar("T")
MOST_CELLS = 20_000
"""Cells on the map: more would make a page that no browser opens."""


def report(store: Store, *, sheets: int, samples: int) -> str:
    """The page of the data set in `store`.

    Args:
        store: where it lies.
        sheets: shards with a contact sheet, spread evenly over all.
        samples: of each sheet, spread evenly over the shard.

    Raises:
        UsageError: there is no finished data set.
        ContractError: it is damaged.
    """
    data = open_set(store)
    try:
        table = pq.read_table(io.BytesIO(store.read(chips.NAME)))
    except FileNotFoundError as error:
        raise ContractError(f"{store.url} has no {chips.NAME}. Run `ingest verify` on it.") from error
    counts = Counter(zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True))
    is_pair = data.manifest.kind == "pair"
    shown = table.slice(0, MOST_CELLS).to_pylist()
    sections = [
        ("What it is", page.facts(data.manifest)),
        ("Where", page.where(shown) + _more(table.num_rows)),
        ("What became of chips and cells", page.reasons(dict(counts))),
        ("Samples", page.distributions(data.index.select(_INDEX_COLUMNS).to_pylist(), is_pair=is_pair)),
        ("Pixels of the training samples", page.statistics(manifest.load_stats(store))),
        ("Pictures", _pictures(data, sheets=sheets, samples=samples)),
    ]
    return document(f"Data set {redact(store.url)}", sections)


def write(store: Store, target: str, *, sheets: int, samples: int) -> str:
    """Write the page to `target`, a path or any fsspec URL; where it is then."""
    folder, _, name = target.rpartition("/")
    place = Store.at(folder or ("/" if target.startswith("/") else "."))
    place.publish(name, report(store, sheets=sheets, samples=samples).encode())
    return redact(target)


_INDEX_COLUMNS = ["time", "gap_hours", "cloud", "shift_dy", "shift_dx"]


def _more(rows: int) -> str:
    return f"<p>The first {MOST_CELLS:,} of {rows:,} rows of {chips.NAME}.</p>" if rows > MOST_CELLS else ""


def _pictures(data: DataSet, *, sheets: int, samples: int) -> str:
    by_shard = [(shard, [*rows]) for shard, rows in groupby(data.rows(), key=lambda row: row["shard"])]
    parts = [
        page.sheet(shard, [_figure(data, row) for row in _spread(rows, samples)])
        for shard, rows in _spread(by_shard, sheets)
    ]
    text = "<p>Sentinel-2 in true colour, then Sentinel-1 as VV, VH and VV - VH in red, green and blue.</p>"
    return text + "".join(parts) if parts else "<p>None.</p>"


def _spread(items: Sequence[T], count: int) -> list[T]:
    """So many items, evenly spread."""
    if count >= len(items):
        return [*items]
    return [items[i * len(items) // count] for i in range(count)]


def _figure(data: DataSet, row: Row) -> str:
    sample = data.read(row)
    addresses = [png.address(picture) for picture in pictures.strips(sample, data.manifest.s2_bands)]
    return page.figure(addresses, _caption(sample), is_pair=data.manifest.kind == "pair")


def _caption(sample: Sample) -> list[str]:
    meta = sample.meta
    said = [sample.key, ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in meta.acquired)]
    cloud = "" if meta.cloud_fraction is None else f"cloud {meta.cloud_fraction:.1%}"
    gap = "" if meta.gap_hours is None else f"S1 {meta.gap_hours:.1f} h away"
    shift = "" if meta.shift_px is None else f"shift {meta.shift_px[0]:+.1f}, {meta.shift_px[1]:+.1f} px"
    return [*said, "; ".join(filter(None, (gap, cloud, shift)))]
